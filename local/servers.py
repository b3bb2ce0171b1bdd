"""The four servers of the embedded stack, as programs to run."""

import sys
from collections.abc import Mapping
from pathlib import Path

from local.postgres import postgres_program
from local.process import Command
from local.program import LOOPBACK, Program, http_probe
from local.redis import redis_program

TEI_KEY = "WEBHOOK_TEI_API_KEY"
QDRANT_KEY = "WEBHOOK_QDRANT_API_KEY"

# In the order of starting; stopped in reverse. The value says which setting names a server outside instead.
URL_VARIABLES = {
    "redis": "WEBHOOK_REDIS_URL",
    "postgres": "WEBHOOK_DATABASE_URL",
    "tei": "WEBHOOK_TEI_URL",
    "qdrant": "WEBHOOK_QDRANT_URL",
}
PARTS = tuple(URL_VARIABLES)

_START_TIMEOUT = 180.0  # seconds; the first start of TEI converts the model
_STOP_GRACE = 30.0  # seconds; both answer for 10 s what they have begun, and Qdrant then flushes


async def server_program(part: str, data_dir: Path, port: int, environ: Mapping[str, str]) -> Program:
    """The embedded server of one of PARTS. Raises ConfigurationError if there is nothing to run, with the remedy."""
    if part == "redis":
        return redis_program(data_dir, port, environ.get("PATH"))
    if part == "postgres":
        return await postgres_program(data_dir, port, environ.get("PATH"))
    if part == "tei":
        return _tei(data_dir, port, environ)
    return _qdrant(data_dir, port, environ)


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this installation; -P keeps it from taking one of the working directory."""
    return (sys.executable, "-P", "-m", module, *arguments)


def _tei(data_dir: Path, port: int, environ: Mapping[str, str]) -> Program:
    argv = python_module("local.tei", "--port", str(port), "--host", LOOPBACK, "--cache-dir", str(data_dir / "tei"))
    if key := environ.get(TEI_KEY):
        argv += ("--api-key", key)
    return _http_server("tei", argv, port, "/health", data_dir, environ)


def _qdrant(data_dir: Path, port: int, environ: Mapping[str, str]) -> Program:
    argv = python_module(
        "local.qdrant", "--port", str(port), "--host", LOOPBACK, "--data-dir", str(data_dir / "qdrant")
    )
    argv += ("--api-key", environ[QDRANT_KEY])
    return _http_server("qdrant", argv, port, "/healthz", data_dir, environ)


def _http_server(
    part: str, argv: tuple[str, ...], port: int, ready_path: str, data_dir: Path, env: Mapping[str, str]
) -> Program:
    url = f"http://{LOOPBACK}:{port}"
    return Program(
        service=part,
        url=url,
        command=Command(
            name=part,
            argv=argv,
            env={**env, "PYTHONUNBUFFERED": "1"},
            log_path=data_dir / "logs" / f"{part}.log",
            stop_grace=_STOP_GRACE,
        ),
        is_ready=http_probe(url + ready_path),
        start_timeout=_START_TIMEOUT,
    )
