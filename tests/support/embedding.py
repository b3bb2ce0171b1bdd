"""An embedder's servers over any client, without asking it who it is."""

from collections.abc import Callable

from embedder.isolation import EmbeddingCall, Embeds, Practice
from embedder.packing import Capacity
from embedder.servers import Common, Introduce, Server, Servers
from shared.runtime.faults.breaker import Pauses
from shared.service.metrics import Metrics
from shared.tei.client import Backoff


def common_of(
    dimension: int, observe: Callable[[EmbeddingCall], None] = lambda _: None, backoff: Backoff | None = None
) -> Common:
    """What servers share, with a short backoff and short pauses of their breakers."""
    practice = Practice(dimension=dimension, backoff=backoff or Backoff(initial_s=0.01))
    pauses = Pauses(first=0.001, longest=0.002)
    return Common(practice=practice, metrics=Metrics(), observe=observe, pauses=pauses)


def one_server(client: Embeds, capacity: Capacity, common: Common) -> Servers:
    """A single server that takes what `capacity` says."""
    return Servers([Server("tei", client, always(capacity), common)], common.practice.dimension)


def in_use(servers: Servers) -> int:
    """Inputs in flight at all of them."""
    return sum(permits.in_use for permits in servers.permits)


def always(capacity: Capacity) -> Introduce:
    """An introduction that needs no server."""

    async def introduce() -> Capacity:
        return capacity

    return introduce
