"""Counts redeliveries and refused hand-overs over processes that come and go, by sampling their metrics."""

import asyncio
import contextlib
import re

import httpx

from tests.torture.rig import Rig

_INTERVAL = 0.5  # seconds; what a process counted after its last sample before it was killed is not seen
_SAMPLE = re.compile(r"^millstream_(redeliveries|refused_handovers)_total\{[^}]*\} (\S+)$", re.MULTILINE)


class Counters:
    """What has been counted since `start`; at least, see above."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._first: dict[tuple[int, str], float] = {}
        self._last: dict[tuple[int, str], float] = {}

    @property
    def redeliveries(self) -> int:
        return self._total("redeliveries")

    @property
    def refused(self) -> int:
        return self._total("refused_handovers")

    async def start(self) -> None:
        await self._sample()
        self._first = dict(self._last)
        self._sampling = asyncio.create_task(self._run(), name="counters")

    async def stop(self) -> None:
        self._sampling.cancel()
        await asyncio.wait([self._sampling])
        await self._sample()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            await self._sample()

    async def _sample(self) -> None:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
            await asyncio.gather(*(self._read(client, pid, url) for pid, url in self._rig.stage_urls.items()))

    async def _read(self, client: httpx.AsyncClient, pid: int, url: str) -> None:
        # A process that was killed, is frozen or is just starting does not answer.
        with contextlib.suppress(httpx.HTTPError):
            text = (await client.get(f"{url}/metrics")).text
            for name, value in _SAMPLE.findall(text):
                self._last[pid, name] = float(value)

    def _total(self, name: str) -> int:
        return int(sum(value - self._first.get(key, 0.0) for key, value in self._last.items() if key[1] == name))
