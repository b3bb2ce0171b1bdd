"""The data directory of a stack: one owner at a time, private files, persistent random secrets."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from shared.service.errors import ConfigurationError

_SECRET_BYTES = 32


def create(data_dir: Path) -> None:
    """Make the directory if it is missing.

    Other users may pass through it (Postgres is another user), but not list it.
    """
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True)
        data_dir.chmod(0o711)


@contextlib.contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the directory for this process; the kernel releases it however the process ends.

    Raises ConfigurationError if another process holds it.
    """
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise ConfigurationError(
            f"{data_dir} belongs to another user: "
            "run as that user, or choose another data directory"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode().strip() or "unknown"
        os.close(descriptor)
        raise ConfigurationError(
            f"{data_dir} is in use by another stack (pid {holder}): "
            "stop that stack, or choose another data directory"
        ) from None
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably; only the owner can read it, at any moment."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def persistent_secrets(path: Path, names: Collection[str]) -> dict[str, str]:
    """A random secret of 64 hexadecimal digits for each name.

    Those in the file are returned; new ones are added to it for names that it lacks.
    """
    known: dict[str, str] = (
        msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
    )
    missing = {name: secrets.token_hex(_SECRET_BYTES) for name in names if name not in known}
    if missing:
        write_private(path, msgspec.json.encode(known | missing))
    return {name: (known | missing)[name] for name in names}
