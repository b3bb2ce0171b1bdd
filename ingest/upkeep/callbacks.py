"""Delivers completion webhooks: a signed POST, retried for hours, then a dead letter.

Every ingest process delivers; a claim in Postgres decides which process delivers which callback. A
receiver may get a completion twice (if a sender crashes after the POST), with the same delivery id.
A host has a few places in each process, so that one that hangs delays no other.
"""

import asyncio
import random
import time
from collections import Counter
from typing import Literal

import aiohttp
import msgspec
import structlog

from ingest.jobs.callbacks import Callback, Callbacks
from ingest.jobs.store import Job
from ingest.upkeep.public_address import ForbiddenAddressError
from ingest.upkeep.signature import signature_headers, signing_key
from shared.runtime.faults.policy import storable
from shared.service.errors import DependencyError
from shared.service.http import UNCOMPRESSED
from shared.service.metrics import Metrics
from shared.service.settings import Secret

log = structlog.get_logger()

_REQUEST_S = 10.0
_LEASE_S = 60.0  # of a claim, far above the time limit of a request
_AT_ONCE = 64  # requests of one process
PER_HOST = 4  # of these to one host: one that hangs delays no other
_IDLE_POLL = 1.0
_CODE = "callback_failed"


class JobCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a callback."""

    type: Literal["job.completed"] = "job.completed"
    delivery_id: str
    job: Job
    status_url: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The number of attempts and the delays between them: full jitter (AWS Architecture Blog,
    2015).
    """

    tries: int = 15  # over 3 hours on average, at most 6.5
    first_delay: float = 10.0  # seconds, doubled with each try
    longest_delay: float = 3600.0

    def delay(self, attempts: int, jitter: float) -> float | None:
        """Seconds until the next attempt after `attempts`; None after the last.

        `jitter` is uniform in 0..1.
        """
        if attempts >= self.tries:
            return None
        return jitter * min(self.longest_delay, self.first_delay * 2.0 ** (attempts - 1))


_SCHEDULE = Schedule()


class RefusedCallbackError(Exception):
    """The receiver answered with a status other than 2xx."""


class CallbackSender:
    """Delivers callbacks that are due."""

    def __init__(
        self,
        callbacks: Callbacks,
        session: aiohttp.ClientSession,
        secret: Secret,
        metrics: Metrics,
        schedule: Schedule = _SCHEDULE,
    ) -> None:
        """`session` decides which addresses can be reached."""
        self._callbacks = callbacks
        self._session = session
        self._key = signing_key(secret)
        self._outcomes = metrics.callbacks
        self._schedule = schedule
        self._in_flight: Counter[str] = Counter()  # by host
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    async def run(self) -> None:
        """Deliver until cancelled. Interrupted deliveries are repeated when their claims expire."""
        sending: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                claimed = await self._claim_patiently(_AT_ONCE - len(sending))
                for callback in claimed:
                    task = group.create_task(self._deliver_patiently(callback), name="callback")
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                if sending and not claimed:  # a place that becomes free is taken at once
                    await asyncio.wait(
                        sending, timeout=_IDLE_POLL, return_when=asyncio.FIRST_COMPLETED
                    )
                elif not claimed:
                    await asyncio.sleep(_IDLE_POLL)

    async def claim_due(self, limit: int) -> list[Callback]:
        """Claim callbacks that are due, of hosts that have a place; each is to be delivered.

        Raises DependencyError when Postgres is unavailable.
        """
        claimed = await self._callbacks.claim(
            limit, _LEASE_S, per_host=PER_HOST, in_flight=self._in_flight
        )
        self._in_flight.update(callback.host for callback in claimed)
        return claimed

    async def deliver(self, callback: Callback) -> None:
        """Attempt a claimed callback once, and free its place.

        Raises DependencyError when Postgres is unavailable.
        """
        try:
            await self._send(callback)
        finally:
            self._in_flight[callback.host] -= 1
            self._in_flight += Counter()  # without the hosts that have none

    async def _claim_patiently(self, limit: int) -> list[Callback]:
        try:
            return await self.claim_due(limit) if limit else []
        except DependencyError as error:
            log.warning("Completion webhooks interrupted", error=str(error))
            return []

    async def _deliver_patiently(self, callback: Callback) -> None:
        try:
            await self.deliver(callback)
        except DependencyError as error:
            log.warning("Completion webhooks interrupted", error=str(error))

    async def _send(self, callback: Callback) -> None:
        job_id, attempts = callback.job.job_id, callback.attempts
        try:
            await self._post(callback)
        except Exception as error:  # no answer of a receiver is a bug of ingest
            await self._fail(callback, error)
        else:
            await self._callbacks.delivered(callback)
            self._outcomes.labels("delivered").inc()
            log.info("Completion webhook delivered", job_id=job_id, attempts=attempts)

    async def _post(self, callback: Callback) -> None:
        body = msgspec.json.encode(
            JobCompleted(
                delivery_id=callback.delivery_id,
                job=callback.job,
                status_url=f"/api/jobs/{callback.job.job_id}",
            )
        )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "millstream",
            **signature_headers(self._key, callback.delivery_id, int(time.time()), body),
        }
        if callback.traceparent is not None:
            headers["traceparent"] = callback.traceparent
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        # Redirects are not followed: they could send the signed body anywhere.
        async with self._session.post(
            callback.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if not 200 <= answer.status < 300:
                raise RefusedCallbackError(
                    f"the receiver answered with HTTP status {answer.status}, expected 2xx"
                )

    async def _fail(self, callback: Callback, error: Exception) -> None:
        reason = _reason(error)
        delay = (
            None
            if _is_permanent(error)
            else self._schedule.delay(callback.attempts, self._random.random())
        )
        bound = log.bind(job_id=callback.job.job_id, attempts=callback.attempts)
        if delay is None:
            await self._callbacks.give_up(callback, _CODE, reason)
            self._outcomes.labels("given_up").inc()
            bound.error("Completion webhook given up", error=reason)
        else:
            await self._callbacks.postpone(callback, delay)
            self._outcomes.labels("failed").inc()
            bound.warning("Completion webhook failed", error=reason, next_try_s=delay)


def callback_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """A session for callbacks: no cookies, and no proxy or password from the environment.

    The body of the answer is not read, so no compression is requested or undone.
    """
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=UNCOMPRESSED,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_REQUEST_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}: {error.os_error}"
    return storable(str(error)) or type(error).__name__


def _is_permanent(error: Exception) -> bool:
    """Whether a retry cannot help: the URL is invalid, or has only addresses that must not be
    called.
    """
    return isinstance(error, aiohttp.InvalidURL) or (
        isinstance(error, aiohttp.ClientConnectorError)
        and isinstance(error.os_error, ForbiddenAddressError)
    )
