"""Decisions of the stage loop: what happens to an entry, in which order, and what does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.pipeline.entries import Entry
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import EncodedMessage, Header, MalformedMessageError
from shared.pipeline.outcomes import Dead, Done, ItemState, Outcome
from shared.runtime.faults.breaker import Breakers, Pauses
from shared.runtime.slots import Slots
from shared.runtime.stage import Document
from shared.runtime.streams.handover import TooLargeError
from shared.runtime.worker import Worker
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings, Seconds
from tests.support.waiting import wait_until
from tests.unit.shared.runtime.fakes import STAGE, entry, ref

INDEXED = Done(ItemState.INDEXED, 1)
MESSAGE = EncodedMessage(header=b"h", body=b"b")


class Rig:
    """A worker between stand-ins that write down, in one list, what it asks of them."""

    def __init__(
        self, *batches: Sequence[Entry], slots: int = 4, longest: float = 10.0, **settings: Any
    ) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.batches = list(batches)
        # Of the runner, one after the other; outcomes for all documents if none is left.
        self.results: list[Any] = []
        self.is_still_ours = True
        self.is_too_large = False
        self.leave_error: Exception | None = None
        self._held: list[Entry] = []
        self.is_available = True
        self.metrics = Metrics()
        self.metrics.begin_stage(STAGE)
        self.breakers = Breakers(
            {"tei": self._canary}, self.metrics, Pauses(first=0.001, longest=0.002)
        )
        fake: Any = self
        janitor: Any = _Janitor()
        self.worker = Worker(
            stage=STAGE,
            runner=fake,
            intake=fake,
            leases=fake,
            recorder=fake,
            handover=fake,
            breakers=self.breakers,
            janitor=janitor,
            slots=Slots(slots),
            settings=RuntimeSettings(**settings),
            metrics=self.metrics,
            longest_quarantine=longest,
        )
        self.may_reclaim = True
        self.stop = asyncio.Event()

    async def _canary(self) -> None:
        if not self.is_available:
            raise DependencyError("tei", "refused")

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.events]

    def count_of(self, name: str) -> int:
        return self.names.count(name)

    # intake
    async def take(self, free: Mapping[Lane, int], *, may_reclaim: bool) -> list[Entry]:
        self.events.append(("take",))
        self.may_reclaim = may_reclaim
        if self.batches:
            return list(self.batches.pop(0))
        await asyncio.sleep(0.001)  # as a read that finds nothing blocks
        return []

    async def leave(self) -> None:
        self.events.append(("leave",))
        if self.leave_error is not None:
            raise self.leave_error

    # leases
    @property
    def held(self) -> list[Entry]:
        return list(self._held)

    async def keep(self) -> None:
        await asyncio.Event().wait()

    @contextlib.contextmanager
    def hold(self, item: Entry) -> Iterator[None]:
        self._held.append(item)
        try:
            yield
        finally:
            self._held.remove(item)

    async def release(self, item: Entry) -> None:
        self.events.append(("release", item.id))

    async def uncount(self, item: Entry) -> None:
        self.events.append(("uncount", item.id))

    async def count(self, item: Entry) -> bool:
        self.events.append(("count", item.id))
        return self.is_still_ours

    # recorder
    async def begin(self, item: Entry, header: Header) -> list[Document]:
        self.events.append(("begin", item.id))
        if item.body == b"bad":
            raise MalformedMessageError("the body cannot be read")
        return [Document(ref=ref(position)) for position in range(len(header.documents))]

    async def record(
        self,
        _documents: Sequence[Document],
        outcomes: Sequence[Outcome],
        _header: Header,
        deliveries: int,
    ) -> list[EncodedMessage]:
        self.events.append(("record", list(outcomes), deliveries))
        return [] if any(isinstance(outcome, Dead) for outcome in outcomes) else [MESSAGE]

    async def dead_letter(self, item: Entry, reason: str) -> None:
        self.events.append(("dead_letter", item.id, reason))

    # hand-over
    async def pass_on(self, item: Entry, messages: Sequence[EncodedMessage] = ()) -> bool:
        self.events.append(("pass_on", item.id, *messages))
        if messages and self.is_too_large:
            raise TooLargeError(5_000_000, "invalid bulk length")
        return self.is_still_ours

    async def split(self, item: Entry, header: Header) -> bool:
        self.events.append(("split", item.id, len(header.documents)))
        return True

    # runner
    async def run(
        self, entry_id: str, _header: Header, documents: Sequence[Document]
    ) -> list[Outcome]:
        self.events.append(("run", entry_id))
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        if isinstance(result, asyncio.Event):
            await result.wait()
        return [INDEXED for _ in documents]


class _Janitor:
    async def run(self) -> None:
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """Run the worker until the block ends, then drain it."""
    task = asyncio.create_task(rig.worker.run(rig.stop))
    try:
        yield rig
    finally:
        rig.stop.set()
        await asyncio.wait_for(task, 10)


async def test_an_entry_is_begun_run_recorded_and_handed_over() -> None:
    rig = Rig()
    await rig.worker.work(entry(documents=2))
    assert rig.events == [
        ("begin", "1-0"),
        ("run", "1-0"),
        ("record", [INDEXED, INDEXED], 1),
        ("pass_on", "1-0", MESSAGE),
    ]
    assert rig.held == []


async def test_a_batch_that_was_delivered_again_is_split_and_not_run() -> None:
    rig = Rig()
    await rig.worker.work(entry(documents=3, deliveries=3))
    assert rig.events == [("split", "1-0", 3)]


async def test_after_one_crash_entries_run_side_by_side_in_half_of_the_slots() -> None:
    ends = [asyncio.Event(), asyncio.Event()]
    rig = Rig(*([entry(documents=3, deliveries=2, entry_id=name)] for name in ("1-0", "2-0")))
    rig.results = list(ends)
    async with running(rig):
        await wait_until(lambda: not rig.may_reclaim, description="a read of new entries only")
        assert [event for event in rig.events if event[0] in {"run", "split", "uncount"}] == [
            ("run", "1-0"), ("run", "2-0"),
        ]  # fmt: skip
        ends[0].set()
        await wait_until(lambda: rig.may_reclaim, description="room for another one")
        ends[1].set()


async def test_a_document_whose_worker_crashed_too_often_is_dead_without_being_run() -> None:
    rig = Rig(max_deliveries=3)
    await rig.worker.work(entry(deliveries=3))
    [outcome] = next(event[1] for event in rig.events if event[0] == "record")
    assert isinstance(outcome, Dead)
    assert (outcome.code, "crashed 2 times" in outcome.error) == ("too_many_deliveries", True)
    assert "run" not in rig.names


async def test_an_entry_of_a_newer_release_is_given_back_untouched() -> None:
    rig = Rig()
    await rig.worker.work(entry(header=b'{"schema": 99, "documents": []}'))
    assert rig.events == [("release", "1-0")]


@pytest.mark.parametrize("fields", [{"header": b"\xff"}, {"header": None}, {"body": b"bad"}])
async def test_an_entry_that_cannot_be_read_is_a_dead_letter_before_it_goes(
    fields: dict[str, Any],
) -> None:
    rig = Rig()
    await rig.worker.work(entry(**fields))
    assert rig.names[-2:] == ["dead_letter", "pass_on"]
    assert rig.events[-1] == ("pass_on", "1-0")
    assert "record" not in rig.names


@pytest.mark.parametrize(("is_still_ours", "reported"), [(True, 1), (False, 0)])
async def test_only_the_owner_of_an_entry_reports_it(is_still_ours: bool, reported: int) -> None:
    rig = Rig()
    rig.is_still_ours = is_still_ours
    await rig.worker.work(entry())
    samples = next(iter(rig.metrics.batch_seconds.collect())).samples
    assert sum(s.value for s in samples if s.name.endswith("_count")) == reported


async def test_of_several_quarantined_entries_one_runs_and_the_others_are_given_back() -> None:
    batch = [entry(entry_id=name, deliveries=3) for name in ("1-0", "2-0", "3-0")]
    async with running(Rig(batch)) as rig:
        await wait_until(lambda: "pass_on" in rig.names, description="the first to be handed over")
    assert [event for event in rig.events if event[0] in {"release", "run"}] == [
        ("release", "2-0"), ("release", "3-0"), ("run", "1-0"),
    ]  # fmt: skip


async def test_a_quarantined_entry_waits_uncounted_until_nothing_else_is_in_flight() -> None:
    end = asyncio.Event()
    rig = Rig([entry(entry_id="1-0")], [entry(entry_id="2-0", deliveries=3)])
    rig.results = [end]
    async with running(rig):
        await wait_until(
            lambda: ("uncount", "2-0") in rig.events, description="the second entry to wait"
        )
        assert ("run", "2-0") not in rig.events
        end.set()
        await wait_until(
            lambda: ("pass_on", "2-0", MESSAGE) in rig.events, description="the second entry"
        )
    order = [
        event[:2] for event in rig.events if event[0] in {"pass_on", "uncount", "count", "run"}
    ]
    assert order == [
        ("run", "1-0"),
        ("uncount", "2-0"),
        ("pass_on", "1-0"),
        ("count", "2-0"),
        ("run", "2-0"),
        ("pass_on", "2-0"),
    ]


async def test_a_quarantined_entry_that_was_lost_while_it_waited_is_left_alone() -> None:
    rig = Rig([entry(deliveries=3)])
    rig.is_still_ours = False
    async with running(rig):
        await wait_until(lambda: rig.count_of("take") > 1, description="the next read")
    assert "run" not in rig.names


async def test_nothing_is_read_while_a_quarantined_entry_runs() -> None:
    end = asyncio.Event()
    rig = Rig([entry(deliveries=3)], [entry(entry_id="2-0")])
    rig.results = [end]
    async with running(rig):
        await wait_until(lambda: ("run", "1-0") in rig.events, description="the quarantined entry")
        assert rig.count_of("take") == 1
        end.set()
        await wait_until(lambda: ("run", "2-0") in rig.events, description="the next entry")


async def test_a_quarantined_entry_that_does_not_end_keeps_others_waiting_only_for_a_time() -> None:
    end = asyncio.Event()
    rig = Rig([entry(deliveries=3)], [entry(entry_id="2-0")], longest=0.01)
    rig.results = [end]
    async with running(rig):
        await wait_until(
            lambda: ("pass_on", "2-0", MESSAGE) in rig.events, description="the next entry's end"
        )
        assert ("pass_on", "1-0", MESSAGE) not in rig.events
        assert not rig.may_reclaim, "nothing that may crash the worker starts beside it"
        end.set()


async def test_while_a_breaker_is_open_nothing_is_read() -> None:
    rig = Rig()
    rig.is_available = False
    await rig.breakers.unavailable({"tei"})
    async with running(rig):
        await wait_until(lambda: rig.worker.breakers.is_any_open, description="an open breaker")
        assert "take" not in rig.names
        rig.is_available = True
        await wait_until(lambda: "take" in rig.names, description="the first read")


async def test_a_bug_in_the_loop_leaves_the_entry_pending_and_the_worker_alive() -> None:
    rig = Rig([entry(entry_id="1-0")], [entry(entry_id="2-0")])
    rig.results = [ValueError("a bug")]
    async with running(rig):
        await wait_until(
            lambda: ("pass_on", "2-0", MESSAGE) in rig.events, description="the second entry"
        )
    assert [event for event in rig.events if event[0] in {"pass_on", "release", "dead_letter"}] == [
        ("pass_on", "2-0", MESSAGE)
    ]


async def test_no_more_is_read_than_there_are_slots_for() -> None:
    ends = [asyncio.Event(), asyncio.Event()]
    # With the reserved slots: 1.
    rig = Rig([entry(entry_id="1-0")], [entry(entry_id="2-0")], slots=-1)
    rig.results = list(ends)
    async with running(rig):
        await wait_until(lambda: ("run", "1-0") in rig.events, description="the first entry")
        assert rig.count_of("take") == 1
        for end in ends:
            end.set()
        await wait_until(lambda: ("run", "2-0") in rig.events, description="the second entry")


async def test_a_drain_waits_for_what_is_in_flight_and_deletes_the_consumer() -> None:
    end = asyncio.Event()
    rig = Rig([entry()])
    rig.results = [end]
    task = asyncio.create_task(rig.worker.run(rig.stop))
    await wait_until(lambda: "run" in rig.names, description="the entry in flight")
    rig.stop.set()
    end.set()
    await task
    assert [name for name in rig.names if name != "take"] == [
        "begin",
        "run",
        "record",
        "pass_on",
        "leave",
    ]


async def test_a_drain_that_takes_too_long_gives_back_what_is_in_flight() -> None:
    rig = Rig([entry()], drain_timeout=Seconds(0.01))
    rig.results = [asyncio.Event()]
    async with running(rig):
        await wait_until(lambda: "run" in rig.names, description="the entry in flight")
    assert rig.events[-2:] == [("release", "1-0"), ("leave",)]
    assert "pass_on" not in rig.names


async def test_without_redis_a_drain_still_ends() -> None:
    rig = Rig()
    rig.leave_error = RedisConnectionError("refused")
    async with running(rig):
        await wait_until(lambda: "take" in rig.names, description="a read")
    assert rig.events[-1] == ("leave",)


async def test_a_batch_that_is_too_large_for_redis_is_split() -> None:
    rig = Rig()
    rig.is_too_large = True
    await rig.worker.work(entry(documents=2))
    assert rig.events[-2:] == [("pass_on", "1-0", MESSAGE), ("split", "1-0", 2)]


async def test_a_document_that_is_too_large_for_redis_is_a_dead_letter() -> None:
    rig = Rig()
    rig.is_too_large = True
    await rig.worker.work(entry(documents=1))
    reason = "5,000,000 bytes for the next stage cannot be sent: invalid bulk length"
    assert rig.events[-2:] == [
        ("record", [Dead("too_large", reason, attempts=1)], 1),
        ("pass_on", "1-0"),
    ]
