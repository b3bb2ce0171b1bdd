"""Packing: every text once, within the limits, neighbours in length together."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.sending.packing import (
    RequestLimits,
    TextInput,
    capacity_of,
    fitting,
    in_sending_order,
    middle,
)
from shared.tei.client import TeiInfo

texts = st.lists(st.builds(TextInput, st.text(max_size=60), st.integers(1, 600)), max_size=120)
limits = st.builds(
    RequestLimits,
    max_inputs=st.integers(1, 40),
    max_tokens=st.integers(1, 2000),
    max_bytes=st.integers(1, 500),
)


def info(version: str = "1.9.3", *, permits: int = 512, batch: int = 32) -> TeiInfo:
    return TeiInfo(
        model_id="m",
        version=version,
        max_input_length=512,
        max_batch_tokens=16_384,
        max_client_batch_size=batch,
        max_concurrent_requests=permits,
    )


def pack(inputs: list[TextInput], limits: RequestLimits) -> list[list[int]]:
    """All requests, one after the other, as indexes into `inputs`."""
    order = in_sending_order(inputs)
    requests = []
    while order:
        count = fitting([inputs[index] for index in order], limits)
        requests.append(order[:count])
        order = order[count:]
    return requests


@settings(deadline=None)
@given(texts, limits)
def test_every_text_is_in_exactly_one_request(
    inputs: list[TextInput], limits: RequestLimits
) -> None:
    assert sorted(index for request in pack(inputs, limits) for index in request) == list(
        range(len(inputs))
    )


@settings(deadline=None)
@given(texts, limits)
def test_a_request_keeps_all_limits_or_is_a_single_text(
    inputs: list[TextInput], limits: RequestLimits
) -> None:
    for request in pack(inputs, limits):
        assert 1 <= len(request) <= limits.max_inputs
        if len(request) > 1:
            assert sum(inputs[index].tokens for index in request) <= limits.max_tokens
            assert sum(inputs[index].encoded_bytes for index in request) <= limits.max_bytes


@settings(deadline=None)
@given(texts, limits)
def test_texts_are_sent_longest_first(inputs: list[TextInput], limits: RequestLimits) -> None:
    order = [inputs[index].tokens for request in pack(inputs, limits) for index in request]
    assert order == sorted(order, reverse=True)


@settings(deadline=None)
@given(texts, limits)
def test_no_two_neighbouring_requests_would_fit_into_one(
    inputs: list[TextInput], limits: RequestLimits
) -> None:
    requests = pack(inputs, limits)
    for first, second in pairwise(requests):
        joined = [inputs[index] for index in (*first, second[0])]
        assert (
            len(joined) > limits.max_inputs
            or sum(text.tokens for text in joined) > limits.max_tokens
            or sum(text.encoded_bytes for text in joined) > limits.max_bytes
        )


def test_a_text_above_a_budget_goes_alone() -> None:
    inputs = [
        TextInput("small", 10),
        TextInput("huge", 5000),
        TextInput("x" * 900, 10),
        TextInput("tiny", 5),
    ]
    limits = RequestLimits(max_inputs=32, max_tokens=1000, max_bytes=500)
    assert pack(inputs, limits) == [[1], [0], [2], [3]]


@settings(deadline=None)
@given(st.lists(st.builds(TextInput, st.text(max_size=2000), st.just(1)), min_size=2, max_size=64))
def test_a_cut_leaves_both_parts_smaller_in_bytes_than_the_whole(inputs: list[TextInput]) -> None:
    cut = middle(inputs)
    assert 1 <= cut < len(inputs)
    left = sum(text.encoded_bytes for text in inputs[:cut])
    right = sum(text.encoded_bytes for text in inputs[cut:])
    assert abs(left - right) <= max(text.encoded_bytes for text in inputs)


def test_a_lone_surrogate_can_be_measured() -> None:
    assert TextInput("a\ud800", 3).encoded_bytes > 2


@pytest.mark.parametrize(
    ("version", "permits", "expected"),
    [
        ("1.9.0", 512, (32, 461, 80)),  # permits count inputs
        ("1.10.1", 512, (32, 461, 80)),
        ("1.8.3", 512, (32, 461 * 32, 80)),  # permits count requests
        ("1.8.3", 10, (32, 9 * 32, 9)),
        ("1.9.3", 20, (18, 18, 18)),  # fewer permits than a client batch
        ("1.9.3", 1, (1, 1, 1)),
        # A tenth of so few is none: a query that finds no room asks again.
        ("1.8.3", 4, (32, 4 * 32, 4)),
        ("nightly", 100, (32, 90, 80)),
    ],
)
def test_capacity_follows_what_a_permit_means_and_leaves_room_for_queries(
    version: str, permits: int, expected: tuple[int, int, int]
) -> None:
    capacity = capacity_of(info(version, permits=permits), max_requests=80)
    assert (
        capacity.request.max_inputs,
        capacity.inputs_in_flight,
        capacity.requests_in_flight,
    ) == expected
    assert capacity.request.max_tokens == 16_384
