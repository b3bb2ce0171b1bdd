"""What a worker waits for: open breakers, stalls, checks that fail before it is ready."""

import asyncio
import datetime as dt

import pytest

from shared.pipeline.stages import StageName
from shared.pipeline.waits import WorkerWaits, decode_waits
from shared.runtime.faults.breaker import Breakers
from shared.runtime.slots import Slots
from shared.runtime.waits import StageWaits, StartWaits, WaitReporter, describe
from shared.service.health import Check, HealthReport, Wait, WaitState
from shared.service.metrics import Metrics
from tests.support.waiting import wait_until

NOON = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)


class Clock:
    """A clock that a test moves; `now` and `monotonic` agree."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> dt.datetime:
        return NOON + dt.timedelta(seconds=self.seconds)


class Dependency:
    """Something whose canary can be told to fail."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well
        self.asked = 0

    async def canary(self) -> None:
        self.asked += 1
        if not self.is_well:
            raise ConnectionError("refused")


class World:
    """A stage with one dependency, TEI, and slots whose work ends when a test says so."""

    def __init__(self, tei: Dependency) -> None:
        self.clock = Clock()
        self.checked = Dependency()
        canaries, checks = {"tei": tei.canary}, {"tei": self.checked.canary}
        self.breakers = Breakers(canaries, Metrics())
        self.slots = Slots(4, self.clock.monotonic)
        self.rests: list[Wait] = []
        self.waits = StageWaits(
            lambda: [*self.breakers.waits, *self.rests],
            checks,
            canaries,
            self.slots,
            self.clock.now,
            self.clock.monotonic,
        )


async def test_without_trouble_a_worker_waits_for_nothing_and_asks_no_canary() -> None:
    tei = Dependency(is_well=False)
    assert await World(tei).waits.look() == []
    assert tei.asked == 0


async def test_an_open_breaker_is_a_wait_since_it_opened() -> None:
    world = World(Dependency(is_well=False))
    assert await world.breakers.unavailable({"tei"}) == {"tei"}
    (wait,) = await world.waits.look()
    assert (wait.dependency, wait.state, wait.reason) == ("tei", WaitState.UNREACHABLE, "refused")
    assert wait == world.breakers.waits[0]


async def test_a_target_that_rests_is_a_wait_as_well() -> None:
    world = World(Dependency())
    rest = Wait(
        dependency="tei", state=WaitState.FAILING, since=dt.datetime.now(dt.UTC), reason="alike"
    )
    world.rests.append(rest)
    assert await world.waits.look() == [rest]


async def test_batches_of_which_none_ends_are_a_wait_for_the_dependency_that_does_not_answer() -> (
    None
):
    tei = Dependency()
    world = World(tei)
    held = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for name in ("one", "two"):
            world.slots.start(group, _until(held), name)
        world.clock.seconds = 20.0
        assert await world.waits.look() == []  # slow, but TEI answers
        tei.is_well = False
        world.clock.seconds = 40.0
        (wait,) = await world.waits.look()
        assert (wait.dependency, wait.state, wait.since) == ("tei", WaitState.NOT_ANSWERING, NOON)
        tei.is_well = True
        assert await world.waits.look() == [wait]  # named until a batch ends
        held.set()
    assert await world.waits.look() == []


async def test_a_stall_is_probed_by_cheap_checks_and_now_and_then_by_a_canary() -> None:
    tei = Dependency()
    world = World(tei)
    held = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        world.slots.start(group, _until(held), "one")
        for second in range(60):
            world.clock.seconds = float(second)
            await world.waits.look()
        assert (world.checked.asked, tei.asked) == (60 - 5 - 3, 3)
        world.clock.seconds = 60.0
        await world.waits.look()
        world.clock.seconds = 61.0
        world.checked.is_well = False
        (wait,) = await world.waits.look()
        assert wait.dependency == "tei"
        held.set()


async def test_a_stall_counts_from_the_last_batch_that_ended() -> None:
    world = World(Dependency(is_well=False))
    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        world.slots.start(group, _until(first), "first")
        world.slots.start(group, _until(second), "second")
        world.clock.seconds = 20.0
        first.set()
        await wait_until(
            lambda: world.slots.quiet_since == 20.0, description="the first one to end"
        )
        assert await world.waits.look() == []
        world.clock.seconds = 40.0
        (wait,) = await world.waits.look()
        assert wait.since == NOON + dt.timedelta(seconds=20)
        second.set()


async def test_a_dependency_with_an_open_breaker_is_named_once_during_a_stall() -> None:
    world = World(Dependency(is_well=False))
    held = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        world.slots.start(group, _until(held), "one")
        world.clock.seconds = 20.0
        await world.waits.look()
        await world.breakers.unavailable({"tei"})
        (wait,) = await world.waits.look()
        assert wait.state is WaitState.UNREACHABLE
        held.set()


async def test_before_the_stage_is_ready_a_failing_check_is_a_wait_since_it_first_failed() -> None:
    clock, tei = Clock(), Dependency(is_well=False)
    waits = StartWaits({"redis": Dependency().canary, "tei": tei.canary}, clock.now)
    (first,) = await waits.look()
    clock.seconds = 5.0
    assert await waits.look() == [first]
    assert first.since == NOON
    tei.is_well = True
    assert await waits.look() == []


async def test_checks_may_be_added_while_they_run() -> None:
    checks: dict[str, Check] = {}

    async def grow() -> None:
        checks["qdrant"] = Dependency().canary
        raise ConnectionError("refused")

    checks["tei"] = grow
    assert [wait.dependency for wait in await StartWaits(checks).look()] == ["tei"]


class ScriptRecorder:
    """A Redis that keeps what the script is called with."""

    def __init__(self) -> None:
        self.calls: list[list[object]] = []

    def register_script(self, _source: str) -> "ScriptRecorder":
        return self

    async def __call__(self, *, keys: list[str], args: list[object]) -> None:
        self.calls.append(args)


async def test_a_report_is_published_while_the_worker_waits_and_removed_once_it_does_not() -> None:
    redis, found = ScriptRecorder(), [_wait()]

    async def look() -> list[Wait]:
        return found

    reporter = WaitReporter(redis, StageName.EMBEDDER, "embedder:me", look)  # type: ignore[arg-type]
    await reporter.report()
    await reporter.report()
    found = []
    await reporter.report()
    await reporter.report()
    reports = [args[1] for args in redis.calls]
    assert reports[0] == reports[1]
    assert isinstance(reports[0], bytes)
    assert decode_waits(b"123 " + reports[0]) == WorkerWaits(
        stage=StageName.EMBEDDER, consumer="embedder:me", waits=[_wait()]
    )
    assert reports[2:] == [b""]


async def test_the_health_report_marks_a_dependency_that_is_waited_for() -> None:
    found: list[Wait] = []

    async def look() -> list[Wait]:
        return found

    reporter = WaitReporter(ScriptRecorder(), StageName.EMBEDDER, "me", look)  # type: ignore[arg-type]
    healthy = HealthReport(
        status="healthy", services={"tei": "healthy", "redis": "healthy"}, timestamp=NOON
    )
    await reporter.report()
    assert reporter.complete(healthy) == healthy
    found = [_wait()]
    await reporter.report()
    degraded = reporter.complete(healthy)
    assert degraded.status == "degraded"
    assert degraded.services == {
        "redis": "healthy", "tei": "unhealthy: unreachable since 12:00:00 UTC: refused",
    }  # fmt: skip


@pytest.mark.parametrize("value", [b"", b"12 {}", b'12 {"stage":"none"}', b"nonsense"])
def test_a_report_of_a_form_that_is_unknown_is_skipped(value: bytes) -> None:
    assert decode_waits(value) is None


def test_a_wait_is_described_in_words() -> None:
    assert describe(_wait()) == "unreachable since 12:00:00 UTC: refused"


def _wait() -> Wait:
    return Wait(dependency="tei", state=WaitState.UNREACHABLE, since=NOON, reason="refused")


async def _until(event: asyncio.Event) -> None:
    await event.wait()
