"""Which texts go into one TEI request. Pure: no I/O, no clock; the batcher acts on it."""

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from shared.tei.client import TeiInfo

QUERY_HEADROOM = 0.1  # share of TEI's permits that indexing leaves to search queries
MAX_REQUEST_BYTES = 1_500_000  # TEI's default limit is 2,000,000; JSON escapes come on top

_FRAME_BYTES = 3  # two quotes and a comma around each text


class TextInput(msgspec.Struct, frozen=True):
    """One text to embed; `tokens` is what TEI will count, special tokens included."""

    text: str
    tokens: int

    @property
    def encoded_bytes(self) -> int:
        """Size in the request's body, but for escapes."""
        return len(self.text.encode(errors="replace")) + _FRAME_BYTES


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may hold; a single text above a limit still gets a request of its own."""

    max_inputs: int
    max_tokens: int
    max_bytes: int = MAX_REQUEST_BYTES


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one embedder may ask of one TEI."""

    request: RequestLimits
    inputs_in_flight: int
    requests_in_flight: int
    # Inputs that TEI computes at once; None if only their tokens are limited.
    batch_inputs: int | None = None

    @property
    def window_ceiling(self) -> int:
        """The most inputs in flight that these limits allow."""
        return min(self.inputs_in_flight, self.requests_in_flight * self.request.max_inputs)


def capacity_of(info: TeiInfo, max_requests: int) -> Capacity:
    """Derive the limits from /info and from the setting TEI_MAX_CONCURRENT_REQUESTS."""
    permits = info.max_concurrent_requests - int(info.max_concurrent_requests * QUERY_HEADROOM)
    inputs = permits if info.counts_inputs else permits * info.max_client_batch_size
    return Capacity(
        request=RequestLimits(
            max_inputs=min(info.max_client_batch_size, inputs), max_tokens=info.max_batch_tokens
        ),
        inputs_in_flight=inputs,
        requests_in_flight=min(max_requests, permits),
        batch_inputs=info.max_batch_requests,
    )


def in_sending_order(inputs: Sequence[TextInput]) -> list[int]:
    """Indexes into `inputs`, longest texts first.

    Neighbours in length share a request, because a CPU backend pads to the longest of a batch (1.9
    times the throughput), and the longest start first, because they finish last.
    """
    return sorted(range(len(inputs)), key=lambda index: -inputs[index].tokens)


def fitting(inputs: Sequence[TextInput], limits: RequestLimits) -> int:
    """How many of the first inputs fit one request: at least 1, if there is any."""
    tokens = size = 0
    for count, each in enumerate(inputs):
        tokens, size = tokens + each.tokens, size + each.encoded_bytes
        is_over = (
            count >= limits.max_inputs or tokens > limits.max_tokens or size > limits.max_bytes
        )
        if count and is_over:
            return count
    return len(inputs)


def middle(inputs: Sequence[TextInput]) -> int:
    """Where to cut 2 or more texts: both parts have about the same number of bytes, and neither is
    empty.
    """
    ends = list(accumulate(text.encoded_bytes for text in inputs))
    return min(range(1, len(inputs)), key=lambda cut: abs(2 * ends[cut - 1] - ends[-1]))
