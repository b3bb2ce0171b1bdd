"""What a run has caused is counted in the logs of its processes, from when it began; orders are
taken once.
"""

from pathlib import Path

from tests.torture.counters import Counts, count, missing
from tests.torture.logs import Logs
from tests.torture.service import order, take


def test_what_happened_before_and_what_is_no_event_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "chunker-1.log"
    log.write_text('{"event": "Hand-over refused"}\n')
    logs = Logs(tmp_path)
    with log.open("a") as file:
        file.write(
            'Traceback: x\n[]\n{"event": "Hand-over refused"}\n'
            '{"event": "Entry delivered again"}\n{"half'
        )
    (tmp_path / "indexer-2.log").write_text('{"event": "Entry delivered again"}\n')
    again = "Released items were not in the streams, queued again"
    (tmp_path / "ingest-1.log").write_text(
        f'{{"event": "{again}", "items": 3}}\n{{"event": "{again}", "items": 4}}\n'
    )
    assert count(logs) == Counts(redeliveries=2, refused=1, released_again=7)


def test_a_run_that_did_not_cause_what_it_is_about_is_told_so() -> None:
    assert missing(Counts(refused=1), Counts(refused=1)) == []
    assert missing(Counts(released_again=2), Counts(refused=1)) == [
        "only 0 released again, at least 2 were to happen",
    ]


def test_each_order_is_taken_by_one_start_of_its_service(tmp_path: Path) -> None:
    order(tmp_path, "chunker", "a")
    order(tmp_path, "chunker", "b")
    assert take(tmp_path, "indexer") is None
    assert [take(tmp_path, "chunker") for _ in range(3)] == ["a", "b", None]
