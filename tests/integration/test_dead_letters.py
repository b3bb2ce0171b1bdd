"""Dead letters in Postgres: found by filters, replayed once and only if it can help, dropped for
good.
"""

import asyncio

import pytest

from ingest.jobs.control import JobControl
from ingest.jobs.dead_letters import DeadLetters, LetterFilter, LetterStage
from ingest.jobs.replay import Replay, replay
from ingest.jobs.store import Job, JobStore
from shared.jobs.model import JobStatus
from shared.jobs.payloads import encode_payload
from shared.jobs.progress import Progress
from shared.jobs.targets import Targets
from shared.pipeline.entries import Entry
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, Page, StoredDocument
from shared.pipeline.stages import StageName
from shared.service.settings import Seconds
from tests.support.documents import COLLECTION
from tests.support.stage_harness import Servers, accept_documents, end, release, states

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER, INDEXER = StageName.CHUNKER, StageName.INDEXER


async def fail(
    servers: Servers, documents: int, *, code: str = "bad", stage: StageName = INDEXER
) -> tuple[str, list[DocumentRef]]:
    """A job whose documents all failed."""
    job_id = await accept_documents(servers, documents)
    refs = await release(servers, job_id)
    await end(servers, refs, code, stage)
    return job_id, refs


async def dead_letter_unreadable_entry(servers: Servers) -> None:
    entry = Entry(
        stream=CHUNKER.stream(Lane.NORMAL),
        lane=Lane.NORMAL,
        id="1-1",
        header=b"\xffno header",
        body=b"12345",
        deliveries=3,
    )
    await Progress(servers.pool, CHUNKER, "w").dead_letter(entry, "the header cannot be read")


async def overtake(servers: Servers, ref: DocumentRef) -> None:
    """Have a later version of the document be decided."""
    target = await Targets(servers.pool).live(COLLECTION)
    assert target is not None
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence) VALUES ($1, $2, $3)",
        target.target, ref.document_id, ref.version + 1,
    )  # fmt: skip


async def job_of(servers: Servers, job_id: str) -> Job:
    job = await JobStore(servers.pool).get(job_id)
    assert job is not None
    return job


async def ids(servers: Servers, wanted: LetterFilter, *, with_replayed: bool = False) -> list[int]:
    found = await DeadLetters(servers.pool).list(wanted, with_replayed=with_replayed, limit=1000)
    return [dead_letter.id for dead_letter in found.dead_letters]


async def test_every_filter_finds_its_dead_letters_and_all_together_narrow(
    servers: Servers,
) -> None:
    job_id, refs = await fail(servers, 2, code="too_long", stage=CHUNKER)
    await fail(servers, 1)
    await dead_letter_unreadable_entry(servers)
    everything = await ids(servers, LetterFilter())
    assert len(everything) == 4
    assert everything == sorted(everything, reverse=True)
    assert len(await ids(servers, LetterFilter(stage=LetterStage.CHUNKER))) == 3
    assert len(await ids(servers, LetterFilter(code="too_long"))) == 2
    assert len(await ids(servers, LetterFilter(job_id=job_id))) == 2
    assert len(await ids(servers, LetterFilter(url=refs[0].url))) == 2
    assert await ids(servers, LetterFilter(ids=(everything[1],))) == [everything[1]]
    assert (
        len(
            await ids(
                servers, LetterFilter(stage=LetterStage.CHUNKER, code="too_long", url=refs[1].url)
            )
        )
        == 1
    )
    assert await ids(servers, LetterFilter(code="nothing")) == []


async def test_since_excludes_older_letters(servers: Servers) -> None:
    await fail(servers, 1, code="old")
    await servers.pool.execute(
        "UPDATE webhook.dead_letters SET created_at = now() - interval '2 hours'"
    )
    await fail(servers, 1, code="new")
    found = await DeadLetters(servers.pool).list(LetterFilter(since=Seconds(3600)))
    assert [dead_letter.code for dead_letter in found.dead_letters] == ["new"]


async def test_pages_follow_each_other_while_new_dead_letters_arrive(servers: Servers) -> None:
    await fail(servers, 5)
    dead_letters = DeadLetters(servers.pool)
    everything = await ids(servers, LetterFilter())
    first = await dead_letters.list(LetterFilter(), limit=3)
    await fail(servers, 2)
    second = await dead_letters.list(LetterFilter(), after=first.next, limit=3)
    assert [
        dead_letter.id for dead_letter in first.dead_letters + second.dead_letters
    ] == everything
    assert second.next is None


async def test_a_documents_dead_letter_shows_why_it_failed_and_the_beginning_of_its_text(
    servers: Servers,
) -> None:
    job_id, refs = await fail(servers, 1, code="too_long", stage=CHUNKER)
    text = encode_payload(StoredDocument(markdown="ä" * 700, page=Page()))
    await servers.pool.execute(
        "UPDATE webhook.payloads SET body = $1 WHERE version = $2", text, refs[0].version
    )
    [letter_id] = await ids(servers, LetterFilter())
    dead_letter = await DeadLetters(servers.pool).get(letter_id)
    assert dead_letter is not None
    assert (dead_letter.job_id, dead_letter.position, dead_letter.url, dead_letter.version) == (
        job_id,
        0,
        refs[0].url,
        refs[0].version,
    )
    assert (str(dead_letter.stage), dead_letter.code, dead_letter.error) == (
        "chunker",
        "too_long",
        "too_long [it] broke",
    )
    assert (dead_letter.attempts, dead_letter.deliveries, dead_letter.replayed_at) == (1, 2, None)
    assert (dead_letter.text_characters, dead_letter.text) == (700, "ä" * 500)
    assert (dead_letter.header, dead_letter.header_bytes, dead_letter.body_bytes) == (None, 0, 0)


async def test_an_unreadable_entrys_dead_letter_shows_what_was_read(servers: Servers) -> None:
    await dead_letter_unreadable_entry(servers)
    [letter_id] = await ids(servers, LetterFilter())
    dead_letter = await DeadLetters(servers.pool).get(letter_id)
    assert dead_letter is not None
    assert (dead_letter.job_id, dead_letter.url, dead_letter.text) == (None, None, None)
    assert (dead_letter.header, dead_letter.header_bytes, dead_letter.body_bytes) == (
        "\ufffdno header",
        10,
        5,
    )
    assert await DeadLetters(servers.pool).get(letter_id + 1) is None


async def test_replay_queues_dead_letters_that_can_succeed_and_counts_the_others(
    servers: Servers,
) -> None:
    job_id, refs = await fail(servers, 4)
    await overtake(servers, refs[0])
    await servers.pool.execute("DELETE FROM webhook.payloads WHERE version = $1", refs[1].version)
    await dead_letter_unreadable_entry(servers)
    expected = Replay(replayed=2, superseded=1, without_text=1, without_item=1)

    assert await replay(servers.pool, LetterFilter(), dry_run=True) == expected
    assert await states(servers, job_id) == ["failed"] * 4
    assert await replay(servers.pool, LetterFilter()) == expected
    assert await states(servers, job_id) == ["failed", "failed", "queued", "queued"]
    job = await job_of(servers, job_id)
    assert (job.status, job.failed, job.finished_at) == (JobStatus.RUNNING, 2, None)


async def test_a_replayed_dead_letter_is_not_replayed_again(servers: Servers) -> None:
    job_id, _ = await fail(servers, 2)
    assert (await replay(servers.pool, LetterFilter())).replayed == 2
    assert await replay(servers.pool, LetterFilter()) == Replay()
    await end(servers, await release(servers, job_id), "again")
    dead_letters = await DeadLetters(servers.pool).list(LetterFilter(), with_replayed=True)
    assert [(each.code, each.replayed_at is not None) for each in dead_letters.dead_letters] == [
        ("again", False), ("again", False), ("bad", True), ("bad", True),
    ]  # fmt: skip
    # The dead letters of the first failure would bring nothing that those of the second do not.
    assert (await replay(servers.pool, LetterFilter(code="bad"))).replayed == 0
    assert (await replay(servers.pool, LetterFilter(code="again"))).replayed == 2


async def test_a_replayed_item_is_due_at_once_with_all_its_attempts(servers: Servers) -> None:
    job_id, _ = await fail(servers, 1)
    await servers.pool.execute("UPDATE webhook.job_items SET due_at = now() + interval '1 day'")
    await replay(servers.pool, LetterFilter())
    row = await servers.pool.fetchrow(
        "SELECT attempts, code, error, finished_at, due_at <= now() AS due FROM webhook.job_items WHERE job_id = $1",
        job_id,
    )
    assert tuple(row) == (0, None, None, None, True)


async def test_replays_at_the_same_time_queue_every_item_once(servers: Servers) -> None:
    jobs = [(await fail(servers, 30))[0] for _ in range(4)]
    results = await asyncio.gather(*(replay(servers.pool, LetterFilter()) for _ in range(6)))
    assert sum(result.replayed for result in results) == 120
    for job_id in jobs:
        job = await job_of(servers, job_id)
        assert (job.failed, job.status) == (0, JobStatus.RUNNING)
        await end(servers, await release(servers, job_id), None)
        assert (await job_of(servers, job_id)).status is JobStatus.SUCCEEDED


async def test_more_dead_letters_than_one_batch_are_all_replayed_and_dropped(
    servers: Servers,
) -> None:
    job_id, _ = await fail(servers, 1003)
    assert (await replay(servers.pool, LetterFilter(job_id=job_id), dry_run=True)).replayed == 1003
    assert (await replay(servers.pool, LetterFilter(job_id=job_id))).replayed == 1003
    assert await DeadLetters(servers.pool).drop(LetterFilter(), with_replayed=True) == 1003


async def test_retrying_a_job_is_replaying_its_letters(servers: Servers) -> None:
    job_id, _ = await fail(servers, 2)
    other, _ = await fail(servers, 1)
    assert await JobControl(servers.pool).retry_failed(job_id) == 2
    assert await ids(servers, LetterFilter()) == await ids(servers, LetterFilter(job_id=other))


async def test_dropped_dead_letters_are_deleted_and_not_retried(servers: Servers) -> None:
    job_id, _ = await fail(servers, 3, code="dropped")
    await fail(servers, 1, code="kept")
    dead_letters = DeadLetters(servers.pool)
    assert await dead_letters.count(LetterFilter(code="dropped")) == 3
    assert await dead_letters.drop(LetterFilter(code="dropped")) == 3
    assert await dead_letters.drop(LetterFilter(code="dropped")) == 0
    assert [
        dead_letter.code for dead_letter in (await dead_letters.list(LetterFilter())).dead_letters
    ] == ["kept"]
    assert await JobControl(servers.pool).retry_failed(job_id) == 0
    assert (await job_of(servers, job_id)).status is JobStatus.FAILED


async def test_replayed_dead_letters_are_dropped_only_when_asked_for(servers: Servers) -> None:
    await fail(servers, 2)
    await replay(servers.pool, LetterFilter())
    dead_letters = DeadLetters(servers.pool)
    assert await dead_letters.drop(LetterFilter()) == 0
    assert await dead_letters.count(LetterFilter(), with_replayed=True) == 2
    assert await dead_letters.drop(LetterFilter(), with_replayed=True) == 2
