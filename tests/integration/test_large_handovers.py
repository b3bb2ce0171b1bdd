"""Hand-overs that Redis does not take for their size: divided, then a dead letter with the reason."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import decode_header
from shared.pipeline.outcomes import Emit, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Document
from shared.service.clients import redis_command
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    depth,
    entries_of,
    release_all,
    running_worker,
    states,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER, EMBEDDER = StageName.CHUNKER, StageName.EMBEDDER
SMALLEST_LIMIT = 1024 * 1024  # that Redis accepts for `proto-max-bulk-len`


@pytest_asyncio.fixture(loop_scope="session")
async def narrow(servers: Servers) -> AsyncIterator[Servers]:
    """Servers whose Redis takes values of up to 1 MiB, for a worker.

    It has connections of its own: the server closes one that brought more.
    """
    name = "proto-max-bulk-len"
    before = str((await servers.redis.config_get(name))[name])
    await servers.redis.config_set(name, SMALLEST_LIMIT)
    redis = redis_command(servers.redis_url)
    yield msgspec.structs.replace(servers, redis=redis)
    await redis.aclose()
    await servers.redis.config_set(name, before)


async def test_a_batch_that_redis_does_not_take_is_handed_over_document_by_document(
    servers: Servers, narrow: Servers
) -> None:
    job = await accept_documents(servers, 4)
    await release_all(servers)

    async def handle(document: Document) -> Outcome:
        return Emit("x" * (SMALLEST_LIMIT // 3), 1)

    async with running_worker(narrow, handle):
        await wait_until(lambda: handed_over(servers, 4), description="an entry for each document")
    assert await depth(servers, CHUNKER) == 0
    assert await states(servers, job) == ["released"] * 4


async def test_a_document_that_redis_does_not_take_is_a_dead_letter_and_the_others_go_on(
    servers: Servers, narrow: Servers
) -> None:
    job = await accept_documents(servers, 4)
    await release_all(servers)

    async def handle(document: Document) -> Outcome:
        is_large = document.ref.position == 2
        return Emit("x" * (3 * SMALLEST_LIMIT if is_large else 10), 1)

    async with running_worker(narrow, handle):
        await wait_until(lambda: handed_over(servers, 3), description="the three small documents")
        await wait_until(lambda: has_failed(servers, job), description="the dead letter")
    assert await depth(servers, CHUNKER) == 0
    assert await states(servers, job) == ["released", "released", "failed", "released"]
    [dead] = await servers.pool.fetch("SELECT position, code, error FROM webhook.dead_letters")
    assert (dead["position"], dead["code"]) == (2, "too_large")
    assert dead["error"].startswith("3,14"), dead["error"]
    assert "bytes for the next stage cannot be sent" in dead["error"]


async def handed_over(servers: Servers, documents: int) -> bool:
    entries = await entries_of(servers, EMBEDDER.stream(Lane.NORMAL))
    headers = [decode_header(fields[b"h"]) for _, fields in entries]
    return sum(len(header.documents) for header in headers) == documents


async def has_failed(servers: Servers, job_id: str) -> bool:
    return "failed" in await states(servers, job_id)
