"""One request: retries, the right text at fault, every try reported."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.sending.isolation import EmbeddingCall, IsolatingEmbedder, SendingRules
from embedder.sending.packing import TextInput
from shared.service.errors import DependencyError, MillstreamError, RejectedError
from shared.tei.client import (
    Backoff,
    BreakingTextError,
    TeiBackendError,
    TeiBreakdownError,
    TeiOverloadedError,
)
from tests.support.tei_stand_in import vector_of
from tests.support.waiting import wait_until
from tests.unit.embedder.sending.fake_tei import DIMENSION, FakeTei


class Rig:
    """An embedder over a fake TEI that waits in no time."""

    def __init__(self) -> None:
        self.tei = FakeTei()
        self.calls: list[EmbeddingCall] = []
        self.waits: list[float] = []
        ticks = iter(range(1_000_000))
        self.embedder = IsolatingEmbedder(
            self.tei,
            SendingRules(
                dimension=DIMENSION,
                backoff=Backoff(jitter=lambda low, high: high, sleep=self.sleep()),
            ),
            observe=self.calls.append,
            clock=lambda: float(next(ticks)),
        )

    def sleep(self) -> Callable[[float], Awaitable[None]]:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        return sleep

    async def outcomes(self, *texts: str) -> list[str]:
        """Embed and describe each outcome: `ok`, or the class of the error."""
        outcomes = await self.embedder.embed([TextInput(text, 3) for text in texts])
        for text, outcome in zip(texts, outcomes, strict=True):
            if not isinstance(outcome, MillstreamError):
                np.testing.assert_array_equal(outcome, vector_of(text, DIMENSION))
        return [
            type(each).__name__ if isinstance(each, MillstreamError) else "ok" for each in outcomes
        ]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_texts_come_back_as_vectors_in_order(rig: Rig) -> None:
    assert await rig.outcomes("a", "b", "c") == ["ok"] * 3
    assert rig.tei.batches == [["a", "b", "c"]]
    assert rig.calls == [EmbeddingCall(inputs=3, tokens=9, duration_s=1.0)]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "bad", "poison", "crash"]), min_size=1, max_size=32))
async def test_exactly_the_texts_at_fault_fail(kinds: list[str]) -> None:
    rig = Rig()
    broken = "BreakingTextError"
    names = {"good": "ok", "bad": "InputRejectedError", "poison": broken, "crash": broken}
    texts = [f"{kind} {index}" for index, kind in enumerate(kinds)]
    assert await rig.outcomes(*texts) == [names[kind] for kind in kinds]


async def test_one_bad_text_of_32_costs_no_more_than_11_requests(rig: Rig) -> None:
    texts = [f"text {index}" for index in range(32)]
    texts[17] = "a bad one"
    outcomes = await rig.outcomes(*texts)
    assert outcomes.index("InputRejectedError") == 17
    assert len(rig.calls) <= 11


async def test_a_rejection_carries_the_words_of_tei(rig: Rig) -> None:
    (outcome,) = await rig.embedder.embed([TextInput("bad", 3)])
    assert isinstance(outcome, RejectedError)
    assert (outcome.code, outcome.reason) == ("tei_rejected", "refused: bad")


async def test_back_pressure_is_waited_out_with_longer_pauses_and_reported(rig: Rig) -> None:
    rig.tei.overloads = 7
    assert await rig.outcomes("a") == ["ok"]
    assert rig.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert [type(call.error).__name__ for call in rig.calls] == ["TeiOverloadedError"] * 7 + [
        "NoneType"
    ]


async def test_back_pressure_without_end_is_a_fault_of_tei(rig: Rig) -> None:
    rig.tei.overloads = 1000
    with pytest.raises(TeiOverloadedError):
        await rig.outcomes("a", "b")
    assert len(rig.calls) == TeiOverloadedError.tries
    assert sum(rig.waits) < 25


async def test_a_backend_that_fails_on_everything_is_not_asked_about_each_text(rig: Rig) -> None:
    rig.tei.error = TeiBackendError("HTTP 424")
    with pytest.raises(TeiBackendError):
        await rig.outcomes(*"abcdefgh")
    assert len(rig.tei.batches) == TeiBackendError.tries + 1  # and the canary


async def test_a_dependency_fault_is_raised_at_once(rig: Rig) -> None:
    rig.tei.go_down()
    with pytest.raises(DependencyError, match="refused"):
        await rig.outcomes("a", "b")
    assert len(rig.calls) == 1
    assert isinstance(rig.calls[0].error, DependencyError)


async def test_a_text_that_crashes_tei_is_found_over_restarts_and_its_neighbours_come_through(
    rig: Rig,
) -> None:
    rig.tei.stays_down = True
    texts = [f"text {index}" for index in range(32)]
    texts[17] = "a crash"
    # 32, 16, 8, 4, 2, alone; after each the documents wait for TEI and come again.
    for _ in range(6):
        with pytest.raises(DependencyError) as caught:
            await rig.outcomes(*texts)
        assert not caught.value.may_be_at_fault
        rig.tei.restart()
    outcomes = await rig.outcomes(*texts)
    assert [index for index, outcome in enumerate(outcomes) if outcome != "ok"] == [17]
    assert outcomes[17] == BreakingTextError.__name__
    assert rig.tei.crashes == 6


async def test_a_text_at_fault_is_sent_alone_when_it_comes_again(rig: Rig) -> None:
    assert await rig.outcomes("a", "a crash") == ["ok", "BreakingTextError"]
    rig.tei.batches.clear()
    assert await rig.outcomes("b", "a crash", "c") == ["ok", "BreakingTextError", "ok"]
    assert sorted(rig.tei.batches) == [["a crash"], ["b", "c"], ["canary"]]


@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"]])
async def test_a_restart_costs_healthy_texts_nothing(rig: Rig, texts: list[str]) -> None:
    rig.tei.error = TeiBreakdownError("connection reset")
    with pytest.raises(TeiBreakdownError) as caught:
        await rig.outcomes(*texts)
    assert not caught.value.may_be_at_fault
    rig.tei.restart()
    assert await rig.outcomes(*texts) == ["ok"] * len(texts)
    rig.tei.batches.clear()
    assert await rig.outcomes(*texts) == ["ok"] * len(texts)
    assert rig.tei.batches == [texts], "no text is in quarantine any more"


async def test_a_text_in_quarantine_has_an_exclusive_request(rig: Rig) -> None:
    rig.tei.error = TeiBreakdownError("connection reset")
    with pytest.raises(TeiBreakdownError):
        await rig.outcomes("quarantined")
    rig.tei.restart()
    rig.tei.gate.clear()
    others = [asyncio.create_task(rig.outcomes(f"text {n}")) for n in range(3)]
    await wait_until(lambda: len(rig.tei.in_flight) == 3, description="three requests in flight")
    quarantined = asyncio.create_task(rig.outcomes("quarantined"))
    late = asyncio.create_task(rig.outcomes("late"))
    await asyncio.sleep(0.01)  # room for them to be seen beside the others
    assert len(rig.tei.in_flight) == 3
    rig.tei.gate.set()
    assert await asyncio.gather(quarantined, late, *others) == [["ok"]] * 5
    assert rig.tei.peak_requests == 3


async def test_a_text_that_breaks_beside_others_is_at_fault_only_once_it_broke_alone(
    rig: Rig,
) -> None:
    rig.tei.gate.clear()
    both = [
        asyncio.create_task(rig.outcomes("a healthy one")),
        asyncio.create_task(rig.outcomes("a crash")),
    ]
    await wait_until(lambda: len(rig.tei.in_flight) == 2, description="both in flight")
    rig.tei.error = TeiBreakdownError("connection reset")
    rig.tei.gate.set()
    results = await asyncio.gather(*both, return_exceptions=True)
    assert [type(result) for result in results] == [TeiBreakdownError] * 2
    rig.tei.restart()
    healthy, crash = await asyncio.gather(rig.outcomes("a healthy one"), rig.outcomes("a crash"))
    assert healthy + crash == ["ok", "BreakingTextError"]
