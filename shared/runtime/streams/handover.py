"""The hand-over: the owner of an entry adds its messages and deletes it, in one atomic step."""

from collections.abc import Sequence

import msgspec
import stamina
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.pipeline.entries import Consumer, Entry
from shared.pipeline.failpoints import failpoint
from shared.pipeline.messages import EncodedMessage, Header, body_parts, encode_body, encode_header
from shared.runtime.streams.lua import script
from shared.service.clients import is_redis_unavailable
from shared.service.errors import is_missing_group
from shared.service.metrics import Metrics

log = structlog.get_logger()


class HandOver:
    """The hand-over of one consumer.

    It waits while Redis is unavailable. Repeating a hand-over is harmless.
    """

    def __init__(self, redis: Redis, consumer: Consumer, metrics: Metrics) -> None:
        self._script = redis.register_script(script("handover"))
        self._consumer = consumer
        self._refused = metrics.refused_handovers.labels(consumer.stage)

    async def pass_on(self, entry: Entry, message: EncodedMessage | None) -> bool:
        """End the entry and send `message` to the next stage, if any.

        False if the lease was lost.
        """
        destination = entry.stream
        if message is not None:
            assert self._consumer.stage.next is not None
            destination = self._consumer.stage.next.stream(entry.lane)
        is_won = await self._run(entry, destination, [message] if message is not None else [])
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

    @stamina.retry(
        on=is_redis_unavailable, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0
    )
    async def _run(
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
