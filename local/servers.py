"""The four servers of the embedded stack, as programs to run."""

import sys
from collections.abc import Mapping
from pathlib import Path

from local.postgres import postgres_program
from local.process import Command, Probe
from local.program import LOOPBACK, Program, http_probe
from local.redis import redis_program

TEI_KEY = "WEBHOOK_TEI_API_KEY"
QDRANT_KEY = "WEBHOOK_QDRANT_API_KEY"

# In the order of starting; they are stopped in reverse. The value is the setting that names an
# outside server to use instead.
URL_VARIABLES = {
    "redis": "WEBHOOK_REDIS_URL",
    "postgres": "WEBHOOK_DATABASE_URL",
    "tei": "WEBHOOK_TEI_URL",
    "qdrant": "WEBHOOK_QDRANT_URL",
}
PARTS = tuple(URL_VARIABLES)

_START_TIMEOUT = 180.0  # seconds; the first start of TEI converts the model
# Seconds; both finish their requests for up to 10 s, and Qdrant then flushes.
_STOP_GRACE = 30.0


async def server_program(
    part: str, data_dir: Path, port: int, environ: Mapping[str, str]
) -> Program:
    """The embedded server of one of PARTS.

    Raises ConfigurationError, with the remedy, if there is no binary to run.
    """
    if part == "redis":
        return redis_program(data_dir, port, environ.get("PATH"))
    if part == "postgres":
        return await postgres_program(data_dir, port, environ.get("PATH"))
    if part == "tei":
        return _tei(data_dir, port, environ)
    return _qdrant(data_dir, port, environ)


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this installation.

    -P keeps Python from importing one of the working directory instead.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def http_server(
    part: str, argv: tuple[str, ...], data_dir: Path, port: int, environ: Mapping[str, str]
) -> Program:
    """A TEI or Qdrant that `argv` runs on this port.

    Its key is in the environment: every user can read a command line.
    """
    is_ready = _probe(part, port, environ)
    return Program(
        service=part,
        port=port,
        url=_url(port),
        command=Command(
            name=part,
            argv=argv,
            env={**environ, "PYTHONUNBUFFERED": "1"},
            log_path=data_dir / "logs" / f"{part}.log",
            stop_grace=_STOP_GRACE,
        ),
        is_ready=lambda _: is_ready(),
        start_timeout=_START_TIMEOUT,
    )


def _tei(data_dir: Path, port: int, environ: Mapping[str, str]) -> Program:
    argv = python_module("local.tei", "--port", str(port), "--host", LOOPBACK)
    argv += ("--cache-dir", str(data_dir / "tei"))
    return http_server("tei", argv, data_dir, port, environ)


def _qdrant(data_dir: Path, port: int, environ: Mapping[str, str]) -> Program:
    argv = python_module("local.qdrant", "--port", str(port), "--host", LOOPBACK)
    argv += ("--data-dir", str(data_dir / "qdrant"))
    return http_server("qdrant", argv, data_dir, port, environ)


def _probe(part: str, port: int, environ: Mapping[str, str]) -> Probe:
    if part == "tei":
        return http_probe(f"{_url(port)}/health")
    # Not an open route: the Qdrant of another stack, which took the port first, refuses this key.
    return http_probe(f"{_url(port)}/collections", {"api-key": environ.get(QDRANT_KEY, "")})


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
