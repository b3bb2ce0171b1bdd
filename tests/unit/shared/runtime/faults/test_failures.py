"""Attribution: failures are charged to the documents or to their dependency."""

import random

from shared.jobs.targets import Target
from shared.pipeline.outcomes import Dead, Done, ItemState, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.correlated_failure import Rests
from shared.runtime.faults.failures import Failures, Patience
from shared.runtime.stage import Document
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics
from tests.unit.shared.runtime.fakes import ref

INDEXED = Done(ItemState.INDEXED)
BROKEN = Retry("424", 1.0, attempts=0, dependency="tei", may_be_at_fault=True)
REFUSED = Retry("503", 1.0, attempts=0, dependency="tei")


class Rig:
    """The failures of a stage with one dependency."""

    def __init__(self, *, is_healthy: bool) -> None:
        self.is_healthy = is_healthy
        self.breakers = Breakers({"tei": self._canary}, Metrics())
        self.failures = Failures(StageName.EMBEDDER, Patience(3), self.breakers, random.Random(1))

    async def _canary(self) -> None:
        if not self.is_healthy:
            raise DependencyError("tei", "refused")

    async def attribute(self, *outcomes: Outcome, attempts: int = 0) -> list[Outcome]:
        documents = [
            Document(ref=ref(position), attempts=attempts) for position in range(len(outcomes))
        ]
        return await self.failures.attribute(documents, outcomes)


async def test_while_a_dependency_is_unavailable_its_failures_cost_nothing() -> None:
    rig = Rig(is_healthy=False)
    assert await rig.attribute(BROKEN, INDEXED, REFUSED) == [BROKEN, INDEXED, REFUSED]
    assert rig.breakers.is_any_open


async def test_a_document_that_makes_a_healthy_dependency_fail_pays_an_attempt() -> None:
    rig = Rig(is_healthy=True)
    broken, refused = await rig.attribute(BROKEN, REFUSED)
    assert isinstance(broken, Retry)
    assert (broken.attempts, broken.dependency) == (1, "tei")
    assert refused == REFUSED, "a request that was refused says nothing about the document"
    assert not rig.breakers.is_any_open


async def test_the_last_attempt_makes_it_a_dead_letter() -> None:
    assert await Rig(is_healthy=True).attribute(BROKEN, attempts=2) == [
        Dead("tei_error", "424", attempts=1, dependency="tei")
    ]


REFUSED_TEXT = Dead("tei_rejected", "why", attempts=1, dependency="tei")


class Alike:
    """A stage with a healthy dependency, whose targets rest twice."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breakers = Breakers({"tei": self._canary}, Metrics())
        self.failures = Failures(
            StageName.EMBEDDER, Patience(3, Rests(first=30.0, count=2)), self.breakers,
            random.Random(1), clock=lambda: self.now,
        )  # fmt: skip

    async def _canary(self) -> None:
        """It is available."""

    async def attribute(self, target: str, *outcomes: Outcome) -> list[Outcome]:
        documents = [Document(ref=ref(position)) for position in range(len(outcomes))]
        return await self.failures.attribute(documents, outcomes, target_of(target))


def target_of(name: str) -> Target:
    return Target(target=name, collection=name, generation="g")


async def test_if_nearly_all_documents_of_a_target_fail_alike_none_pays_and_it_rests() -> None:
    rig = Alike()
    ours = Dead("empty_markdown", "no text", attempts=1)
    *alike, own, done = await rig.attribute("a", *[REFUSED_TEXT] * 20, ours, INDEXED)
    assert {(type(o), getattr(o, "attempts", None)) for o in alike} == {(Retry, 0)}
    assert (own, done) == (ours, INDEXED)
    rest = rig.failures.rest_of(target_of("a"))
    assert rest is not None
    assert (rest.attempts, 30 <= rest.delay <= 35) == (0, True)
    assert [wait.reason for wait in rig.failures.waits] == [
        "nearly all documents of a: tei_rejected"
    ]


async def test_another_target_goes_on_and_is_judged_by_itself() -> None:
    rig = Alike()
    await rig.attribute("a", *[REFUSED_TEXT] * 20)
    assert rig.failures.rest_of(target_of("b")) is None
    assert await rig.attribute("b", REFUSED_TEXT, INDEXED) == [REFUSED_TEXT, INDEXED]
    assert not rig.breakers.is_any_open


async def test_after_the_last_rest_all_documents_come_to_the_same_end() -> None:
    rig = Alike()
    for rests_until in (30.0, 90.0):
        assert await rig.attribute("a", *[REFUSED_TEXT] * 20) != [REFUSED_TEXT] * 20
        rig.now = rests_until
        assert rig.failures.rest_of(target_of("a")) is None
        assert rig.failures.waits == []
    assert await rig.attribute("a", *[REFUSED_TEXT] * 20) == [REFUSED_TEXT] * 20
    assert rig.failures.rest_of(target_of("a")) is None


async def test_success_in_between_begins_the_rests_anew() -> None:
    rig = Alike()
    for rests_until in (30.0, 90.0):
        await rig.attribute("a", *[REFUSED_TEXT] * 20)
        rig.now = rests_until
    await rig.attribute("a", *[INDEXED] * 20)
    await rig.attribute("a", *[REFUSED_TEXT] * 20)
    assert rig.failures.rest_of(target_of("a")) is not None


class OwnServers:
    """A stage where each target has servers of its own; those in `down` are unavailable."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        self.now = 0.0
        self.breakers = Breakers({"tei": self._canary}, Metrics())
        self.failures = Failures(
            StageName.EMBEDDER,
            Patience(3),
            self.breakers,
            random.Random(1),
            self._is_unavailable,
            lambda: self.now,
        )

    async def _is_unavailable(self, service: str, target: Target) -> bool | None:
        return target.target in self.down if service == "tei" else None

    async def _canary(self) -> None:
        if self.down == {"a", "b"}:
            raise DependencyError("tei", "refused")

    async def outcome(self, target: str, outcome: Outcome = REFUSED) -> Outcome:
        of = Target(target=target, collection=target, generation="g")
        return (await self.failures.attribute([Document(ref=ref(0))], [outcome], of))[0]


async def test_servers_of_one_target_cost_its_documents_nothing_and_leave_the_stage_open() -> None:
    rig = OwnServers("a")
    for target, attempts in (("a", 0), ("b", 1)):
        outcome = await rig.outcome(target, BROKEN)
        assert isinstance(outcome, Retry)
        assert outcome.attempts == attempts
    assert not rig.breakers.is_any_open


async def test_if_the_servers_of_all_targets_are_unavailable_the_stage_stops() -> None:
    rig = OwnServers("a")
    await rig.outcome("a")
    rig.down.add("b")
    rig.now = 2.0
    await rig.outcome("b")
    assert rig.breakers.is_any_open


async def test_the_longer_an_outage_the_later_the_next_try_up_to_72_seconds() -> None:
    rig = OwnServers("a")
    delays = []
    for now in (0.0, 30.0, 3000.0):
        rig.now = now
        outcome = await rig.outcome("a")
        assert isinstance(outcome, Retry)
        delays.append(outcome.delay)
    assert [low <= d <= 6 * low for low, d in zip((1, 6, 12), delays, strict=True)] == [True] * 3
    rig.down.clear()
    await rig.outcome("a")
    rig.down.add("a")
    outcome = await rig.outcome("a")
    assert isinstance(outcome, Retry)
    assert outcome.delay <= 6
