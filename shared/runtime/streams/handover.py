"""The hand-over: the owner of an entry adds its messages and deletes it, in one atomic step."""

from collections.abc import Sequence

import msgspec
import stamina
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared.pipeline.entries import Consumer, Entry
from shared.pipeline.failpoints import failpoint
from shared.pipeline.messages import EncodedMessage, Header, body_parts, encode_body, encode_header
from shared.runtime.streams.lua import script
from shared.service.clients import is_redis_unavailable
from shared.service.errors import RejectedError, is_missing_group, is_too_large
from shared.service.metrics import Metrics

log = structlog.get_logger()

# Of the messages of one hand-over, which is one command: 13 MB/s are enough for its time limit.
HANDOVER_BYTES = 64 * 1024 * 1024
# No server refuses a hand-over of less for its size: `proto-max-bulk-len` cannot be set lower.
_NEVER_TOO_LARGE = 1024 * 1024
# A large hand-over is at fault when it fails so often in a row while Redis answers a ping: Redis
# may close the connection before its reply is read, or take longer than the command may.
_TRIES = 5


class TooLargeError(RejectedError):
    """Redis does not take a hand-over of this size."""

    def __init__(self, size: int, reason: str) -> None:
        super().__init__("too_large", f"{size:,} bytes for the next stage cannot be sent: {reason}")


class HandOver:
    """The hand-over of one consumer.

    It waits while Redis is unavailable. Repeating a hand-over is harmless.
    """

    def __init__(
        self,
        redis: Redis,
        consumer: Consumer,
        metrics: Metrics,
        most_bytes: int = HANDOVER_BYTES,
    ) -> None:
        """`most_bytes` that several messages may have together."""
        self._redis = redis
        self._most_bytes = most_bytes
        self._script = redis.register_script(script("handover"))
        self._consumer = consumer
        self._refused = metrics.refused_handovers.labels(consumer.stage)

    async def pass_on(self, entry: Entry, messages: Sequence[EncodedMessage] = ()) -> bool:
        """End the entry and send `messages` to the next stage.

        False if the lease was lost. Raises TooLargeError, with nothing changed, for messages that
        are too large together, or that Redis does not take.
        """
        size = sum(message.size for message in messages)
        if len(messages) > 1 and size > self._most_bytes:
            raise TooLargeError(size, f"a batch has at most {self._most_bytes:,}")
        destination = entry.stream
        if messages:
            assert self._consumer.stage.next is not None
            destination = self._consumer.stage.next.stream(entry.lane)
        is_won = await self._run(entry, destination, messages)
        failpoint(self._consumer.stage, "handed_over")
        return is_won

    async def split(self, entry: Entry, header: Header) -> bool:
        """Replace the entry by one for each document, in its own stream.

        False if the lease was lost.
        """
        log.warning(
            "Batch split",
            stage=self._consumer.stage,
            entry_id=entry.id,
            deliveries=entry.deliveries,
        )
        failpoint(self._consumer.stage, "splitting")
        is_won = await self._run(
            entry, entry.stream, split_message(header, entry.body, entry.deliveries - 1)
        )
        failpoint(self._consumer.stage, "split")
        return is_won

    async def _run(
        self, entry: Entry, destination: str, messages: Sequence[EncodedMessage]
    ) -> bool:
        """Send until Redis has done it. Raises TooLargeError."""
        size, failures = sum(message.size for message in messages), 0
        async for attempt in stamina.retry_context(
            on=is_redis_unavailable, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0
        ):
            with attempt:
                try:
                    return await self._send(entry, destination, messages)
                except (RedisError, OSError) as error:
                    failures = failures + 1 if await self._may_be_size(size, error) else 0
                    if is_too_large(error) or failures == _TRIES:
                        raise TooLargeError(size, str(error) or type(error).__name__) from error
                    raise
        raise AssertionError("it is tried without an end")

    async def _may_be_size(self, size: int, error: Exception) -> bool:
        """Whether only this hand-over fails: it is large, and Redis answers."""
        if size < _NEVER_TOO_LARGE or not isinstance(error, RedisConnectionError | OSError):
            return False
        try:
            await self._redis.ping()
        except (RedisError, OSError):
            return False
        return True

    async def _send(
        self, entry: Entry, destination: str, messages: Sequence[EncodedMessage]
    ) -> bool:
        fields = [part for message in messages for part in (message.header, message.body)]
        try:
            won = await self._script(
                keys=[entry.stream, destination],
                args=[self._consumer.stage, self._consumer.name, entry.id, *fields],
            )
        except ResponseError as error:
            if not is_missing_group(error):
                raise
            won = 0
        if not won:
            self._refused.inc()
            log.warning("Hand-over refused", stage=self._consumer.stage, entry_id=entry.id)
        return bool(won)


def split_message(header: Header, body: bytes, deliveries: int) -> list[EncodedMessage]:
    """Make a message for each document that carries `deliveries`. Raises MalformedMessageError."""
    parts = body_parts(body, len(header.documents))
    return [
        EncodedMessage(
            header=encode_header(
                msgspec.structs.replace(header, documents=(ref,), deliveries=deliveries)
            ),
            body=b"" if part is None else encode_body([part]),
        )
        for ref, part in zip(header.documents, parts, strict=True)
    ]
