"""The dispatcher on real Redis and Postgres: what is released is in the streams once, whatever is
lost in between.
"""

import asyncio
import time

import pytest

from ingest.dispatch.dispatcher import RefusedReleaseError
from ingest.dispatch.election import Election
from ingest.dispatch.release import Pick, Releases
from ingest.dispatch.sizing import MEASURED
from shared.pipeline.lanes import SMALL_SOURCE, Lane
from shared.pipeline.messages import Action, decode_header
from shared.pipeline.stages import OWNER, RELEASED, StageName
from shared.runtime.streams.lua import script
from shared.service.clients import postgres_pool
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    depth,
    entries_of,
    make_dispatcher,
    states,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER = StageName.CHUNKER


async def release_all(servers: Servers, **options: object) -> int:
    dispatcher = make_dispatcher(servers, **options)  # type: ignore[arg-type]
    await dispatcher.check_marker()
    total = 0
    while released := await dispatcher.release_some():
        total += released
    return total


async def lanes(servers: Servers, job_id: str) -> list[str]:
    rows = await servers.pool.fetch("SELECT lane FROM webhook.job_items WHERE job_id = $1", job_id)
    return [row["lane"] for row in rows]


async def documents_in(servers: Servers, stream: str) -> list[tuple[str, int, int]]:
    entries = await entries_of(servers, stream)
    headers = [decode_header(fields[b"h"]) for _, fields in entries]
    return [
        (ref.job_id, ref.position, ref.release) for header in headers for ref in header.documents
    ]


async def test_every_accepted_document_is_released_once_in_batches(servers: Servers) -> None:
    job = await accept_documents(servers, 10)
    assert await release_all(servers) == 10
    released = await documents_in(servers, CHUNKER.stream(Lane.NORMAL))
    assert sorted((job_id, position) for job_id, position, _ in released) == [
        (job, n) for n in range(10)
    ]
    assert await depth(servers, CHUNKER) <= 4
    assert await states(servers, job) == ["released"] * 10
    assert await release_all(servers) == 0


@pytest.mark.parametrize(("queued", "size"), [(6, 2), (60, 4), (200, 8)])
async def test_the_automatic_batch_size_follows_what_waits(
    servers: Servers, queued: int, size: int
) -> None:
    await accept_documents(servers, queued)
    dispatcher = make_dispatcher(servers, size="auto")
    await dispatcher.check_marker()
    await dispatcher.release_some()
    [first, *_] = await entries_of(servers, CHUNKER.stream(Lane.NORMAL))
    assert len(decode_header(first[1][b"h"]).documents) == size


async def test_automatic_messages_become_smaller_when_they_take_long(servers: Servers) -> None:
    await accept_documents(servers, 300)
    dispatcher = make_dispatcher(servers, size="auto")
    await dispatcher.check_marker()
    for _ in range(MEASURED):
        await dispatcher.release_some()
    await servers.pool.execute(
        """UPDATE webhook.job_items SET state = 'indexed', finished_at = now(), stages =
           '{"chunker": {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z"},
             "embedder": {"started_at": "2026-01-01T00:00:01Z", "finished_at": "2026-01-01T00:00:11Z"}}'
           WHERE state = 'released'"""
    )
    await dispatcher._samples.measure()
    await servers.redis.delete(CHUNKER.stream(Lane.NORMAL))
    await dispatcher.release_some()
    [first, *_] = await entries_of(servers, CHUNKER.stream(Lane.NORMAL))
    assert len(decode_header(first[1][b"h"]).documents) == 4


async def test_nothing_is_released_beyond_the_mark(servers: Servers) -> None:
    await accept_documents(servers, 100)
    await release_all(servers, entries=5)
    assert await depth(servers, CHUNKER) <= 5 + 1
    await servers.redis.delete(CHUNKER.stream(Lane.NORMAL))
    assert await release_all(servers, entries=5) > 0


async def test_sources_share_fairly_however_much_one_has_queued(servers: Servers) -> None:
    await accept_documents(servers, 200, source="a-large-crawl")
    small = await accept_documents(servers, 8, source="small-crawl")
    dispatcher = make_dispatcher(servers, entries=8)
    await dispatcher.check_marker()
    for _ in range(4):
        await dispatcher.release_some()
    assert (await states(servers, small)).count("released") > 0


async def test_a_small_source_overtakes_a_crawl_that_fills_its_lane(servers: Servers) -> None:
    crawl = await accept_documents(servers, 200, source="crawl")
    await release_all(servers, entries=20)
    small = await accept_documents(servers, SMALL_SOURCE - 1, source="small")
    larger = await accept_documents(servers, SMALL_SOURCE, source="larger")
    await release_all(servers, entries=20)
    assert await states(servers, small) == ["released"] * (SMALL_SOURCE - 1)
    assert {row[0] for row in await documents_in(servers, CHUNKER.stream(Lane.HIGH))} == {small}
    assert set(await lanes(servers, small)) == {"high"}, "the last resort looks for them there"
    assert set(await lanes(servers, crawl) + await lanes(servers, larger)) == {"normal"}


async def test_a_small_source_does_not_overtake_while_the_lane_above_is_busy(
    servers: Servers,
) -> None:
    await accept_documents(servers, 200, source="crawl")
    await release_all(servers, entries=20)
    urgent = await accept_documents(servers, 20, source="urgent", lane=Lane.HIGH)
    await release_all(servers, entries=20)
    small = await accept_documents(servers, 4, source="small")
    await release_all(servers, entries=30)
    assert {row[0] for row in await documents_in(servers, CHUNKER.stream(Lane.HIGH))} == {urgent}
    assert set(await lanes(servers, small)) == {"normal"}
    assert "released" in await states(servers, small)


async def test_deletes_go_straight_to_the_indexer(servers: Servers) -> None:
    await accept_documents(servers, 1, action=Action.DELETE, lane=Lane.HIGH)
    await release_all(servers)
    assert await depth(servers, StageName.INDEXER) == 1
    assert await depth(servers, CHUNKER) == 0


async def test_deletes_are_released_while_the_chunk_stream_is_full(servers: Servers) -> None:
    documents = await accept_documents(servers, 40)
    assert await release_all(servers, entries=2, size="1") == 2
    deletes = await accept_documents(servers, 2, action=Action.DELETE)
    assert await release_all(servers, entries=2, size="1") == 2
    assert await states(servers, deletes) == ["released"] * 2
    assert (await states(servers, documents)).count("released") == 2


async def test_deletes_wait_while_the_index_stream_is_full(servers: Servers) -> None:
    job = await accept_documents(servers, 40, action=Action.DELETE)
    assert await release_all(servers, entries=5, size="1") == 5
    assert await depth(servers, StageName.INDEXER) == 5
    await servers.redis.delete(StageName.INDEXER.stream(Lane.NORMAL))
    assert await release_all(servers, entries=5, size="1") == 5
    assert (await states(servers, job)).count("queued") == 30


async def test_the_pick_of_deletes_reads_no_other_items(servers: Servers) -> None:
    await accept_documents(servers, 2000)
    await servers.pool.execute("ANALYZE webhook.job_items")
    plan = await servers.pool.fetch(
        "EXPLAIN SELECT job_id FROM webhook.job_items WHERE state = 'queued' AND action = 'delete' AND lane = 'normal' "
        "AND source > '' AND due_at <= now() ORDER BY source LIMIT 1"
    )
    assert any("items_deletes_due" in row[0] for row in plan)


async def test_after_redis_was_emptied_everything_is_released_again_under_a_new_number(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 6)
    await release_all(servers)
    before = await documents_in(servers, CHUNKER.stream(Lane.NORMAL))
    await servers.redis.flushall()
    assert await release_all(servers) == 6
    after = await documents_in(servers, CHUNKER.stream(Lane.NORMAL))
    assert sorted(row[:2] for row in after) == [(job, n) for n in range(6)]
    assert min(row[2] for row in after) > max(row[2] for row in before)


async def test_a_restored_redis_gets_only_the_lost_releases_again(servers: Servers) -> None:
    first = await accept_documents(servers, 2, source="first")
    await release_all(servers)
    marker = await servers.redis.get(RELEASED)
    stream = CHUNKER.stream(Lane.NORMAL)
    kept = {entry_id for entry_id, _ in await entries_of(servers, stream)}
    second = await accept_documents(servers, 2, source="second")
    await release_all(servers)
    await servers.redis.xdel(
        stream, *[i for i, _ in await entries_of(servers, stream) if i not in kept]
    )
    await servers.redis.set(
        RELEASED, marker or b""
    )  # what the append-only file had when it was cut

    assert await release_all(servers) == 2
    released = await documents_in(servers, stream)
    assert sorted(row[:2] for row in released) == sorted(
        [(first, 0), (first, 1), (second, 0), (second, 1)]
    )


async def test_a_crash_between_commit_and_publication_loses_nothing(servers: Servers) -> None:
    job = await accept_documents(servers, 3)
    releases = Releases(servers.pool)
    number = await releases.next_number(0)
    crashed = await releases.release(
        Pick(lane=Lane.NORMAL, cursor="", sources=8, items=8, travels_in=Lane.NORMAL), number
    )
    assert len(crashed.items) == 3
    assert await depth(servers, CHUNKER) == 0

    assert await release_all(servers) == 3
    assert len(await documents_in(servers, CHUNKER.stream(Lane.NORMAL))) == 3
    assert await states(servers, job) == ["released"] * 3


async def test_a_publication_whose_reply_was_lost_is_done_once(servers: Servers) -> None:
    publish = servers.redis.register_script(script("publish"))
    stream = CHUNKER.stream(Lane.NORMAL)
    for _ in range(2):
        assert await publish(keys=[RELEASED, OWNER, stream], args=[0, 5, "only", b"{}"]) == b"done"
    assert await servers.redis.xlen(stream) == 1


async def test_a_dispatcher_that_was_replaced_is_refused(servers: Servers) -> None:
    publish = servers.redis.register_script(script("publish"))
    stream = CHUNKER.stream(Lane.NORMAL)
    assert await publish(keys=[RELEASED, OWNER, stream], args=[0, 9, "only", b"{}"]) == b"done"
    assert await publish(keys=[RELEASED, OWNER, stream], args=[0, 8, "only", b"{}"]) == b"9"
    assert await servers.redis.xlen(stream) == 1


async def test_release_numbers_stay_above_the_marker_of_an_older_database(servers: Servers) -> None:
    assert await Releases(servers.pool).next_number(1_000_000) > 1_000_000


async def idle_for_an_hour(servers: Servers, lane: Lane) -> str:
    """Release a job, and make it look as if nothing had happened to it since an hour ago."""
    job = await accept_documents(servers, 1, lane=lane)
    await release_all(servers)
    stream = CHUNKER.stream(lane)
    [(_, fields)] = await entries_of(servers, stream)
    await servers.redis.delete(stream)
    await servers.redis.xadd(stream, fields, id=f"{int((time.time() - 3600) * 1000)}-0")  # type: ignore[arg-type]
    await servers.pool.execute(
        "UPDATE webhook.job_items SET progress_at = now() - interval '1 hour'"
    )
    return job


async def test_the_last_resort_queues_items_without_progress_and_entry(servers: Servers) -> None:
    job = await idle_for_an_hour(servers, Lane.NORMAL)
    await servers.redis.xtrim(CHUNKER.stream(Lane.NORMAL), 0)
    await make_dispatcher(servers).check_marker()
    assert await states(servers, job) == ["queued"]


async def test_an_item_that_waits_in_a_stream_is_never_taken_for_lost(servers: Servers) -> None:
    job = await idle_for_an_hour(servers, Lane.NORMAL)
    await make_dispatcher(servers).check_marker()
    assert await states(servers, job) == ["released"]


async def test_old_entries_of_another_lane_do_not_delay_the_last_resort(servers: Servers) -> None:
    lost = await idle_for_an_hour(servers, Lane.LOW)
    await servers.redis.xtrim(CHUNKER.stream(Lane.LOW), 0)
    waiting = await idle_for_an_hour(servers, Lane.NORMAL)
    await make_dispatcher(servers).check_marker()
    assert (await states(servers, lost), await states(servers, waiting)) == (
        ["queued"],
        ["released"],
    )


async def test_sources_waiting_for_a_retry_do_not_block_later_sources(servers: Servers) -> None:
    for n in range(70):
        await accept_documents(servers, 1, source=f"waiting-{n:02}")
    await servers.pool.execute("UPDATE webhook.job_items SET due_at = now() + interval '1 hour'")
    job = await accept_documents(servers, 4, source="zzz")
    assert await release_all(servers, entries=1) == 4
    assert await states(servers, job) == ["released"] * 4


async def test_a_release_number_drawn_before_another_dispatcher_released_is_not_used(
    servers: Servers,
) -> None:
    old, other = make_dispatcher(servers), make_dispatcher(servers)
    await old.check_marker()
    assert await old.release_some() == 0  # draws a number and has nothing to use it for
    await accept_documents(servers, 2, source="first")
    await other.check_marker()
    assert await other.release_some() == 2
    marker = int(await servers.redis.get(RELEASED) or 0)

    await accept_documents(servers, 2, source="second")
    await old.check_marker()
    assert await old.release_some() == 2
    assert int(await servers.redis.get(RELEASED) or 0) > marker


async def test_items_that_could_not_be_published_are_queued_again(servers: Servers) -> None:
    job = await accept_documents(servers, 2)
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    await servers.redis.set(RELEASED, 10**6)
    with pytest.raises(RefusedReleaseError):
        await dispatcher.release_some()
    assert await states(servers, job) == ["queued"] * 2
    assert await release_all(servers) == 2


async def test_an_elected_dispatcher_survives_the_loss_of_its_connections(servers: Servers) -> None:
    pool = await postgres_pool(servers.database_url, name="election")
    dispatcher, election = make_dispatcher(servers), Election(pool, "dispatcher", "a")
    running = asyncio.create_task(dispatcher.run(election))
    try:
        await wait_until(lambda: _is_elected(servers), timeout=20, description="elected")
        await servers.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millstream-election'"
        )
        await accept_documents(servers, 1)
        await wait_until(
            lambda: depth(servers, StageName.CHUNKER), timeout=20, description="released"
        )
    finally:
        running.cancel()
        await asyncio.wait({running})
        await pool.close()


async def _is_elected(servers: Servers) -> bool:
    return bool(await servers.pool.fetchval("SELECT count(*) FROM webhook.leases"))
