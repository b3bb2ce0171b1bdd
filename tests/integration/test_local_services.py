"""Services as child processes, with a tiny service in the place of the real ones."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.fleet import Notify
from local.pidfile import command_line
from local.ports import free_port
from local.process import StartError
from local.services import SERVICES, Services
from local.stack import Stack
from shared.service.errors import ConfigurationError
from tests.support.local_stack import bare_environ, is_alive
from tests.support.waiting import wait_until

TINY = Path(__file__).parents[1] / "support" / "tiny_service.py"


def tiny(journal: Path | None = None) -> Callable[[str], tuple[str, ...]]:
    """The command of a tiny service."""
    arguments = [str(journal)] if journal else []
    return lambda name: (sys.executable, str(TINY), name, *arguments)


def ignore(_: str) -> None:
    pass


def empty_stack(
    directory: Path, settings: dict[str, str] | None = None, notify: Notify = ignore
) -> Stack:
    """A stack without any server: these services need none."""
    return Stack(
        directory, bare_environ(**settings or {}), parts=[], notify=notify, restart_delay=0.05
    )


def rows(directory: Path) -> list[dict[str, Any]]:
    return list(json.loads((directory / "services.json").read_bytes()))


def pid_of(directory: Path, service: str, replica: int = 1) -> int:
    return next(
        int(row["pid"])
        for row in rows(directory)
        if (row["service"], row["replica"]) == (service, replica)
    )


def environment_of(url: str) -> dict[str, str]:
    with urllib.request.urlopen(f"{url}/environment") as response:
        return dict(json.load(response))


def instance_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/readyz") as response:
        return str(json.load(response)["instance"])


def sourced(path: Path) -> dict[str, str]:
    """What a shell exports after reading the file."""
    script = f"set -a; . {path}; {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        ["bash", "-c", script], check=True, capture_output=True, text=True, env={}
    )
    return dict(json.loads(done.stdout))


async def test_every_replica_runs_and_is_listed_with_its_pid_and_url(tmp_path: Path) -> None:
    async with (
        empty_stack(tmp_path) as stack,
        Services(stack, replicas={"embedder": 2}, command=tiny()),
    ):
        listed = rows(tmp_path)

        assert [(row["service"], row["replica"]) for row in listed] == [
            ("ingest", 1),
            ("chunker", 1),
            ("embedder", 1),
            ("embedder", 2),
            ("indexer", 1),
        ]
        for row in listed:
            assert f"tiny_service.py {row['service']}" in command_line(row["pid"])
            assert environment_of(row["url"])["PYTHONUNBUFFERED"] == "1"
        assert len({row["url"] for row in listed}) == 5
        for name in ("services.json", "stack.env"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600

    assert not any(is_alive(row["pid"]) for row in listed)
    assert not (tmp_path / "services.json").exists()
    assert not (tmp_path / "stack.env").exists()


async def test_a_service_with_no_replicas_is_not_started(tmp_path: Path) -> None:
    replicas = dict.fromkeys(SERVICES, 0) | {"indexer": 1}
    async with empty_stack(tmp_path) as stack, Services(stack, replicas=replicas, command=tiny()):
        assert [row["service"] for row in rows(tmp_path)] == ["indexer"]


async def test_a_shell_reads_every_value_of_stack_env_as_the_services_got_it(
    tmp_path: Path,
) -> None:
    odd = """it's "odd": $HOME `id` \\ * # é\nand a second line"""
    settings = {"WEBHOOK_SECRET": odd, "WEBHOOK_TEI_URL": "http://one:1,http://two:2"}
    async with (
        empty_stack(tmp_path, settings) as stack,
        Services(stack, command=tiny()) as services,
    ):
        read = sourced(tmp_path / "stack.env")
        urls = {row["service"]: row["url"] for row in rows(tmp_path)}

        for name in (
            "WEBHOOK_SECRET",
            "WEBHOOK_API_SECRET",
            "WEBHOOK_TEI_URL",
            "WEBHOOK_SEARCH_URL",
        ):
            assert read[name] == environment_of(urls["ingest"])[name]
        assert read["WEBHOOK_SECRET"] == odd
        assert read["WEBHOOK_SEARCH_URL"] == urls["indexer"]
        assert read["MILLSTREAM_URL"] == urls["ingest"] == services.url


async def test_a_service_that_dies_is_named_started_again_and_listed_anew(tmp_path: Path) -> None:
    lines: list[str] = []
    async with (
        empty_stack(tmp_path, notify=lines.append) as stack,
        Services(stack, replicas={"embedder": 2}, command=tiny()),
    ):
        before = rows(tmp_path)
        pid = pid_of(tmp_path, "embedder", 2)

        os.kill(pid, signal.SIGKILL)

        await wait_until(
            lambda: pid_of(tmp_path, "embedder", 2) != pid,
            description="services.json is written anew",
        )
        after = rows(tmp_path)
        assert [row["url"] for row in after] == [row["url"] for row in before]
        assert is_alive(pid_of(tmp_path, "embedder", 2))
        assert [row for row in after if row not in before] == [after[3]]
    assert lines == [
        "embedder-2 ended with signal SIGKILL; it is started again in 0.05 s",
        f"embedder-2 was started again (pid {after[3]['pid']})",
    ]


async def test_without_restarts_a_service_that_dies_is_only_named(tmp_path: Path) -> None:
    lines: list[str] = []
    stack = Stack(tmp_path, bare_environ(), parts=[], notify=lines.append, restart_delay=None)
    async with stack, Services(stack, command=tiny()):
        os.kill(pid_of(tmp_path, "chunker"), signal.SIGTERM)

        await wait_until(lambda: lines, description="the end of the service is told")
    assert lines == [
        f"chunker-1 ended with exit status 0; see {tmp_path / 'logs' / 'chunker-1.log'}"
    ]


async def test_services_stop_from_upstream_to_downstream(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with (
        empty_stack(tmp_path / "stack") as stack,
        Services(stack, replicas={"chunker": 2}, command=tiny(journal)),
    ):
        pass

    stopped = [line.split()[1] for line in journal.read_text().splitlines()]
    assert stopped == ["ingest", "chunker", "chunker", "embedder", "indexer"]


async def test_every_line_of_a_service_is_handed_on_and_kept_in_its_log(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    async with (
        empty_stack(tmp_path) as stack,
        Services(stack, command=tiny(), on_line=lambda name, line: lines.append((name, line))),
    ):
        pass

    for name in SERVICES:
        texts = [f"{name} says hello", f"{name} says goodbye"]
        assert [text for service, text in lines if service == f"{name}-1"] == texts
        assert (tmp_path / "logs" / f"{name}-1.log").read_text().splitlines() == texts


async def test_a_service_that_fails_to_start_shows_why_and_stops_the_others(tmp_path: Path) -> None:
    async with empty_stack(tmp_path, {"TINY_EMBEDDER_EXIT": "3"}) as stack:
        with pytest.raises(
            StartError, match=r"embedder-1 ended with exit status 3(.|\n)*this cannot work"
        ):
            await Services(stack, command=tiny()).__aenter__()

        assert stack.fleet.rows == []
        assert not list((tmp_path / "run").glob("*.pid"))
        assert not (tmp_path / "services.json").exists()


async def test_the_port_of_ingest_can_be_chosen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with empty_stack(tmp_path) as stack:
            with pytest.raises(
                ConfigurationError, match=f"port {port}, which was set for ingest-1, is in use"
            ):
                await Services(stack, ingest_port=port, command=tiny()).__aenter__()
    async with (
        empty_stack(tmp_path) as stack,
        Services(stack, ingest_port=port, command=tiny()) as services,
    ):
        assert services.url == f"http://127.0.0.1:{port}"


async def test_two_stacks_that_start_together_each_have_an_ingest_of_their_own(
    tmp_path: Path,
) -> None:
    default = free_port()
    late = tmp_path / "late"
    lines: list[str] = []
    settings = {"WEBHOOK_INGEST_PORT": "", "TINY_INGEST_WAIT": str(late)}
    async with contextlib.AsyncExitStack() as cleanup:
        second_stack = empty_stack(tmp_path / "second", settings, notify=lines.append)
        await cleanup.enter_async_context(second_stack)
        second = Services(second_stack, default_ingest_port=default, command=tiny())
        starting = asyncio.create_task(cleanup.enter_async_context(second))
        await wait_until(
            lambda: len(second_stack.fleet.rows) == len(SERVICES),
            description="the second has chosen its ports",
        )
        first_stack = empty_stack(tmp_path / "first", {"WEBHOOK_INGEST_PORT": ""})
        await cleanup.enter_async_context(first_stack)
        first = Services(first_stack, default_ingest_port=default, command=tiny())
        await cleanup.enter_async_context(first)
        late.touch()
        await starting

        assert first.url == f"http://127.0.0.1:{default}"
        for services, directory in (first, "first"), (second, "second"):
            files = (
                environment_of(services.url)["MILLSTREAM_URL"],
                sourced(tmp_path / directory / "stack.env"),
            )
            assert files[0] == files[1]["MILLSTREAM_URL"] == services.url
            assert (
                instance_of(services.url) == f"host:{pid_of(tmp_path / directory, 'ingest')}:tiny"
            )
    [warning] = [line for line in lines if line.startswith("WARNING")]
    assert f"port {default}, the default of ingest, is used by another process" in warning
    assert f"Ingest listens at {second.url} instead" in warning


async def test_a_default_port_is_taken_only_if_one_is_given(tmp_path: Path) -> None:
    default = free_port()
    for directory, port, setting in (
        ("default", default, ""),
        ("setting", default, "0"),
        ("none", None, ""),
    ):
        async with (
            empty_stack(tmp_path / directory, {"WEBHOOK_INGEST_PORT": setting}) as stack,
            Services(stack, default_ingest_port=port, command=tiny()) as services,
        ):
            assert (services.url == f"http://127.0.0.1:{default}") == (directory == "default")


async def test_ports_of_the_environment_are_for_the_first_replicas(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with (
        empty_stack(tmp_path, {"WEBHOOK_CHUNKER_PORT": str(port)}) as stack,
        Services(stack, replicas={"chunker": 2}, command=tiny()),
    ):
        urls = {row["replica"]: row["url"] for row in rows(tmp_path) if row["service"] == "chunker"}
        assert urls[1] == f"http://127.0.0.1:{port}"
        assert urls[2] != urls[1]
    async with empty_stack(tmp_path, {"WEBHOOK_CHUNKER_PORT": "http"}) as stack:
        with pytest.raises(
            ConfigurationError, match=r"invalid value for WEBHOOK_CHUNKER_PORT: .* found 'http'"
        ):
            await Services(stack, command=tiny()).__aenter__()


async def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    async with empty_stack(tmp_path) as stack:
        with pytest.raises(
            ConfigurationError, match="chopper is not a service: there are ingest, chunker"
        ):
            await Services(stack, replicas={"chopper": 2}, command=tiny()).__aenter__()


async def test_files_of_a_killed_parent_go_at_the_next_start(tmp_path: Path) -> None:
    for name in ("stack.env", "services.json"):
        (tmp_path / name).write_text("stale")

    async with empty_stack(tmp_path):
        assert not (tmp_path / "stack.env").exists()
        assert not (tmp_path / "services.json").exists()


async def test_a_long_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "ingest-1.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(17 * 1024 * 1024)

    async with empty_stack(tmp_path) as stack, Services(stack, command=tiny()):
        assert log.read_text().startswith("ingest says hello")
        assert log.with_suffix(".log.1").stat().st_size == 17 * 1024 * 1024
