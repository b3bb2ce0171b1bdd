"""One deployment of compose.yaml: project name, secrets and ports of its own, down at the end."""

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.compose.engine import docker, inspect, run
from tests.compose.images import ROOT, build_environment, own_image
from tests.support.waiting import block_until

PROCESSES = ("ingest", "chunker", "embedder", "indexer", "search")
SERVERS = ("redis", "postgres", "qdrant", "tei", "proxy")
_SECRETS = (
    "WEBHOOK_API_SECRET",
    "WEBHOOK_SECRET",
    "WEBHOOK_QDRANT_API_KEY",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
)
_PORTS = ("INGEST_PORT", "REDIS_PORT", "PROXY_HTTP_PORT", "PROXY_HTTPS_PORT")
_PAUSE = 0.5  # seconds between two looks
_KILL = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGKILL)"


class Deployment:
    """Containers of one Compose project."""

    def __init__(self, compose: Sequence[str], log: Path, env_file: Path) -> None:
        self._project = f"millstream-test-{secrets.token_hex(3)}"
        # An env file of our own: that of the checkout, if there is one, is another deployment's.
        project = ("--file", str(ROOT / "compose.yaml"), "--project-name", self._project)
        self._argv = (*compose, *project, "--env-file", str(env_file), "--profile", "proxy")
        self._log = log
        self.secrets = {name: secrets.token_hex(32) for name in _SECRETS}
        self.ports = {name: free_port() for name in _PORTS}
        ports = {name: str(port) for name, port in self.ports.items()}
        self._environ = _clean_environ() | build_environment() | self.secrets | ports
        env_file.touch()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['INGEST_PORT']}"

    def compose(self, *arguments: str) -> str:
        return run([*self._argv, *arguments], environ=self._environ, log=self._log)

    def containers(self, service: str | None = None) -> list[str]:
        """Ids of the running containers, of one service or of all."""
        return self._list(["ps"], service)

    def wait_until_healthy(self, services: Sequence[str], *, timeout: float = 300.0) -> None:
        """Wait until every container of these services is healthy."""

        def are_healthy() -> bool:
            ids = [each for service in services for each in self.containers(service)]
            return len(ids) >= len(services) and all(health(each) == "healthy" for each in ids)

        wait_for(are_healthy, timeout=timeout, description=f"{', '.join(services)} to be healthy")

    def restart(self, service: str) -> float:
        """Restart a service and wait until it is healthy. Returns the seconds that Compose took."""
        started = time.monotonic()
        self.compose("restart", service)
        seconds = time.monotonic() - started
        self.wait_until_healthy([service])
        return seconds

    def kill(self, service: str) -> float:
        """Send SIGKILL to the server from outside its container, as the kernel would.

        Returns the seconds until Docker has started it again and it is healthy.
        """
        [container] = self.containers(service)
        state = inspect(container)["State"]
        pid, started_at = state["Pid"], state["StartedAt"]
        started = time.monotonic()
        # Docker takes `docker kill` for a stop by hand, and `unless-stopped` then starts nothing.
        rights = ("--pid", "host", "--user", "0", "--cap-add", "KILL")
        docker("run", "--rm", *rights, own_image(), "python", "-c", _KILL, str(pid))
        wait_for(
            lambda: inspect(container)["State"]["StartedAt"] != started_at,
            timeout=60.0, description=f"{service} to be started again",
        )  # fmt: skip
        self.wait_until_healthy([service])
        return time.monotonic() - started

    def execute(self, service: str, *argv: str) -> str:
        return self.compose("exec", "-T", service, *argv)

    def memory(self) -> dict[str, float]:
        """MiB that each service's containers use, in sum."""
        lines = docker(
            "stats", "--no-stream", "--format", "{{json .}}", *self.containers()
        ).splitlines()
        used: dict[str, float] = {}
        for row in map(json.loads, lines):
            service = inspect(row["ID"])["Config"]["Labels"]["com.docker.compose.service"]
            used[service] = used.get(service, 0.0) + mebibytes(row["MemUsage"].partition("/")[0])
        return used

    def restart_counts(self) -> dict[str, int]:
        """How often Docker started each container again by itself."""
        found = [inspect(each) for each in self.containers()]
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: each["RestartCount"]
            for each in found
        }

    def down(self) -> list[str]:
        """Remove containers, networks and volumes; returns what is left, which is nothing."""
        self.compose("logs", "--no-color")
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")
        containers = self._list(["ps", "--all"], None)
        return [
            *containers,
            *self._list(["volume", "ls"], None),
            *self._list(["network", "ls"], None),
        ]

    def _list(self, command: Sequence[str], service: str | None) -> list[str]:
        labels = [f"com.docker.compose.project={self._project}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return docker(*command, "--quiet", *filters).split()


@contextlib.contextmanager
def deployed(compose: Sequence[str], directory: Path) -> Iterator[Deployment]:
    """A deployment that is not started yet, and is down after the block whatever happened."""
    deployment = Deployment(compose, directory / "compose.log", directory / "empty.env")
    try:
        yield deployment
    finally:
        left = deployment.down()
        assert not left, f"left behind: {left}"


def health(container: str) -> str:
    return str(inspect(container)["State"].get("Health", {}).get("Status", "none"))


def wait_for(predicate: Callable[[], object], *, timeout: float, description: str) -> None:
    """`block_until` with pauses: each look starts a process."""

    def look() -> bool:
        if predicate():
            return True
        time.sleep(_PAUSE)
        return False

    block_until(look, timeout=timeout, description=description)


def mebibytes(text: str) -> float:
    """Read a size as `docker stats` prints it: `76.5MiB`."""
    match = re.fullmatch(r"\s*([\d.]+)([KMG]?i?B)\s*", text)
    assert match, text
    return float(match[1]) * {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 1024.0}[match[2]]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _clean_environ() -> dict[str, str]:
    """This process's environment without variables that compose.yaml reads."""
    lines: list[Any] = re.findall(
        r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    return {name: value for name, value in os.environ.items() if name not in lines}
