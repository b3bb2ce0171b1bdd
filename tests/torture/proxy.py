"""A TCP proxy for one link of the pipeline: it loses replies, cuts, delays or blocks the link."""

import asyncio
import random

_CHUNK = 64 * 1024


class Proxy:
    """Forwards a free port of 127.0.0.1 to the server at `host`:`port`, in one event loop."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._server_address = (host, port)
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._loss = 0.0
        self._delay = 0.0
        self.is_open = True
        self.dropped = 0  # replies that were lost
        self.port = 0

    @property
    def links(self) -> int:
        """Connections there are."""
        return len(self._links)

    async def start(self) -> None:
        """Listen; from here on `port` is right."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            self._server.close()
        await self.break_links()

    def lead_to(self, host: str, port: int) -> None:
        """Forward new connections to another server; open ones stay, as with a switched Service."""
        self._server_address = (host, port)

    async def lose_replies(self, share: float) -> None:
        """Lose this share of replies: the request is executed, its connection breaks unanswered."""
        self._loss = share

    async def cut(self) -> None:
        """Break every connection, and every new one at once, until `heal`."""
        self.is_open = False
        await self.break_links()

    async def black_hole(self) -> None:
        """Forward nothing, not even the end of a connection, until `heal`; then what was held back.

        Connections stay open, and new ones are taken and hear nothing.
        """
        self._passing.clear()

    async def delay(self, seconds: float) -> None:
        """From now on each piece of data, either way, takes so long."""
        self._delay = seconds

    async def heal(self) -> None:
        """Forward everything again."""
        self.is_open = True
        self._loss = 0.0
        self._delay = 0.0
        self._passing.set()

    async def break_links(self) -> None:
        """Break the connections there are; new ones are served."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._forward(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        link.add_done_callback(lambda _: writer.transport.abort())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        if not self.is_open:
            return
        try:
            there, back = await asyncio.open_connection(*self._server_address)
        except OSError:
            return
        ways = [
            asyncio.create_task(way)
            for way in (self._requests(reader, back), self._replies(there, writer))
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._send(server, data)
        await self._passing.wait()  # nor does the end of a connection get through

    async def _replies(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self._loss and self._random.random() < self._loss:
                self.dropped += 1
                return
            await self._send(client, data)
        await self._passing.wait()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await asyncio.sleep(self._delay)
        await self._passing.wait()
        writer.write(data)
        await writer.drain()
