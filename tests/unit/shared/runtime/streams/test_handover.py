"""The hand-over: where messages go, which consumer may hand over, and how a batch is split."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.pipeline.entries import Consumer
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import (
    EncodedMessage,
    MalformedMessageError,
    body_parts,
    decode_header,
    encode_body,
)
from shared.pipeline.stages import StageName
from shared.runtime.streams.handover import HANDOVER_BYTES, HandOver, TooLargeError, split_message
from shared.service.metrics import Metrics
from tests.support.virtual_time import in_virtual_time
from tests.unit.shared.runtime.fakes import CONSUMER, STAGE, Answer, FakeScripts, entry, header_of

MESSAGE = EncodedMessage(header=b"h", body=b"b")


class Rig:
    """A hand-over with a script that answers as told."""

    def __init__(self, answer: Answer, consumer: Consumer = CONSUMER, **answers: Answer) -> None:
        self.redis = FakeScripts(handover=answer, **answers)
        self.metrics = Metrics()
        self.handover = HandOver(self.redis, consumer, self.metrics)  # type: ignore[arg-type]

    @property
    def refused(self) -> float:
        count: float = self.metrics.refused_handovers.labels(STAGE)._value.get()
        return count


def won(_keys: Any, _args: Any) -> int:
    return 1


async def test_a_message_goes_to_the_same_lane_of_the_next_stage() -> None:
    rig = Rig(won)
    assert await rig.handover.pass_on(entry(), [MESSAGE])
    [(keys, args)] = rig.redis.called("handover")
    assert keys == [STAGE.stream(Lane.NORMAL), StageName.EMBEDDER.stream(Lane.NORMAL)]
    assert args == [STAGE, "me", "1-0", b"h", b"b"]


async def test_an_entry_that_has_ended_is_deleted_without_a_message() -> None:
    rig = Rig(won, Consumer(stage=StageName.INDEXER, name="me", lease=30.0))
    assert await rig.handover.pass_on(entry())
    [(keys, args)] = rig.redis.called("handover")
    assert keys[0] == keys[1]
    assert args == [StageName.INDEXER, "me", "1-0"]


async def test_without_the_lease_a_hand_over_is_refused_and_counted() -> None:
    rig = Rig(lambda _keys, _args: 0)
    assert not await rig.handover.pass_on(entry(), [MESSAGE])
    assert rig.refused == 1


async def test_a_group_that_is_gone_is_a_lost_lease() -> None:
    def no_group(_keys: Any, _args: Any) -> Any:
        raise ResponseError("NOGROUP No such key")

    rig = Rig(no_group)
    assert not await rig.handover.pass_on(entry(), [MESSAGE])
    assert rig.refused == 1


async def test_another_error_of_redis_is_not_hidden() -> None:
    def wrong(_keys: Any, _args: Any) -> Any:
        raise ResponseError("WRONGTYPE Operation against a key")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await Rig(wrong).handover.pass_on(entry(), [MESSAGE])


async def test_while_redis_is_unavailable_the_hand_over_is_repeated() -> None:
    answers = iter([RedisConnectionError("refused"), 1])

    def second_time(_keys: Any, _args: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    rig = Rig(second_time)
    assert await rig.handover.pass_on(entry(), [MESSAGE])
    assert len(rig.redis.called("handover")) == 2
    assert rig.refused == 0


def raising(*errors: Exception | None) -> Answer:
    """Raises these one after the other, then answers; None answers as well."""
    left = list(errors)

    def answer(_keys: Any, _args: Any) -> int:
        if error := left.pop(0) if left else None:
            raise error
        return 1

    return answer


LARGE = EncodedMessage(header=b"h", body=bytes(1024 * 1024))
CUT = (RedisConnectionError("reset"), TimeoutError("the command took too long"))


@in_virtual_time
async def test_a_large_message_that_alone_fails_again_and_again_is_too_large() -> None:
    rig = Rig(raising(*CUT, *CUT, *CUT))
    with pytest.raises(TooLargeError, match=r"1,048,577 bytes .* cannot be sent: reset"):
        await rig.handover.pass_on(entry(), [LARGE])
    assert len(rig.redis.called("handover")) == 5


@in_virtual_time
async def test_a_small_message_is_never_too_large() -> None:
    rig = Rig(raising(*CUT * 10))
    assert await rig.handover.pass_on(entry(), [MESSAGE])


@in_virtual_time
async def test_no_message_is_too_large_for_a_redis_that_is_unavailable() -> None:
    is_down = raising(*[RedisConnectionError("refused")] * 20)
    rig = Rig(raising(*CUT * 10), ping=is_down)
    assert await rig.handover.pass_on(entry(), [LARGE])


async def test_a_message_that_redis_refuses_for_its_size_is_tried_once() -> None:
    rig = Rig(raising(ResponseError("Protocol error: invalid bulk length")))
    with pytest.raises(TooLargeError, match="invalid bulk length"):
        await rig.handover.pass_on(entry(), [LARGE])


async def test_messages_that_are_too_large_together_are_not_sent() -> None:
    rig = Rig(won)
    half = EncodedMessage(header=b"h", body=bytes(HANDOVER_BYTES // 2))
    with pytest.raises(TooLargeError, match="a batch has at most 67,108,864"):
        await rig.handover.pass_on(entry(), [half, half])
    assert rig.redis.calls == []
    assert await rig.handover.pass_on(entry(), [half])


async def test_a_split_puts_one_message_of_each_document_into_the_same_stream() -> None:
    rig = Rig(won)
    assert await rig.handover.split(entry(documents=3, deliveries=2), header_of(3))
    [(keys, args)] = rig.redis.called("handover")
    assert keys == [STAGE.stream(Lane.NORMAL)] * 2
    headers = [decode_header(part) for part in args[3::2]]
    assert [[document.position for document in header.documents] for header in headers] == [
        [0],
        [1],
        [2],
    ]
    assert [header.deliveries for header in headers] == [1, 1, 1], (
        "the crash counts against each document"
    )


def test_a_part_of_a_split_has_the_body_of_its_document() -> None:
    messages = split_message(header_of(2), encode_body(["first", "second"]), 1)
    assert [body_parts(message.body, 1) for message in messages] == [
        body_parts(encode_body([text]), 1) for text in ("first", "second")
    ]


def test_a_split_of_an_entry_without_bodies_has_none() -> None:
    assert [message.body for message in split_message(header_of(2), b"", 1)] == [b"", b""]


def test_a_body_that_does_not_fit_the_header_cannot_be_split() -> None:
    with pytest.raises(MalformedMessageError, match="the body has 1 documents, the header 2"):
        split_message(header_of(2), encode_body(["first"]), 1)
