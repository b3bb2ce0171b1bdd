import asyncio

import msgspec
import pytest
from prometheus_client import generate_latest

from local.tei.contract import EmbedRequest, ErrorType, Limits, Side, TeiError, check_prompt_name
from local.tei.counters import Counters, Permits


@pytest.mark.parametrize(
    ("error_type", "status"),
    [
        ("Overloaded", 429),
        ("Backend", 424),
        ("Tokenizer", 422),
        ("Validation", 422),
        ("Empty", 400),
        ("Unhealthy", 503),
    ],
)
def test_each_type_of_error_has_the_status_of_tei(error_type: str, status: int) -> None:
    assert ErrorType(error_type).status == status


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "Right"),
        ({"truncate": None}, "Right"),
        ({"truncate": True, "truncation_direction": "Left"}, "Left"),
        ({"truncate": False}, None),
    ],
)
def test_truncation_is_on_unless_it_is_switched_off(
    options: dict[str, object], expected: Side | None
) -> None:
    assert msgspec.convert({"inputs": "text", **options}, EmbedRequest).truncation == expected


@pytest.mark.parametrize(("size", "error_type"), [(0, ErrorType.EMPTY), (33, ErrorType.VALIDATION)])
def test_a_batch_of_the_wrong_size_is_refused(size: int, error_type: ErrorType) -> None:
    with pytest.raises(TeiError) as caught:
        Limits().check_batch(size)
    assert caught.value.error_type is error_type


@pytest.mark.parametrize("size", [1, 32])
def test_a_batch_within_the_limit_is_accepted(size: int) -> None:
    Limits().check_batch(size)


def test_a_prompt_name_is_refused_because_the_model_has_no_prompts() -> None:
    check_prompt_name(None)
    with pytest.raises(TeiError, match="`query` but no prompts were found"):
        check_prompt_name("query")


def test_permits_are_taken_all_or_none() -> None:
    permits = Permits(4, Counters())
    with permits.take(3):
        with pytest.raises(TeiError, match="Model is overloaded"), permits.take(2):
            pass
        with permits.take(1):
            pass
    with permits.take(4):
        pass


async def test_permits_come_back_from_a_request_that_is_cancelled() -> None:
    permits = Permits(1, Counters())

    async def hold() -> None:
        with permits.take(1):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    with pytest.raises(TeiError), permits.take(1):
        pass
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with permits.take(1):
        pass


def test_every_series_is_exposed_before_it_counts_anything() -> None:
    exposed = generate_latest(Counters().registry).decode()
    assert 'te_request_failure_total{err="overloaded"} 0.0' in exposed
    assert 'te_request_count_total{method="batch"} 0.0' in exposed
    assert "te_embed_count_total 0.0" in exposed
