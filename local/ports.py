"""Free TCP ports on the loopback interface; a stack that starts again gets the same ones again."""

import contextlib
import random
import socket
from collections.abc import Collection
from pathlib import Path

import msgspec

from local.datadir import write_private
from shared.service.errors import ConfigurationError

# Below the ports that kernels give to outgoing connections (Linux from 32768, macOS from 49152).
# A port from there can be taken by any connection while a server restarts; a client that retries
# can even connect to itself on it.
FREE_RANGE = range(20_000, 32_768)
_ATTEMPTS = 50

_LOOPBACK = "127.0.0.1"


class PortBook:
    """Gives each name a port of its own, and remembers it in a file for the next start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remembered = _read(path)
        self._given: dict[str, int] = {}
        self._lost: set[int] = set()

    def take(self, name: str, preferred: int | None = None) -> int:
        """A free port: `preferred` if possible, else the one `name` had before, else a new one.

        A name that has a port from this book gets the same again. Between this call and the
        server's bind another process may take the port: call `give_up` then, and take another.
        """
        if name in self._given:
            return self._given[name]
        for port in (preferred, self._remembered.get(name)):
            if port is not None and self._is_available(port):
                return self._give(name, port)
        return self._give(name, self._new())

    def take_exactly(self, name: str, port: int) -> int:
        """`port` itself. Raises ConfigurationError if it is not free."""
        if self._given.get(name) == port:
            return port
        if not self._is_available(port):
            raise ConfigurationError(
                f"port {port}, which was set for {name}, is in use: "
                "stop the process that uses it, or set another port"
            )
        return self._give(name, port)

    def give_up(self, name: str) -> None:
        """Take the port back from `name`, and give it to no name any more."""
        self._lost.add(self._given.pop(name))

    def _is_available(self, port: int) -> bool:
        return port not in self._lost and port not in self._given.values() and is_free(port)

    def _give(self, name: str, port: int) -> int:
        self._given[name] = port
        if self._remembered.get(name) != port:
            self._remembered[name] = port
            write_private(self._path, msgspec.json.encode(self._remembered))
        return port

    def _new(self) -> int:
        return free_port(unusable={*self._given.values(), *self._remembered.values(), *self._lost})


def free_port(unusable: Collection[int] = ()) -> int:
    """A port of the loopback interface that nothing listens on, if possible from FREE_RANGE."""
    for _ in range(_ATTEMPTS):
        port = random.choice(FREE_RANGE)  # noqa: S311 - spreads stacks that start at the same time
        if port not in unusable and is_free(port):
            return port
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT of an earlier server do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
        return True


def _read(path: Path) -> dict[str, int]:
    # The file holds preferences only: a missing or damaged one counts as empty.
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    return {}
