"""How busy the stages were, from when documents entered and left each one. No I/O."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from shared.pipeline.stages import StageName

# Documents of one message start in one statement, whose clock advances from row to row. Two
# statements may write their ends.
_SAME_START_S = 0.01
_SAME_END_S = 0.1


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """One document in one stage, as in `job_items.stages`."""

    worker: str
    started_at: dt.datetime
    finished_at: dt.datetime | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One batch message in one stage; times are seconds since the epoch."""

    worker: str
    start: float
    end: float
    documents: int

    @property
    def seconds(self) -> float:
        return self.end - self.start


class StageLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage did while anything was in flight."""

    stage: StageName
    workers: int  # processes at the same time
    messages: int
    mean_s: float  # of a batch message
    documents_per_s: float
    utilisation: float  # share of its slots in use, 0 to 1


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline did in a period; `stages` has those that finished something, in order."""

    start: dt.datetime
    end: dt.datetime
    active_s: float  # time in which anything was in flight
    stages: list[StageLoad]


def measure(documents: Sequence[Mapping[StageName, Stay]], concurrency: int) -> Load | None:
    """The load of these documents; None if no stage has finished any.

    `concurrency` is the number of batch messages in flight in one process.
    """
    found = {stage: messages(d[stage] for d in documents if stage in d) for stage in StageName}
    everything = [message for stage in StageName for message in found[stage]]
    active = busy_seconds(everything)
    if not active:
        return None
    return Load(
        start=dt.datetime.fromtimestamp(min(message.start for message in everything), dt.UTC),
        end=dt.datetime.fromtimestamp(max(message.end for message in everything), dt.UTC),
        active_s=active,
        stages=[
            _load(stage, found[stage], concurrency, active) for stage in StageName if found[stage]
        ],
    )


def messages(stays: Iterable[Stay]) -> list[Message]:
    """The batch messages that carried the documents."""
    ended = [
        (stay.worker, stay.started_at.timestamp(), stay.finished_at.timestamp())
        for stay in stays
        if stay.finished_at
    ]
    return [
        message
        for _, times in groupby(sorted(ended), key=lambda each: each[0])
        for message in _of_worker(times)
    ]


def busy_seconds(batches: Iterable[Message]) -> float:
    """The time in which at least one message was in flight."""
    total, until = 0.0, float("-inf")
    for message in sorted(batches, key=lambda each: each.start):
        total += max(0.0, message.end - max(message.start, until))
        until = max(until, message.end)
    return total


def _of_worker(times: Iterable[tuple[str, float, float]]) -> list[Message]:
    """The messages of one worker, from its documents in the order of their start."""
    made: list[Message] = []
    recent = 0  # the first message that the next document may belong to
    for worker, start, end in times:
        while recent < len(made) and start - made[recent].start > _SAME_START_S:
            recent += 1
        index = next(
            (i for i in range(recent, len(made)) if abs(end - made[i].end) <= _SAME_END_S), None
        )
        if index is None:
            made.append(Message(worker=worker, start=start, end=end, documents=1))
        else:
            known = made[index]
            made[index] = msgspec.structs.replace(
                known, end=max(end, known.end), documents=known.documents + 1
            )
    return made


def _workers_at_once(batches: Sequence[Message]) -> int:
    """The highest number of workers at the same time; a restarted one has a new name."""
    spans: dict[str, tuple[float, float]] = {}
    for message in batches:
        start, end = spans.get(message.worker, (message.start, message.end))
        spans[message.worker] = (min(start, message.start), max(end, message.end))
    return max(
        sum(start <= moment <= end for start, end in spans.values()) for moment, _ in spans.values()
    )


def _load(
    stage: StageName, batches: Sequence[Message], concurrency: int, active: float
) -> StageLoad:
    workers = _workers_at_once(batches)
    seconds = sum(message.seconds for message in batches)
    return StageLoad(
        stage=stage,
        workers=workers,
        messages=len(batches),
        mean_s=seconds / len(batches),
        documents_per_s=sum(message.documents for message in batches) / active,
        utilisation=min(1.0, seconds / (active * concurrency * workers)),
    )
