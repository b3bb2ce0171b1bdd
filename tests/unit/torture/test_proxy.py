"""The torture suite's proxy forwards, loses replies on a broken connection, and refuses while it is cut."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

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
        writer.write(b"hello")
        async with asyncio.timeout(5):
            answer = await reader.read(100)
        writer.close()
    except ConnectionError:
        return b""
    return answer


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
