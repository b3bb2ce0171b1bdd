"""One deadline for a whole request, and a limit on the number of waiting requests.

The time limits of a connection pool add up: for a connection, for each statement, for its
cancellation, together 10 s and more. Here the client gets its answer at the deadline, while the
request continues in the background: neither the deadline nor a client that disconnects interrupts a
transaction.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web

from shared.service.errors import DependencyError

log = structlog.get_logger()

# Below the time limits of senders and load balancers, which must get the 503.
_SECONDS = 2.5
# Waiting requests, of GET and of other methods: about a second of work. Answering 500 of them takes
# 0.3 s (measured, Postgres frozen).
_WAITING = 500
LONG = 15.0  # of requests that read whole tables: the time limit of a statement
_CLEANUP_SECONDS = 4.0


class Deadline:
    """The time at which a request must be answered.

    Code that waits on purpose lifts it, then starts it again.
    """

    def __init__(self, waiting: set["Deadline"], limit: int, seconds: float) -> None:
        self._waiting = waiting
        self._limit = limit
        self._seconds = seconds
        self._expires_at: float | None = None

    def start(self, seconds: float | None = None) -> None:
        """Start it again, with `seconds` or the usual ones.

        Raises DependencyError if too many requests are waiting.
        """
        if self not in self._waiting and len(self._waiting) >= self._limit:
            raise DependencyError("postgres", f"{self._limit} requests are waiting for an answer")
        self._waiting.add(self)
        self._expires_at = asyncio.get_running_loop().time() + (seconds or self._seconds)

    def lift(self) -> None:
        """Wait without a limit and without being counted: for a body, for an event."""
        self._waiting.discard(self)
        self._expires_at = None

    async def wait_for(self, task: asyncio.Task[Any]) -> bool:
        """Wait for the task, never cancelling it; returns whether it ended in time."""
        loop = asyncio.get_running_loop()
        while not task.done():
            left = None if self._expires_at is None else self._expires_at - loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait({task}, timeout=self._seconds if left is None else left)
        return True


DEADLINE = web.RequestKey("deadline", Deadline)


def add_deadlines(
    app: web.Application, *, seconds: float = _SECONDS, limit: int = _WAITING
) -> None:
    """Give every request under /api a deadline, until its answer starts."""
    waiting: dict[bool, set[Deadline]] = {
        True: set(),
        False: set(),
    }  # readers cannot block senders
    running: set[asyncio.Task[web.StreamResponse]] = set()

    @web.middleware
    async def bounded(request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/api/"):
            answer: web.StreamResponse = await handler(request)
            return answer
        deadline = request[DEADLINE] = Deadline(waiting[request.method == "GET"], limit, seconds)
        deadline.start()
        task: asyncio.Task[web.StreamResponse] = asyncio.create_task(
            handler(request), name=f"answer-{request.path}"
        )
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _: deadline.lift())
        try:
            if await deadline.wait_for(task):
                return task.result()
            task.add_done_callback(_note_end)
            raise DependencyError("postgres", "no answer in time")
        finally:
            # An error keeps this frame, the frame would keep the task, and the task keeps the
            # error: the body of the request would stay in memory until the cycle collector runs.
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
    """Log the end of a request whose client already got a 503."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        log.info(
            "Request ended after its deadline", task=task.get_name(), cancelled=task.cancelled()
        )
    else:
        log.warning("Request failed after its deadline", task=task.get_name(), error=str(error))
