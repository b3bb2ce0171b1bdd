"""Completion webhooks: told once per completion, signed, tried again, given up, and to nobody
inside.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ingest.jobs.callbacks import Callbacks
from ingest.jobs.control import JobControl
from ingest.jobs.dead_letters import DeadLetter, DeadLetters, LetterFilter, LetterStage
from ingest.jobs.replay import Replay, replay
from ingest.upkeep.callbacks import PER_HOST, CallbackSender, Schedule, callback_session
from ingest.upkeep.public_address import public_connector
from shared.service.metrics import Metrics
from shared.service.settings import Secret
from tests.support.ingest_server import TOKEN, ingest_server
from tests.support.receiver import Receiver, running_receiver
from tests.support.stage_harness import Servers, accept_documents, end, release
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "w" * 32
AT_ONCE = Schedule(tries=3, first_delay=0.0)
CALLBACKS = LetterFilter(stage=LetterStage.CALLBACK)


@contextlib.asynccontextmanager
async def sending(servers: Servers, *, allow_private: bool = True) -> AsyncIterator[CallbackSender]:
    async with callback_session(public_connector(allow_private=allow_private)) as session:
        yield CallbackSender(Callbacks(servers.pool), session, Secret(SECRET), Metrics(), AT_ONCE)


@pytest_asyncio.fixture(loop_scope="session")
async def sender(servers: Servers) -> AsyncIterator[CallbackSender]:
    async with sending(servers) as sender:
        yield sender


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def finished_job(
    servers: Servers, url: str, *, code: str | None = None, **options: Any
) -> str:
    job_id = await accept_documents(servers, 2, callback_url=url, **options)
    await end(servers, await release(servers, job_id), code)
    return job_id


async def send_due(sender: CallbackSender) -> int:
    """Deliver what can be claimed at once; how many."""
    claimed = await sender.claim_due(100)
    await asyncio.gather(*map(sender.deliver, claimed))
    return len(claimed)


async def dead_letters(servers: Servers) -> list[DeadLetter]:
    return (await DeadLetters(servers.pool).list(CALLBACKS)).dead_letters


async def test_the_callback_of_an_ended_job_is_delivered_once_and_signed(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    job_id = await accept_documents(servers, 2, callback_url=receiver.url, traceparent=trace)
    refs = await release(servers, job_id)
    await end(servers, refs[:1])
    assert await send_due(sender) == 0  # one document is still in flight
    await end(servers, refs[1:])
    assert await send_due(sender) == 1
    [told] = receiver.told
    assert told.is_signed(SECRET)
    assert (told.headers["Content-Type"], told.headers["traceparent"]) == (
        "application/json",
        trace,
    )
    body = json.loads(told.body)
    assert (body["type"], body["delivery_id"]) == ("job.completed", told.delivery_id)
    assert body["status_url"] == f"/api/jobs/{job_id}"
    assert (told.job["job_id"], told.job["status"], told.job["succeeded"]) == (
        job_id,
        "succeeded",
        2,
    )
    assert await send_due(sender) == 0


async def test_a_job_without_a_callback_url_delivers_nothing(
    servers: Servers, sender: CallbackSender
) -> None:
    await end(servers, await release(servers, await accept_documents(servers, 1)))
    assert await send_due(sender) == 0


async def test_the_callback_of_a_cancelled_job_is_delivered(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    job_id = await accept_documents(servers, 2, callback_url=receiver.url)
    await JobControl(servers.pool).cancel(job_id)
    await send_due(sender)
    assert [told.job["status"] for told in receiver.told] == ["cancelled"]


@pytest.mark.parametrize("status", [302, 400, 404, 500])
async def test_a_refused_delivery_is_retried_with_the_same_id(
    servers: Servers, sender: CallbackSender, receiver: Receiver, status: int
) -> None:
    await finished_job(servers, receiver.url)
    receiver.status = status
    await send_due(sender)
    receiver.status = 200
    await send_due(sender)
    assert receiver.visits == ["/done", "/done"]  # a redirect is not followed
    assert len({told.delivery_id for told in receiver.told}) == 1
    assert await send_due(sender) == 0


async def test_a_callback_is_a_dead_letter_after_the_last_attempt_and_can_be_replayed(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    job_id = await finished_job(servers, receiver.url)
    receiver.status = 503
    assert [await send_due(sender) for _ in range(4)] == [1, 1, 1, 0]
    [dead_letter] = await dead_letters(servers)
    assert (dead_letter.job_id, dead_letter.position, dead_letter.url) == (
        job_id,
        None,
        receiver.url,
    )
    assert (dead_letter.code, dead_letter.error, dead_letter.attempts) == (
        "callback_failed",
        "the receiver answered with HTTP status 503, expected 2xx",
        3,
    )

    assert await replay(servers.pool, CALLBACKS, dry_run=True) == Replay(replayed=1)
    assert await replay(servers.pool, CALLBACKS) == Replay(replayed=1)
    assert await replay(servers.pool, CALLBACKS) == Replay()
    receiver.status = 200
    assert await send_due(sender) == 1
    assert len({told.delivery_id for told in receiver.told}) == 1
    assert await dead_letters(servers) == []


async def test_an_unavailable_receiver_is_retried(servers: Servers, sender: CallbackSender) -> None:
    async with running_receiver() as gone:
        pass
    await finished_job(servers, gone.url)
    for _ in range(AT_ONCE.tries):
        assert await send_due(sender) == 1
    [dead_letter] = await dead_letters(servers)
    assert dead_letter.error.startswith("cannot connect to 127.0.0.1")


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00\xff\xfe\r\n\r\n", b"HTTP/9 \xed\xa0\x80\x00\r\n\r\n"]
)
async def test_an_invalid_answer_is_retried_then_dead_lettered(
    servers: Servers, sender: CallbackSender, garbage: bytes
) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await finished_job(servers, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        for _ in range(AT_ONCE.tries):
            assert await send_due(sender) == 1
    [dead_letter] = await dead_letters(servers)
    assert dead_letter.error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_private_address_is_never_connected_and_dead_lettered_at_once(
    servers: Servers, receiver: Receiver, host: str
) -> None:
    await finished_job(servers, receiver.url.replace("127.0.0.1", host))
    async with sending(servers, allow_private=False) as careful:
        await send_due(careful)
    assert receiver.visits == []
    [dead_letter] = await dead_letters(servers)
    assert "not public" in dead_letter.error


async def test_a_receiver_that_hangs_delays_no_other(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    visits = 0
    release = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        await release.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        hanging = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(80):
            await finished_job(servers, hanging)
        job_ids = {await finished_job(servers, receiver.url) for _ in range(3 * PER_HOST)}
        running = asyncio.create_task(sender.run())
        await wait_until(
            lambda: {told.job["job_id"] for told in receiver.told} == job_ids,
            description="the callbacks of the receiver that answers",
        )
        assert visits == PER_HOST  # and each of them still hangs
        assert await servers.pool.fetchval("SELECT max(callback_attempts) FROM webhook.jobs") == 1
        release.set()
        running.cancel()
        await asyncio.wait({running})


async def test_two_senders_deliver_a_completion_once(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    jobs = {await finished_job(servers, receiver.url) for _ in range(6)}
    async with sending(servers) as other:
        while sum(await asyncio.gather(*map(send_due, (sender, other, sender, other)))):
            pass
    assert sorted(told.job["job_id"] for told in receiver.told) == sorted(jobs)


async def test_the_claim_of_a_crashed_sender_is_taken_by_another(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    await finished_job(servers, receiver.url)
    [claimed] = await Callbacks(servers.pool).claim(
        10, lease=0.0, per_host=10, in_flight={}
    )  # and the process is gone
    await send_due(sender)
    assert [told.delivery_id for told in receiver.told] == [claimed.delivery_id]


async def test_a_late_failure_does_not_undo_what_another_sender_did(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    await finished_job(servers, receiver.url)
    callbacks = Callbacks(servers.pool)
    [late] = await callbacks.claim(10, lease=0.0, per_host=10, in_flight={})
    await send_due(sender)
    await callbacks.postpone(late, 0.0)
    await callbacks.give_up(late, "callback_failed", "too late")
    assert (await send_due(sender), await dead_letters(servers)) == (0, [])


async def test_a_reopened_job_delivers_its_callback_again_when_it_has_ended(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    job_id = await finished_job(servers, receiver.url, code="bad")
    await send_due(sender)
    await servers.pool.execute("UPDATE webhook.payloads SET body = '{}'")
    assert await JobControl(servers.pool).retry_failed(job_id) == 2
    assert await send_due(sender) == 0
    await end(servers, await release(servers, job_id))
    await send_due(sender)
    assert [told.job["status"] for told in receiver.told] == ["failed", "succeeded"]
    assert len({told.delivery_id for told in receiver.told}) == 2


async def test_a_replay_of_documents_and_callback_delivers_only_the_new_end(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    job_id = await finished_job(servers, receiver.url, code="bad")
    receiver.status = 500
    for _ in range(AT_ONCE.tries):
        await send_due(sender)
    receiver.told.clear()
    receiver.status = 200
    assert await replay(servers.pool, LetterFilter(job_id=job_id)) == Replay(replayed=3)
    assert await send_due(sender) == 0
    await end(servers, await release(servers, job_id))
    await send_due(sender)
    assert [told.job["status"] for told in receiver.told] == ["succeeded"]


DOCUMENT = {"url": "https://example.com/", "markdown": "Text."}


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("POST", "/api/index", DOCUMENT),
        ("POST", "/api/index/batch", {"documents": [DOCUMENT]}),
        ("DELETE", "/api/documents", None),
    ],
)
async def test_a_callback_is_accepted_with_its_job(
    servers: Servers, method: str, path: str, document: Any
) -> None:
    wanted = "https://receiver.example/done?token=1"
    query = (
        {"callback_url": wanted} if document else {"callback_url": wanted, "url": DOCUMENT["url"]}
    )
    async with ingest_server(servers.pool) as url, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with session.request(
            method, url + path, params=query, json=document, headers=headers
        ) as answer:
            assert answer.status == 202
    assert await servers.pool.fetchval("SELECT callback_url FROM webhook.jobs") == wanted


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:a00:1]"]
)
async def test_a_callback_url_with_a_private_address_is_refused(
    servers: Servers, host: str
) -> None:
    body = {"documents": [DOCUMENT], "callback_url": f"http://{host}/"}
    async with ingest_server(servers.pool) as url, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with session.post(f"{url}/api/index/batch", json=body, headers=headers) as answer:
            assert answer.status == 422
            assert (
                "WEBHOOK_CALLBACK_ALLOW_PRIVATE" in (await answer.json(content_type=None))["detail"]
            )
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0


async def test_the_callback_of_a_job_with_only_rejected_documents_is_due_at_once(
    servers: Servers, sender: CallbackSender, receiver: Receiver
) -> None:
    body = {"documents": [{"markdown": "No URL."}], "callback_url": receiver.url}
    async with (
        ingest_server(servers.pool, may_call_private=True) as url,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with session.post(f"{url}/api/index/batch", json=body, headers=headers) as answer:
            assert answer.status == 202
    await send_due(sender)
    assert [(told.job["status"], told.job["failed"]) for told in receiver.told] == [("failed", 1)]
