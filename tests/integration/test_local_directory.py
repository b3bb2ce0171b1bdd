"""What a stack keeps in its data directory: the lock, private files, secrets, ports, logs."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from local.datadir import create, exclusive, persistent_secrets, write_private
from local.logtail import LogTail
from local.ports import PortBook, is_free
from shared.service.errors import ConfigurationError
from tests.support.local_stack import read_line, running_script
from tests.support.waiting import wait_until

HOLDER = """
import sys
from pathlib import Path
from local.datadir import exclusive

with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_has_one_owner_until_that_process_dies(tmp_path: Path) -> None:
    with running_script(HOLDER, str(tmp_path)) as holder:
        assert read_line(holder) == "held"

        with (
            pytest.raises(ConfigurationError, match=f"in use by another stack .pid {holder.pid}"),
            exclusive(tmp_path),
        ):
            pass

    with exclusive(tmp_path):
        pass


def test_others_may_pass_through_a_new_directory_but_not_list_it(tmp_path: Path) -> None:
    create(tmp_path / "new" / "stack")

    assert stat.S_IMODE((tmp_path / "new" / "stack").stat().st_mode) == 0o711


def test_a_private_file_is_replaced_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "stack.env"

    write_private(path, b"old and longer")
    write_private(path, b"new")

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_stay_the_same_and_missing_ones_are_added(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = persistent_secrets(path, ["A"])

    second = persistent_secrets(path, ["A", "B"])

    assert second["A"] == first["A"]
    assert len(second["B"]) == 64
    assert second["A"] != second["B"]
    assert persistent_secrets(path, ["A", "B"]) == second


def test_a_name_gets_the_same_port_again(tmp_path: Path) -> None:
    port = PortBook(tmp_path / "ports.json").take("redis")

    assert PortBook(tmp_path / "ports.json").take("redis") == port


def test_two_names_never_get_the_same_port(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")

    ports = [book.take(f"embedder-{replica}", preferred=20_123) for replica in range(20)]

    assert len(set(ports)) == 20


def test_a_port_that_is_taken_gives_way_to_a_free_one(tmp_path: Path) -> None:
    port = PortBook(tmp_path / "ports.json").take("redis")
    with socket.create_server(("127.0.0.1", port)):
        other = PortBook(tmp_path / "ports.json").take("redis", preferred=port)

        assert other != port
        assert is_free(other)
        assert not is_free(port)


def test_a_port_that_was_set_does_not_give_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(
            ConfigurationError, match=f"port {port}, which was set for ingest-1, is in use"
        ):
            PortBook(tmp_path / "ports.json").take_exactly("ingest-1", port)


def test_a_damaged_port_book_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_bytes(b"[")

    assert PortBook(tmp_path / "ports.json").take("redis") > 0


async def test_a_log_is_followed_line_by_line_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "ingest-1.log"
    path.write_text("before\n")
    lines: list[str] = []
    tail = LogTail(path, lines.append)
    following = asyncio.create_task(tail.follow())

    with path.open("ab") as log:
        log.write(b"first\nsec")
        log.flush()
        await wait_until(lambda: lines == ["first"], description="the finished line is there")
        log.write("ond ü\nlast".encode())
        log.flush()
        await wait_until(
            lambda: lines == ["first", "second ü"], description="the pieces are one line"
        )
    following.cancel()
    tail.finish()

    assert lines == ["first", "second ü", "last"]
