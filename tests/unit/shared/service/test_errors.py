"""What Redis' answers mean, read as the client reads them."""

import pytest
from redis._parsers.base import BaseParser

from shared.service.clients import is_redis_unavailable
from shared.service.errors import is_missing_group


def answered(text: str) -> BaseException:
    error: BaseException = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    "answer",
    [
        "MISCONF Errors writing to the AOF file: No space left on device",
        "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOREPLICAS Not enough good replicas to write.",
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    ],
)
def test_a_server_that_refuses_writes_is_unavailable(answer: str) -> None:
    assert is_redis_unavailable(answered(answer))


@pytest.mark.parametrize(
    "answer", ["WRONGTYPE Operation against a key", "ERR syntax error", "BUSYGROUP exists"]
)
def test_a_command_that_is_wrong_is_not_tried_again(answer: str) -> None:
    assert not is_redis_unavailable(answered(answer))


def test_a_missing_group_is_told_by_name() -> None:
    assert is_missing_group(answered("NOGROUP No such consumer group"))
    assert not is_missing_group(answered("BUSYGROUP Consumer Group name already exists"))
