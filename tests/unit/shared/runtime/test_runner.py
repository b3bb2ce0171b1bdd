"""Running a stage on a batch: every document gets one outcome, whatever fails."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from shared.jobs.targets import Target
from shared.pipeline.messages import Action, Chunk, ChunkedDocument, Page, body_parts, encode_body
from shared.pipeline.outcomes import Dead, Done, Emit, ItemState, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.failures import Failures, Patience
from shared.runtime.runner import StageRunner
from shared.runtime.stage import Batch, Document, Stage
from shared.service.errors import DependencyError, RejectedError
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings, Seconds
from tests.support.virtual_time import in_virtual_time
from tests.unit.shared.runtime.fakes import header_of, ref

TARGET = Target(target="docs_1", collection="docs", generation="g")
INDEXED = Done(ItemState.INDEXED, 1)
CHUNKED = ChunkedDocument(
    page=Page(), content_hash=b"c", fingerprint=b"f",
    chunks=(Chunk(text="t", prefix="", headings=(), start=0, end=1, tokens=3),),
)  # fmt: skip


class Targets:
    """The one target, or an error."""

    error: Exception | None = None

    async def get(self, target: str) -> Target:
        if self.error is not None:
            raise self.error
        assert target == TARGET.target
        return TARGET


class ScriptedStage(Stage[str, str]):
    """What each document returns or raises, by position; texts are finished together."""

    name = StageName.CHUNKER

    def __init__(self, *results: Any) -> None:
        self.results = results
        self.batches: list[Batch] = []
        self.finished: list[str] = []
        self.seen: list[Document] = []

    async def prepare(self, batch: Batch) -> str:
        self.batches.append(batch)
        return "prepared"

    async def handle_document(self, document: Document, prepared: str) -> Outcome | str:
        assert prepared == "prepared"
        self.seen.append(document)
        result = self.results[document.ref.position]
        if isinstance(result, Exception):
            raise result
        if asyncio.iscoroutinefunction(result):
            return await result(document)  # type: ignore[no-any-return]
        return result  # type: ignore[no-any-return]

    async def finish(self, prepared: str, unfinished: Sequence[str]) -> Sequence[Outcome]:
        self.finished += unfinished
        return [Dead("finished", text) for text in unfinished]


class Embeds(ScriptedStage):
    """A stage whose entries have bodies."""

    name = StageName.EMBEDDER


def runner_of(stage: Stage[Any, Any], targets: Targets | None = None, **times: Any) -> StageRunner:
    breakers = Breakers({}, Metrics())
    failures = Failures(stage.name, Patience(5), breakers, random.Random(1))
    settings = RuntimeSettings(**times)
    return StageRunner(stage, targets or Targets(), failures, settings.document_timeout)


async def run(stage: ScriptedStage, **times: Any) -> list[Outcome]:
    count = len(stage.results)
    documents = [Document(ref=ref(position)) for position in range(count)]
    return await runner_of(stage, **times).run("1-0", header_of(count), documents)


async def test_the_batch_has_its_target_and_documents_and_outcomes_come_in_their_order() -> None:
    stage = ScriptedStage(INDEXED, Emit("body", 1))
    assert await run(stage) == [INDEXED, Emit("body", 1)]
    [batch] = stage.batches
    assert (batch.entry_id, batch.target) == ("1-0", TARGET)
    assert [document.ref.position for document in batch.documents] == [0, 1]
    assert stage.finished == []


async def test_results_that_are_no_outcomes_are_finished_together_and_in_place() -> None:
    stage = ScriptedStage("a", INDEXED, RejectedError("bad", "why"), "b")
    assert await run(stage) == [
        Dead("finished", "a"), INDEXED, Dead("bad", "why", attempts=1), Dead("finished", "b"),
    ]  # fmt: skip
    assert stage.finished == ["a", "b"]


async def test_one_document_that_fails_stops_no_other() -> None:
    first, second, third = await run(
        ScriptedStage(ValueError("a bug"), INDEXED, DependencyError("tei", "refused"))
    )
    assert isinstance(first, Retry)
    assert first.attempts == 1
    assert second == INDEXED
    assert isinstance(third, Retry)
    assert (third.attempts, third.dependency) == (0, "tei")


async def test_a_batch_without_current_documents_asks_the_stage_nothing() -> None:
    stage = ScriptedStage()
    assert await run(stage) == []
    assert stage.batches == []


async def test_an_error_while_a_batch_is_prepared_is_that_of_every_document() -> None:
    class Broken(ScriptedStage):
        async def prepare(self, batch: Batch) -> str:
            raise DependencyError("postgres", "refused")

    outcomes = await run(Broken(INDEXED, INDEXED))
    assert [(type(o), getattr(o, "dependency", None)) for o in outcomes] == [
        (Retry, "postgres")
    ] * 2


async def test_a_target_that_cannot_be_looked_up_counts_as_an_attempt() -> None:
    targets = Targets()
    targets.error = LookupError("there is no target 'docs_1'")
    [outcome] = await runner_of(ScriptedStage(INDEXED), targets).run(
        "1-0", header_of(1), [Document(ref=ref(0))]
    )
    assert isinstance(outcome, Retry)
    assert outcome.attempts == 1


async def test_bodies_are_decoded_and_one_that_cannot_be_read_fails_alone() -> None:
    stage = Embeds(INDEXED, INDEXED, INDEXED)
    good, _, bad = (raw_part(value) for value in (CHUNKED, CHUNKED, {"no": "document"}))
    documents = [
        Document(ref=ref(0), body=good),
        Document(ref=ref(1), body=bad),
        Document(ref=ref(2), body=None),
    ]
    outcomes = await runner_of(stage).run("1-0", header_of(3), documents)
    assert outcomes[0] == INDEXED
    assert [outcome.code for outcome in outcomes[1:] if isinstance(outcome, Dead)] == [
        "malformed"
    ] * 2
    assert [document.body for document in stage.seen] == [CHUNKED]
    assert [document.ref.position for document in stage.batches[0].documents] == [0]


async def test_if_no_body_can_be_read_the_stage_is_not_asked() -> None:
    stage = Embeds(INDEXED)
    [outcome] = await runner_of(stage).run("1-0", header_of(1), [Document(ref=ref(0), body=None)])
    assert isinstance(outcome, Dead)
    assert stage.batches == []


async def test_a_delete_has_no_body() -> None:
    stage = Embeds(INDEXED)
    documents = [Document(ref=ref(0, Action.DELETE), body=None)]
    assert await runner_of(stage).run("1-0", header_of(1), documents) == [INDEXED]
    assert stage.seen[0].body is None


async def endless(_document: Document) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_a_document_over_its_time_fails_alone() -> None:
    slow, quick = await run(ScriptedStage(endless, INDEXED), document_timeout=Seconds(0.01))
    assert isinstance(slow, Retry)
    assert "exceeded its time" in slow.reason
    assert quick == INDEXED


@in_virtual_time
async def test_time_that_a_document_waits_for_its_turn_does_not_count() -> None:
    async def waits(document: Document) -> Outcome:
        with document.limit.held():
            await asyncio.sleep(60)
        return INDEXED

    assert await run(ScriptedStage(waits), document_timeout=Seconds(1)) == [INDEXED]


async def test_an_error_of_the_last_step_is_not_that_of_documents_that_had_ended() -> None:
    class Broken(ScriptedStage):
        async def finish(self, prepared: str, unfinished: Sequence[str]) -> Sequence[Outcome]:
            raise ValueError("a bug")

    first, second, third = await run(Broken(INDEXED, "a", Emit("body", 1)))
    assert (first, third) == (INDEXED, Emit("body", 1))
    assert isinstance(second, Retry)
    assert second.attempts == 1


@in_virtual_time
async def test_a_batch_may_take_as_long_as_its_documents_wait() -> None:
    class Busy(ScriptedStage):
        async def finish(self, prepared: str, unfinished: Sequence[str]) -> Sequence[Outcome]:
            await asyncio.sleep(3600)  # for its turn at a server, and for each answer
            return await super().finish(prepared, unfinished)

    async def waits(document: Document) -> Outcome:
        with document.limit.held():
            await asyncio.sleep(3600)
        return INDEXED

    stage = Busy(INDEXED, waits, "a")
    outcomes = await run(stage, document_timeout=Seconds(6))
    assert outcomes == [INDEXED, INDEXED, Dead("finished", "a")]


@in_virtual_time
async def test_documents_that_are_finished_keep_their_outcome_when_others_run_out_of_time() -> None:
    outcomes = await run(
        ScriptedStage(INDEXED, endless, "a", Emit("body", 1)), document_timeout=Seconds(6)
    )
    assert outcomes[0] == INDEXED
    assert isinstance(outcomes[1], Retry)
    assert outcomes[2:] == [Dead("finished", "a"), Emit("body", 1)]


async def test_cancellation_is_not_an_outcome() -> None:
    task = asyncio.create_task(run(ScriptedStage(endless)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stage_that_returns_no_outcome_and_cannot_finish_is_a_bug() -> None:
    class Unfinished(Stage[Batch, str]):
        name = StageName.CHUNKER

        async def handle_document(self, document: Document, prepared: Batch) -> str:
            return "no outcome"

    [outcome] = await runner_of(Unfinished()).run("1-0", header_of(1), [Document(ref=ref(0))])
    assert isinstance(outcome, Retry)
    assert "has no `finish`" in outcome.reason


def raw_part(value: Any) -> Any:
    return body_parts(encode_body([value]), 1)[0]
