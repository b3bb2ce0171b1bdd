"""Whether a pipeline is CLEAN: a pure comparison of what is expected with what is observed.

Without findings it is clean.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

SUCCEEDED = frozenset({"indexed", "unchanged", "superseded", "deleted"})
_FAILED = frozenset({"failed"})
TERMINAL_JOBS = frozenset({"succeeded", "partial", "failed", "cancelled"})


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted and what must be stored."""

    jobs: Mapping[str, Sequence[str]]  # job id -> URLs in input order
    chunks: Mapping[
        str, Sequence[str]
    ]  # URL -> sha256 of each chunk's text; a deleted URL has no entry
    dead: frozenset[str] = frozenset()  # URLs of the planned poison


class Item(msgspec.Struct, frozen=True):
    url: str
    state: str


class Job(msgspec.Struct, frozen=True):
    status: str
    items: Sequence[Item]  # by position


class Point(msgspec.Struct, frozen=True):
    url: str
    document_id: str
    version: int
    chunk_index: int
    text_hash: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the servers hold of one scenario's site; the streams are everybody's."""

    jobs: Mapping[str, Job]
    points: Sequence[Point]
    live: Mapping[str, int]  # document id -> the version that the registry shows
    backlog: Mapping[str, tuple[int, int]]  # stream -> entries, pending
    dead: Sequence[str]  # URLs of dead letters


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """`lost` documents lack something, `doubled` ones have too much; `problems` holds all."""

    lost: int
    doubled: int
    dead: int  # dead letters, planned or not
    problems: list[str]


def check(expected: Expected, observed: Observed, left_consumers: Sequence[str] = ()) -> Findings:
    """Every violation, in words; `left_consumers` belong to processes that died long ago."""
    lost = missing_jobs(expected, observed) + missing_chunks(expected, observed)
    doubled = duplicate_chunks(observed) + foreign_points(expected, observed)
    rest = (
        wrong_items(expected, observed)
        + open_jobs(observed)
        + backlog(observed)
        + wrong_dead(expected, observed)
    )
    rest += [f"consumer {name} was left in its group" for name in left_consumers]
    return Findings(
        lost=len(lost),
        doubled=len(doubled),
        dead=len(observed.dead),
        problems=lost + doubled + rest,
    )


def missing_jobs(expected: Expected, observed: Observed) -> list[str]:
    return [
        f"accepted job {job_id} is unknown"
        for job_id in expected.jobs
        if job_id not in observed.jobs
    ]


def missing_chunks(expected: Expected, observed: Observed) -> list[str]:
    """A document without the chunks of its last accepted text, whatever else it has."""
    stored = {
        (point.url, point.chunk_index, point.text_hash)
        for point in observed.points
        if _is_live(point, observed)
    }
    wanted = {
        url: {(url, index, text) for index, text in enumerate(texts)}
        for url, texts in expected.chunks.items()
    }
    return [
        f"{url} lacks {len(keys - stored)} of {len(keys)} chunks"
        for url, keys in wanted.items()
        if keys - stored
    ]


def duplicate_chunks(observed: Observed) -> list[str]:
    counted = Counter((point.url, point.chunk_index) for point in observed.points)
    return [
        f"{url} has chunk {index} {times} times"
        for (url, index), times in counted.items()
        if times > 1
    ]


def foreign_points(expected: Expected, observed: Observed) -> list[str]:
    """Points of a version that is not visible, or with a text that is not the last accepted one."""
    return [
        f"{point.url} has a point of version {point.version}, chunk {point.chunk_index}, "
        "that should not be"
        for point in observed.points
        if not _is_live(point, observed) or point.text_hash != _text_at(expected, point)
    ]


def wrong_items(expected: Expected, observed: Observed) -> list[str]:
    """Items that are not the accepted ones in input order, or that ended otherwise than planned."""
    found = []
    for job_id, urls in expected.jobs.items():
        items = observed.jobs[job_id].items if job_id in observed.jobs else ()
        if items and [item.url for item in items] != list(urls):
            found.append(f"job {job_id} has other items than accepted, or in another order")
        found += [
            f"{item.url} of job {job_id} ended as {item.state}"
            for item in items
            if item.state not in (_FAILED if item.url in expected.dead else SUCCEEDED)
        ]
    return found


def open_jobs(observed: Observed) -> list[str]:
    return [
        f"job {i} is {job.status}"
        for i, job in observed.jobs.items()
        if job.status not in TERMINAL_JOBS
    ]


def backlog(observed: Observed) -> list[str]:
    return [
        f"{stream} has {entries} entries, {pending} pending"
        for stream, (entries, pending) in observed.backlog.items()
        if entries or pending
    ]


def wrong_dead(expected: Expected, observed: Observed) -> list[str]:
    """Dead letters must be exactly the planned ones, each once."""
    found, planned = Counter(observed.dead), Counter(expected.dead)
    unplanned = [
        f"{url} is a dead letter that was not planned" for url in (found - planned).elements()
    ]
    return unplanned + [f"{url} should be a dead letter" for url in (planned - found).elements()]


def _is_live(point: Point, observed: Observed) -> bool:
    return observed.live.get(point.document_id) == point.version


def _text_at(expected: Expected, point: Point) -> str | None:
    texts = expected.chunks.get(point.url, ())
    return texts[point.chunk_index] if point.chunk_index < len(texts) else None
