"""Commands of Docker and Compose. A failure raises CommandError with the end of the output."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SHOWN_LINES = 30


class UnavailableError(Exception):
    """Something that this test needs is not on this machine; the message says what."""


class CommandError(Exception):
    """A command ended with another status than 0."""


def compose_command() -> tuple[str, ...]:
    """`docker compose` or `docker-compose`. Raises UnavailableError without engine or Compose."""
    if shutil.which("docker") is None:
        raise UnavailableError("there is no Docker here: the command `docker` was not found")
    if _status("docker", "info") != 0:
        raise UnavailableError("there is no Docker engine here: `docker info` fails")
    if _status("docker", "compose", "version") == 0:
        return ("docker", "compose")
    if shutil.which("docker-compose") is None:
        raise UnavailableError(
            "there is no Compose here: neither `docker compose` nor `docker-compose` works"
        )
    return ("docker-compose",)


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Run `docker` and return what it printed."""
    return run(["docker", *arguments], stdin=stdin)


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    stdin: bytes | None = None,
    log: Path | None = None,
) -> str:
    """Run a command and return its standard output; all output goes to the end of `log` too."""
    done = subprocess.run(argv, env=dict(environ), input=stdin, capture_output=True, check=False)
    output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(argv)}\n{output}{errors}")
    if done.returncode != 0:
        end = "\n".join((output + errors).splitlines()[-_SHOWN_LINES:])
        raise CommandError(f"{' '.join(argv)} ended with status {done.returncode}:\n{end}")
    return output


def inspect(container: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    [found] = json.loads(docker("inspect", container))
    return dict(found)


def _status(*argv: str) -> int:
    return subprocess.run(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
