"""Free TCP ports on the loopback interface, the same ones again when the same stack starts again."""

import contextlib
import random
import socket
from collections.abc import Collection
from pathlib import Path

import msgspec

from local.datadir import write_private
from shared.service.errors import ConfigurationError

# Below the ports that kernels give to outgoing connections (Linux from 32768, macOS from 49152). A port from there can
# be taken by any connection while a server restarts; a client that retries can even connect to itself on it.
_RANGE = range(20_000, 32_768)
_ATTEMPTS = 50

_LOOPBACK = "127.0.0.1"


class PortBook:
    """Gives a port to a name, never one port to two names, and remembers it in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remembered = _read(path)
        self._taken: set[int] = set()

    def take(self, name: str, preferred: int | None = None) -> int:
        """A free port: `preferred` if it can be had, else the one `name` had before, else a new one.

        Between this call and the server's bind another process may take it; the server then fails to start.
        """
        remembered = self._remembered.get(name)
        for port in (preferred, remembered):
            if port is not None and port not in self._taken and is_free(port):
                return self._give(name, port)
        return self._give(name, self._new())

    def take_exactly(self, name: str, port: int) -> int:
        """`port` itself. Raises ConfigurationError if it is not free."""
        if port in self._taken or not is_free(port):
            raise ConfigurationError(
                f"port {port}, which was set for {name}, is taken: stop what uses it, or set another"
            )
        return self._give(name, port)

    def _give(self, name: str, port: int) -> int:
        self._taken.add(port)
        if self._remembered.get(name) != port:
            self._remembered[name] = port
            write_private(self._path, msgspec.json.encode(self._remembered))
        return port

    def _new(self) -> int:
        return free_port(unusable=self._taken | set(self._remembered.values()))


def free_port(unusable: Collection[int] = ()) -> int:
    """Any port of the loopback interface that nothing listens on; if it can be, none that outgoing connections get."""
    for _ in range(_ATTEMPTS):
        port = random.choice(_RANGE)  # noqa: S311 - spreads stacks that start at the same time
        if port not in unusable and is_free(port):
            return port
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT of the server before do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
        return True


def _read(path: Path) -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):  # only a preference: start afresh
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    return {}
