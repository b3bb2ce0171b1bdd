"""The torture suite's checker finds each kind of violation, and nothing in a clean end state."""

from typing import Any

import msgspec
import pytest

from tests.torture.checker import Expected, Item, Job, Observed, Point, check
from tests.torture.traffic import page, requests

A, B = "https://s.example/a", "https://s.example/b"

EXPECTED = Expected(jobs={"j": [A, B]}, chunks={A: ["x", "y"]}, dead=frozenset({B}))
POINTS = (Point(A, "doc-a", 3, 0, "x"), Point(A, "doc-a", 3, 1, "y"))
CLEAN = Observed(
    jobs={"j": Job("partial", (Item(A, "indexed"), Item(B, "failed")))},
    points=POINTS,
    live={"doc-a": 3},
    backlog={"chunk": (0, 0)},
    dead=(B,),
)


def job(status: str, *items: tuple[str, str]) -> dict[str, Any]:
    return {"jobs": {"j": Job(status, [Item(*item) for item in items])}}


def test_a_clean_end_state_has_no_findings() -> None:
    findings = check(EXPECTED, CLEAN)
    assert (findings.lost, findings.doubled, findings.dead, findings.problems) == (0, 0, 1, [])


@pytest.mark.parametrize(
    ("change", "lost", "doubled", "finding"),
    [
        ({"jobs": {}}, 1, 0, "accepted job j is unknown"),
        ({"points": POINTS[:1]}, 1, 0, "lacks 1 of 2 chunks"),
        ({"live": {}}, 1, 2, "lacks 2 of 2 chunks"),
        ({"live": {"doc-a": 4}}, 1, 2, "has a point of version 3"),
        ({"points": (*POINTS, Point(A, "doc-a", 2, 0, "x"))}, 0, 2, "has chunk 0 2 times"),
        ({"points": (*POINTS, Point(A, "doc-a", 3, 2, "z"))}, 0, 1, "chunk 2, that should not be"),
        (
            {"points": (*POINTS, Point("https://s.example/gone", "doc-g", 1, 0, "g"))},
            0,
            1,
            "gone has a point",
        ),
        (job("partial", (B, "failed"), (A, "indexed")), 0, 0, "or in another order"),
        (job("partial", (A, "indexed")), 0, 0, "other items than accepted"),
        (job("running", (A, "released"), (B, "failed")), 0, 0, "job j is running"),
        (job("failed", (A, "failed"), (B, "failed")), 0, 0, "a of job j ended as failed"),
        (job("succeeded", (A, "indexed"), (B, "indexed")), 0, 0, "b of job j ended as indexed"),
        ({"backlog": {"chunk": (2, 0)}}, 0, 0, "chunk has 2 entries, 0 pending"),
        ({"backlog": {"chunk": (0, 1)}}, 0, 0, "chunk has 0 entries, 1 pending"),
        ({"dead": (B, A)}, 0, 0, "a is a dead letter that was not planned"),
        ({"dead": (B, B)}, 0, 0, "b is a dead letter that was not planned"),
        ({"dead": ()}, 0, 0, "b should be a dead letter"),
    ],
)
def test_each_kind_of_violation_is_found(
    change: dict[str, Any], lost: int, doubled: int, finding: str
) -> None:
    findings = check(EXPECTED, msgspec.structs.replace(CLEAN, **change))
    assert (findings.lost, findings.doubled) == (lost, doubled)
    assert any(finding in problem for problem in findings.problems), findings.problems


def test_consumers_of_dead_processes_are_found() -> None:
    assert check(EXPECTED, CLEAN, ["chunker:h:1:a"]).problems == [
        "consumer chunker:h:1:a was left in its group"
    ]


def test_traffic_depends_on_the_seed_alone_and_holds_changes_and_deletes() -> None:
    traffic = list(requests("s.example", 300, seed=7))
    assert traffic == list(requests("s.example", 300, seed=7))
    assert traffic != list(requests("s.example", 300, seed=8))
    assert sum(len(request.urls) for request in traffic) == 300
    assert any(request.delete for request in traffic)
    sent = [each for request in traffic for each in request.pages]
    assert len({each.url for each in sent}) < len(set(sent)) < len(sent), (
        "pages change, and change back"
    )


def test_a_page_is_the_same_whenever_it_is_made() -> None:
    assert page("s.example", 3, 1) == page("s.example", 3, 1)
    assert page("s.example", 3, 1) != page("s.example", 3, 0)
