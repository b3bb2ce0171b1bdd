"""The torture suite's proxy forwards, loses replies, refuses while it is cut, delays, and lets
nothing through.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.waiting import wait_until
from tests.torture.proxy import Proxy


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1], seed=1)
    await proxy.start()
    yield proxy
    await proxy.stop()
    server.close()
    await server.wait_closed()


async def ask(proxy: Proxy) -> bytes:
    """What comes back; empty if the connection breaks."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            writer.write(b"hello")
            async with asyncio.timeout(5):
                return await reader.read(100)
        finally:
            writer.close()
    except ConnectionError:
        return b""


async def ask_within(proxy: Proxy, seconds: float) -> bytes | None:
    """What comes back, None if nothing does."""
    try:
        async with asyncio.timeout(seconds):
            return await ask(proxy)
    except TimeoutError:
        return None


async def test_replies_come_through(proxy: Proxy) -> None:
    assert await ask(proxy) == b"hello"


async def test_a_lost_reply_breaks_the_connection(proxy: Proxy) -> None:
    await proxy.lose_replies(1.0)
    assert await ask(proxy) == b""
    assert proxy.dropped == 1
    await proxy.heal()
    assert await ask(proxy) == b"hello"


async def test_nothing_comes_through_a_cut_link_until_it_is_healed(proxy: Proxy) -> None:
    await proxy.cut()
    assert await ask(proxy) == b""
    await proxy.heal()
    assert await ask(proxy) == b"hello"


async def test_a_black_hole_takes_connections_and_requests_and_gives_nothing_back(
    proxy: Proxy,
) -> None:
    await proxy.black_hole()
    assert await ask_within(proxy, 0.1) is None
    await proxy.heal()
    assert await ask(proxy) == b"hello"


async def test_what_was_sent_into_a_black_hole_arrives_late(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    await proxy.black_hole()
    writer.write(b"two")
    answer = asyncio.create_task(reader.readexactly(3))
    done, _ = await asyncio.wait([answer], timeout=0.1)
    assert not done
    await proxy.heal()
    assert await answer == b"two"
    writer.close()


async def test_a_black_hole_hides_that_the_sender_has_left(proxy: Proxy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.black_hole()
    writer.close()
    assert await ask_within(proxy, 0.1) is None
    assert proxy.links == 2
    await proxy.heal()
    await wait_until(lambda: proxy.links == 0, description="the end of what was left")


async def test_a_delay_holds_every_piece_up_either_way(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    await proxy.delay(0.05)
    started = loop.time()
    assert await ask(proxy) == b"hello"
    assert loop.time() - started >= 0.1
