"""An embedder's servers over any client, without a handshake and with a fixed window."""

from collections.abc import Callable

import msgspec

from embedder.sending.isolation import EmbeddingCall, Embeds, SendingRules
from embedder.sending.packing import Capacity
from embedder.sending.servers import Handshake, Server, Servers, Shared
from embedder.sending.window import Answer
from shared.runtime.faults.breaker import Pauses
from shared.service.metrics import Metrics
from shared.tei.client import Backoff


class FixedWindow(msgspec.Struct, frozen=True):
    """All that a server may be sent, from the beginning."""

    inputs: int
    request_inputs: int
    pause_s: float = 0.0

    def answered(self, answer: Answer) -> None:
        pass

    def refused(self, now: float, duration_s: float) -> None:
        pass

    def failed(self, now: float, duration_s: float) -> None:
        pass


def fixed_window(capacity: Capacity) -> FixedWindow:
    return FixedWindow(capacity.window_ceiling, capacity.request.max_inputs)


def shared_of(
    dimension: int,
    observe: Callable[[EmbeddingCall], None] = lambda _: None,
    backoff: Backoff | None = None,
) -> Shared:
    """What servers share, with short pauses and a fixed window."""
    rules = SendingRules(dimension=dimension, backoff=backoff or Backoff(initial_s=0.01))
    pauses = Pauses(first=0.001, longest=0.002)
    return Shared(
        rules=rules, metrics=Metrics(), observe=observe, pauses=pauses, window_of=fixed_window
    )


def one_server(client: Embeds, capacity: Capacity, shared: Shared) -> Servers:
    """A single server that takes what `capacity` says."""
    server = Server("tei", client, always(capacity), shared)
    return Servers([server], shared.rules.dimension)


def in_use(servers: Servers) -> int:
    """Inputs in flight at all of them."""
    return sum(permits.in_use for permits in servers.permits)


def always(capacity: Capacity) -> Handshake:
    """A handshake that needs no server."""

    async def handshake() -> Capacity:
        return capacity

    return handshake
