"""The recorder: which outcome is written how, and what goes on to the next stage."""

import pytest

from shared.jobs.model import FinishedJob, JobStatus
from shared.jobs.operations import Operation
from shared.jobs.progress import Ending
from shared.pipeline.messages import MalformedMessageError, body_parts, decode_header, encode_body
from shared.pipeline.outcomes import Dead, Done, Emit, ItemState, Outcome, Retry
from shared.runtime.recorder import Recorder
from shared.runtime.stage import Document
from shared.service.metrics import Metrics
from tests.unit.shared.runtime.fakes import STAGE, FakeProgress, entry, header_of, ref


class Operations:
    """The log of operations, in a list."""

    def __init__(self) -> None:
        self.rows: list[Operation] = []

    def add(self, operation: Operation) -> None:
        self.rows.append(operation)


class Rig:
    """A recorder over a Postgres that remembers."""

    def __init__(self, progress: FakeProgress | None = None) -> None:
        self.progress = progress or FakeProgress()
        self.operations = Operations()
        self.metrics = Metrics()
        self.metrics.begin_stage(STAGE)
        self.recorder = Recorder(self.progress, self.operations, self.metrics, STAGE)  # type: ignore[arg-type]

    async def record(self, *outcomes: Outcome) -> list[int] | None:
        """Record outcomes of the first documents; return the positions for the next stage."""
        documents = [Document(ref=ref(position)) for position in range(len(outcomes))]
        messages = await self.recorder.record(
            documents, outcomes, header_of(len(outcomes)), deliveries=2
        )
        if not messages:
            return None
        [message] = messages
        header = decode_header(message.header)
        assert len(body_parts(message.body, len(header.documents))) == len(header.documents)
        return [document.position for document in header.documents]


def emit(text: str = "text", cached: int | None = None) -> Emit:
    return Emit({"text": text}, 3, cached)


async def test_only_current_documents_are_worked_on_with_their_attempts_and_bodies() -> None:
    rig = Rig(FakeProgress(replaced=[1]))
    rig.progress.attempts = {2: 4}
    documents = await rig.recorder.begin(entry(documents=3), header_of(3))
    assert [(each.ref.position, each.attempts) for each in documents] == [(0, 0), (2, 4)]
    assert [bytes(each.body) for each in documents] == [
        bytes(body_parts(encode_body([{"text": text}]), 1)[0] or b"") for text in ("0", "2")
    ]


async def test_an_entry_whose_body_does_not_fit_is_malformed_before_anything_is_written() -> None:
    with pytest.raises(MalformedMessageError):
        await Rig().recorder.begin(entry(documents=3), header_of(2))


async def test_each_outcome_is_written_as_what_it_is() -> None:
    rig = Rig()
    message = await rig.record(
        Done(ItemState.UNCHANGED, 2),
        Dead("bad", "it is bad", attempts=1),
        Retry("TEI refused", 2.5, attempts=0),
        emit(),
    )
    assert message == [3]
    assert [(e.ref.position, e.state, e.code, e.error, e.attempts) for e in rig.progress.ended] == [
        (0, ItemState.UNCHANGED, None, None, 0),
        (1, ItemState.FAILED, "bad", "it is bad", 1),
    ]
    assert rig.progress.deliveries == [2]
    assert [(p.ref.position, p.delay, p.reason, p.attempts) for p in rig.progress.postponed] == [
        (2, 2.5, "TEI refused", 0)
    ]
    assert [document.position for document in rig.progress.passed_on] == [3]


async def test_without_a_document_that_goes_on_there_is_no_message() -> None:
    rig = Rig()
    assert await rig.record(Done(ItemState.INDEXED, 1), Retry("later", 1.0, attempts=1)) is None
    assert rig.progress.passed_on == []


async def test_a_document_that_was_replaced_meanwhile_does_not_go_on() -> None:
    assert await Rig(FakeProgress(replaced=[0, 2])).record(emit("a"), emit("b"), emit("c")) == [1]
    assert await Rig(FakeProgress(replaced=[0])).record(emit()) is None


async def test_inputs_that_tei_did_not_get_are_counted_by_reason() -> None:
    rig = Rig()
    await rig.record(emit(cached=2), Done(ItemState.UNCHANGED, 5), Done(ItemState.INDEXED, 7))
    saved = rig.metrics.tei.inputs_saved
    assert (saved.labels("cache")._value.get(), saved.labels("unchanged")._value.get()) == (2, 5)


async def test_a_job_that_ends_is_reported_once_with_its_counts() -> None:
    rig = Rig()
    rig.progress.ending = Ending(
        items=[],
        jobs=[
            FinishedJob(
                job_id="job",
                kind="index_document_batch_job",
                status=JobStatus.PARTIAL,
                crawl_id=None,
                request_id=None,
                total=3,
                succeeded=2,
                failed=1,
                cancelled=0,
                chunks=9,
                inputs_saved=4,
                duration_ms=12.0,
            )
        ],
    )
    await rig.record(Done(ItemState.INDEXED, 1))
    [row] = rig.operations.rows
    assert (row.operation_type, row.success) == ("batch_processing", False)
    assert row.metadata == {
        "total": 3,
        "success": 2,
        "failed": 1,
        "cancelled": 0,
        "chunks": 9,
        "inputs_saved": 4,
    }


async def test_an_entry_that_cannot_be_read_is_kept_as_a_dead_letter() -> None:
    rig = Rig()
    await rig.recorder.dead_letter(entry(), "the header cannot be read")
    assert rig.progress.dead_letters == [("1-0", "the header cannot be read")]
