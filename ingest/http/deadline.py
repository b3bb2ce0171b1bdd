"""One deadline for a whole request, and a bound on how many requests wait at once.

The limits of a connection pool stack: for a connection, for each statement, for its cancellation, 10 s and more
together. Here the sender is answered when the deadline passes, while the request runs on by itself: a transaction is
never cut off half way, neither by the deadline nor by a sender who leaves.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web

from shared.service.errors import DependencyError

log = structlog.get_logger()

# Senders want an answer, and a load balancer its 503 before it gives up by itself.
_SECONDS = 2.5
# Waiting requests of a kind: about a second of work. Answering 500 takes .3 s by itself (measured, Postgres frozen).
_WAITING = 500
LONG = 15.0  # of requests about everything that there is: a statement's own limit
_CLEANUP_SECONDS = 4.0


class Deadline:
    """Says when a request must be answered. What waits on purpose lifts it meanwhile, and starts it again."""

    def __init__(self, waiting: set["Deadline"], limit: int, seconds: float) -> None:
        self._waiting = waiting
        self._limit = limit
        self._seconds = seconds
        self._expires_at: float | None = None

    def start(self, seconds: float | None = None) -> None:
        """Begin anew, with more than the usual seconds if they are given.

        Raises DependencyError if too many requests wait already.
        """
        if self not in self._waiting and len(self._waiting) >= self._limit:
            raise DependencyError("postgres", f"{self._limit} requests wait already")
        self._waiting.add(self)
        self._expires_at = asyncio.get_running_loop().time() + (seconds or self._seconds)

    def lift(self) -> None:
        """Wait as long as it takes, without being counted: for a body, for an event."""
        self._waiting.discard(self)
        self._expires_at = None

    async def wait_for(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task ended before the deadline; it is not cancelled."""
        loop = asyncio.get_running_loop()
        while not task.done():
            left = None if self._expires_at is None else self._expires_at - loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait({task}, timeout=self._seconds if left is None else left)
        return True


DEADLINE = web.RequestKey("deadline", Deadline)


def add_deadlines(app: web.Application, *, seconds: float = _SECONDS, limit: int = _WAITING) -> None:
    """Give every request under /api a deadline. An answer that has begun, such as a stream of events, has none."""
    waiting: dict[bool, set[Deadline]] = {True: set(), False: set()}  # those who read do not keep work out
    running: set[asyncio.Task[web.StreamResponse]] = set()

    @web.middleware
    async def bounded(request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/api/"):
            answer: web.StreamResponse = await handler(request)
            return answer
        deadline = request[DEADLINE] = Deadline(waiting[request.method == "GET"], limit, seconds)
        deadline.start()
        task: asyncio.Task[web.StreamResponse] = asyncio.create_task(handler(request), name=f"answer-{request.path}")
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _: deadline.lift())
        try:
            if await deadline.wait_for(task):
                return task.result()
            task.add_done_callback(_note_end)
            raise DependencyError("postgres", "no answer in time")
        finally:
            # An error keeps this frame, the frame would keep the task, and the task keeps the error: the body of
            # the request would stay in memory until the cycle collector runs.
            del task

    async def finish(_app: web.Application) -> None:
        if running:
            await asyncio.wait(running, timeout=_CLEANUP_SECONDS)

    app.middlewares.append(bounded)
    app.on_response_prepare.append(_lift)
    app.on_cleanup.append(finish)


async def _lift(request: web.Request, _response: web.StreamResponse) -> None:
    if DEADLINE in request:
        request[DEADLINE].lift()


def _note_end(task: asyncio.Task[web.StreamResponse]) -> None:
    """The sender has had its 503 already: what came of the request is for the log."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        log.info("Request ended after its deadline", task=task.get_name(), cancelled=task.cancelled())
    else:
        log.warning("Request failed after its deadline", task=task.get_name(), error=str(error))
