"""A cancelled reindex stops: nothing of it is worked on, and none of its dead letters stays."""

from functools import partial

import aiohttp
import pytest

from ingest.http.app import make_app
from ingest.http.routes.reindex import ReindexApi
from ingest.http.sessions import Sessions
from ingest.jobs.dead_letters import DeadLetters, LetterFilter
from ingest.jobs.new_targets import NewTargets
from ingest.jobs.reindexes import Phase, Reindexes
from shared.jobs.operations import OperationLog
from shared.jobs.targets import Targets
from shared.pipeline.outcomes import Done, ItemState, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Document
from shared.runtime.streams.groups import create_groups
from shared.service.auth import Authenticator
from shared.service.http import problem_middleware
from shared.service.routes import add_routes
from shared.service.settings import ChunkerSettings, Secret, TeiSettings
from tests.support.documents import COLLECTION
from tests.support.ingest_server import KEY, TOKEN, serving
from tests.support.reindexing import begin, elected, finish, index, state_of, taken, turn, work
from tests.support.stage_harness import Servers, depth, running_worker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def states_of(servers: Servers, target: str) -> set[str]:
    rows = await servers.pool.fetch("SELECT state FROM webhook.job_items WHERE target = $1", target)
    return {row["state"] for row in rows}


async def is_empty(servers: Servers) -> bool:
    return await depth(servers, StageName.CHUNKER) == 0


async def test_stages_discard_the_transfers_that_are_in_the_streams(servers: Servers) -> None:
    await index(servers, *[f"page-{n}" for n in range(12)])
    await create_groups(servers.redis, StageName.CHUNKER)
    new = await begin(servers)
    await turn(await elected(servers))
    assert await depth(servers, StageName.CHUNKER) > 0
    cancelled = await Reindexes(servers.pool).cancel(COLLECTION)
    assert cancelled is not None
    assert cancelled.discarded == 12
    handled: list[str] = []

    async def handle(document: Document) -> Outcome:
        handled.append(document.ref.url)
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle):
        await wait_until(partial(is_empty, servers), description="an empty stream")
    assert handled == []
    assert await states_of(servers, new) == {"cancelled"}
    jobs = await servers.pool.fetch("SELECT status FROM webhook.jobs WHERE kind = 'reindex_job'")
    assert {row["status"] for row in jobs} == {"cancelled"}


async def test_the_dead_letters_of_the_dropped_target_close(servers: Servers) -> None:
    await index(servers, "a", "b", "c")
    new = await begin(servers)
    await turn(await elected(servers))
    (first, second, *_) = [ref for target, ref in await taken(servers) if target == new]
    await finish(servers, new, first, is_failing=True)
    dead, targets = DeadLetters(servers.pool), Targets(servers.pool)
    assert await targets.close_dead_letters(new) == 0  # while the reindex is in progress
    assert await dead.count(LetterFilter()) == 1
    await Reindexes(servers.pool).cancel(COLLECTION)
    assert await targets.close_dead_letters(new) == 1
    await finish(servers, new, second, is_failing=True)  # it was in flight
    assert await targets.close_dead_letters(new) == 1
    assert await dead.count(LetterFilter()) == 0


async def test_a_reindex_that_has_switched_is_not_cancelled(servers: Servers) -> None:
    await index(servers, "a")
    new = await begin(servers)
    dispatcher = await elected(servers)
    while (await state_of(servers)).phase is not Phase.SWITCHED:
        await turn(dispatcher)
        await work(servers)
    assert await Reindexes(servers.pool).cancel(COLLECTION) is None
    assert (await Targets(servers.pool).get(new)).is_wanted
    assert not (await Targets(servers.pool).get(f"{COLLECTION}_1")).is_wanted


async def test_the_answer_says_what_was_done_and_a_repeated_request_does_nothing(
    servers: Servers,
) -> None:
    await index(servers, "a", "b", "c")
    new = await begin(servers)
    dispatcher = await elected(servers)
    await turn(dispatcher)
    (first, *_) = [ref for target, ref in await taken(servers) if target == new]
    await finish(servers, new, first, is_failing=True)
    app = make_app(Authenticator(Secret(TOKEN), Secret(KEY)), Sessions(Secret(TOKEN)), 1024)
    app.middlewares.insert(0, problem_middleware)
    headers, query = {"Authorization": f"Bearer {TOKEN}"}, {"collection": COLLECTION}
    async with aiohttp.ClientSession(headers=headers) as session:
        new_targets = NewTargets(servers.pool, session, TeiSettings(), ChunkerSettings())
        add_routes(app, ReindexApi(servers.pool, new_targets, OperationLog(servers.pool)))
        answers = []
        async with serving(app) as url:
            for _ in range(2):
                async with session.delete(f"{url}/api/reindex", params=query) as answer:
                    assert answer.status == 200
                    answers.append(await answer.json())
    done = {"cancelled": 0, "discarded": 2}
    assert answers == [
        {
            "collection": COLLECTION,
            "target": new,
            "was_cancelled": False,
            "dead_letters": 1,
            **done,
        },
        {"collection": COLLECTION, "target": new, "was_cancelled": True, "dead_letters": 0, **done},
    ]
