"""The embedded stack with real servers: start, stop, crashes, durability and refusals."""

import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from local.datadir import write_private
from local.fleet import ProcessRow
from local.outside import without_credentials
from local.pidfile import command_line, descendants
from local.ports import PortBook
from local.postgres import is_postgres_ready
from local.postgres_binaries import first_barrier
from local.process import StartError
from local.redis import is_redis_ready
from local.servers import PARTS
from local.stack import Stack
from shared.service.clients import redis_command
from shared.service.errors import ConfigurationError
from tests.support.local_stack import (
    bare_environ,
    enterable_directory,
    is_alive,
    owner,
    read_line,
    running,
    running_script,
)
from tests.support.waiting import wait_until

STORES = ("redis", "postgres")


@pytest.fixture(scope="module")
def stack_directory() -> Iterator[Path]:
    """One data directory for the tests that do not care what is in it, since initdb takes a second
    or more.
    """
    with enterable_directory() as directory:
        yield directory / "stack"


def stack_at(directory: Path, *parts: str, **settings: str) -> Stack:
    return Stack(directory, bare_environ(**settings), parts=parts or STORES, restart_delay=0.05)


def row(stack: Stack, service: str) -> ProcessRow:
    return next(row for row in stack.fleet.rows if row.service == service)


async def count_rows(stack: Stack) -> int:
    """How many times this was called on the same data."""
    connection = await asyncpg.connect(stack.environment["WEBHOOK_DATABASE_URL"], timeout=5)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS calls (id serial)")
        await connection.execute("INSERT INTO calls DEFAULT VALUES")
        return int(await connection.fetchval("SELECT count(*) FROM calls"))
    finally:
        await connection.close()


async def until_ready(stack: Stack, part: str) -> None:
    async def is_ready() -> bool:
        server = row(stack, part)
        if part == "redis":
            url = urlsplit(server.url)
            return await is_redis_ready(url.port or 0, server.pid, url.password or "")
        return await is_postgres_ready(server.url)

    await wait_until(is_ready, timeout=20, description=f"{part} is ready")


@contextlib.asynccontextmanager
async def redis_of(stack: Stack) -> AsyncIterator[Redis]:
    client = redis_command(stack.environment["WEBHOOK_REDIS_URL"])
    try:
        yield client
    finally:
        await client.aclose()


async def test_data_passwords_and_ports_survive_a_stop_and_a_start(stack_directory: Path) -> None:
    async with stack_at(stack_directory) as stack, redis_of(stack) as redis:
        first = dict(stack.environment)
        calls = await count_rows(stack)
        await redis.set("kept", "yes")
        pids = [each.pid for each in stack.fleet.rows]
    assert not any(is_alive(pid) for pid in pids)

    async with stack_at(stack_directory) as stack, redis_of(stack) as redis:
        assert stack.environment == first
        assert await count_rows(stack) == calls + 1
        assert await redis.get("kept") == b"yes"


async def test_the_servers_are_set_up_to_lose_nothing(stack_directory: Path) -> None:
    async with stack_at(stack_directory) as stack, redis_of(stack) as redis:
        for name, value in {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }.items():
            assert await redis.config_get(name) == {name: value}
        connection = await asyncpg.connect(stack.environment["WEBHOOK_DATABASE_URL"], timeout=5)
        for name, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "127.0.0.1",
        }.items():
            assert await connection.fetchval(f"SHOW {name}") == value
        await connection.close()


@pytest.mark.parametrize("part", STORES)
async def test_a_server_that_is_killed_comes_back_on_its_port_with_its_data(
    stack_directory: Path, part: str
) -> None:
    lines: list[str] = []
    stack = Stack(
        stack_directory, bare_environ(), parts=STORES, notify=lines.append, restart_delay=0.05
    )
    async with stack, redis_of(stack) as redis:
        calls = await count_rows(stack)
        await redis.set("kept", "yes")
        before = row(stack, part)

        os.kill(before.pid, signal.SIGKILL)

        await wait_until(
            lambda: row(stack, part).pid != before.pid, timeout=20, description=f"{part} runs again"
        )
        assert row(stack, part).url == before.url
        await until_ready(stack, part)
        assert await count_rows(stack) == calls + 1
        assert await redis.get("kept") == b"yes"
    assert any(f"{part} ended with signal SIGKILL" in line for line in lines)


async def test_redis_asks_for_a_password_that_a_directory_of_an_older_version_gets(
    stack_directory: Path,
) -> None:
    async with stack_at(stack_directory, "redis") as stack, redis_of(stack) as redis:
        await redis.set("kept", "yes")
        first = urlsplit(stack.environment["WEBHOOK_REDIS_URL"])
    known = msgspec.json.decode((stack_directory / "secrets.json").read_bytes())
    del known["REDIS_PASSWORD"]
    write_private(stack_directory / "secrets.json", msgspec.json.encode(known))
    (stack_directory / "redis" / "redis.conf").unlink()

    async with stack_at(stack_directory, "redis") as stack, redis_of(stack) as redis:
        assert await redis.get("kept") == b"yes"
        url = urlsplit(stack.environment["WEBHOOK_REDIS_URL"])
        assert len(url.password or "") == 64
        assert url.password != first.password
        async with Redis(host="127.0.0.1", port=url.port or 0) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
        assert (stack_directory / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600


@pytest.mark.embedded_server("tei")
@pytest.mark.embedded_server("qdrant")
async def test_no_secret_is_in_the_command_line_of_a_process(stack_directory: Path) -> None:
    async with stack_at(stack_directory, *PARTS, WEBHOOK_TEI_API_KEY="t" * 32) as stack:
        known = msgspec.json.decode((stack_directory / "secrets.json").read_bytes(), type=dict)
        postgres = urlsplit(stack.environment["WEBHOOK_DATABASE_URL"]).password
        secrets = {*known.values(), postgres, stack.environment["WEBHOOK_TEI_API_KEY"]}
        assert len(secrets) == 6  # of the API, webhooks, Redis, Postgres, TEI, Qdrant
        async with aiohttp.ClientSession() as session:
            for name, path in {"TEI": "/info", "QDRANT": "/collections"}.items():
                url = stack.environment[f"WEBHOOK_{name}_URL"] + path
                async with session.get(url) as response:
                    assert response.status in {401, 403}  # the server has got its key
        pids = {pid for each in stack.fleet.rows for pid in (each.pid, *descendants(each.pid))}
        assert len(pids) > len(PARTS)
        shown = " ".join(command_line(pid) for pid in (*pids, *descendants(os.getpid())))
        assert not [secret for secret in secrets if secret and secret in shown]


async def test_a_second_stack_in_the_same_directory_is_refused(stack_directory: Path) -> None:
    async with stack_at(stack_directory, "redis") as stack:
        with pytest.raises(ConfigurationError, match="is in use by another stack"):
            await stack_at(stack_directory, "redis").__aenter__()

        assert is_alive(row(stack, "redis").pid)


PARENT = """
import asyncio, os, sys
from pathlib import Path
import asyncpg, uvloop
from local.stack import Stack
from local.postgres_binaries import first_barrier
from local.process import ChildProcess

async def main():
    async with Stack(Path(sys.argv[1]), os.environ, parts=("redis", "postgres")) as stack:
        for row in stack.fleet.rows:
            print(row.pid, flush=True)
        await asyncio.sleep(60)

if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
uvloop.run(main())
"""


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_nothing_is_left_running_when_the_parent_is_killed(
    stack_directory: Path, is_frozen: bool
) -> None:
    with running_script(PARENT, str(stack_directory)) as parent:
        pids = [int(read_line(parent)) for _ in STORES]
        processes = [*pids, *(child for pid in pids for child in descendants(pid))]
        assert len(processes) > 4  # Postgres has helpers of its own
        if is_frozen:
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)

        parent.kill()

        await wait_until(
            lambda: not any(is_alive(pid) for pid in processes),
            timeout=40,
            description="all servers are gone",
        )
    async with stack_at(stack_directory) as stack:
        assert await count_rows(stack) > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs without root then")
async def test_it_runs_without_root() -> None:
    with enterable_directory() as directory:
        os.chown(directory, 65534, 65534)
        with running_script(PARENT, str(directory / "stack"), "65534") as parent:
            pids = [int(read_line(parent)) for _ in STORES]

            assert {owner(pid) for pid in [parent.pid, *pids]} == {65534}
            parent.kill()
            await wait_until(
                lambda: not any(map(is_alive, pids)),
                timeout=20,
                description="both servers are gone",
            )


async def test_a_kill_during_initdb_is_made_good_at_the_next_start() -> None:
    with enterable_directory() as directory:
        place = directory / "stack" / "postgres"
        with running_script(PARENT, str(directory / "stack")) as parent:
            await wait_until(
                lambda: any(place.glob("initdb-*/data/base")),
                timeout=20,
                description="initdb is at work",
            )
            parent.kill()
        assert not (place / "data").exists()

        async with stack_at(directory / "stack") as stack:
            assert await count_rows(stack) == 1
            assert sorted(path.name for path in place.iterdir()) == ["data", "password"]


async def test_a_lock_file_of_postgres_with_the_pid_of_a_stranger_does_not_stop_it(
    stack_directory: Path,
) -> None:
    async with stack_at(stack_directory, "postgres"):
        pass
    lock_file = stack_directory / "postgres" / "data" / "postmaster.pid"
    owner = lock_file.parent.stat().st_uid
    with running("sleep", "60", uid=owner if os.geteuid() == 0 else None) as stranger:
        lock_file.write_text(f"{stranger.pid}\n{lock_file.parent}\n")

        async with stack_at(stack_directory, "postgres") as stack:
            assert await count_rows(stack) > 0

        assert stranger.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands Postgres to another user")
async def test_data_that_the_user_of_postgres_cannot_reach_are_kept_elsewhere(
    tmp_path: Path,
) -> None:
    assert first_barrier(tmp_path, 65534) is not None
    lines: list[str] = []
    stack = Stack(tmp_path / "stack", bare_environ(), parts=["postgres"], notify=lines.append)
    async with stack:
        calls = await count_rows(stack)
    place = (tmp_path / "stack" / "postgres").readlink()
    try:
        assert place.match("/var/tmp/millstream-*")
        assert lines == [
            f"the data of postgres are in {place}: its user cannot enter {tmp_path / 'stack'}"
        ]
        (tmp_path / "stack").rename(tmp_path / "moved")
        async with stack_at(tmp_path / "moved", "postgres") as moved:
            assert await count_rows(moved) == calls + 1
    finally:
        shutil.rmtree(place)
    with pytest.raises(ConfigurationError, match=f"were in {place}, which is gone"):
        await stack_at(tmp_path / "moved", "postgres").__aenter__()


async def test_a_server_outside_is_used_and_not_started(
    stack_directory: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    async with stack_at(stack_directory) as outside:
        redis_url = outside.environment["WEBHOOK_REDIS_URL"]
        database_url = outside.environment["WEBHOOK_DATABASE_URL"].replace(
            "postgresql:", "postgresql+asyncpg:"
        )
        environ = bare_environ(WEBHOOK_REDIS_URL=redis_url, WEBHOOK_DATABASE_URL=database_url)
        async with Stack(tmp_path, environ, parts=STORES, notify=lines.append) as stack:
            assert stack.fleet.rows == []
            assert stack.environment["WEBHOOK_REDIS_URL"] == redis_url
            assert stack.environment["WEBHOOK_DATABASE_URL"] == database_url
    assert lines[0] == f"redis is {without_credentials(redis_url)}, as WEBHOOK_REDIS_URL says"
    assert lines[1].startswith("postgres is postgresql+asyncpg://127.0.0.1:")


@pytest.mark.parametrize(
    ("part", "variable", "url"),
    [
        ("redis", "WEBHOOK_REDIS_URL", "redis://127.0.0.1:{port}/0"),
        ("postgres", "WEBHOOK_DATABASE_URL", "postgresql://app:geheim@127.0.0.1:{port}/millstream"),
        ("tei", "WEBHOOK_TEI_URL", "http://127.0.0.1:{port}"),
        ("qdrant", "WEBHOOK_QDRANT_URL", "http://127.0.0.1:{port}"),
        ("redis", "WEBHOOK_REDIS_URL", "not a url"),
    ],
)
async def test_a_server_outside_that_is_dead_is_named_at_once(
    tmp_path: Path, part: str, variable: str, url: str
) -> None:
    dead = url.format(port=PortBook(tmp_path / "ports.json").take("dead"))

    with pytest.raises(
        ConfigurationError, match=f"{variable} is set to .*, but nothing there can be used"
    ) as error:
        await stack_at(tmp_path / "stack", part, **{variable: dead}).__aenter__()

    assert "geheim" not in str(error.value)


async def test_secrets_are_made_once_and_those_of_the_environment_win(tmp_path: Path) -> None:
    async with Stack(tmp_path, bare_environ(), parts=[]) as stack:
        made = dict(stack.environment)
    async with Stack(
        tmp_path, bare_environ(WEBHOOK_SECRET="mine", WEBHOOK_API_SECRET=""), parts=[]
    ) as stack:
        assert stack.environment == {
            "WEBHOOK_API_SECRET": made["WEBHOOK_API_SECRET"],
            "WEBHOOK_SECRET": "mine",
        }
    assert all(len(secret) == 64 for secret in made.values())


async def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    manifest = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("nonsense\n")

    with pytest.raises(
        StartError, match=r"redis ended with exit status 1 before it was ready(.|\n)*AOF manifest"
    ):
        await stack_at(tmp_path, "redis").__aenter__()

    assert not list((tmp_path / "run").glob("*.pid"))


@pytest.mark.embedded_server("tei")
@pytest.mark.embedded_server("qdrant")
async def test_all_four_servers_serve_this_stack_and_can_be_the_outside_of_another(
    stack_directory: Path, tmp_path: Path
) -> None:
    async with Stack(stack_directory, bare_environ(WEBHOOK_TEI_API_KEY="a key")) as stack:
        assert [each.service for each in stack.fleet.rows] == ["redis", "postgres", "tei", "qdrant"]

        async with Stack(tmp_path, bare_environ(**stack.environment)) as other:
            assert other.fleet.rows == []
            assert other.environment == stack.environment

        for key, variable in {
            "WEBHOOK_TEI_API_KEY": "WEBHOOK_TEI_URL",
            "WEBHOOK_QDRANT_API_KEY": "WEBHOOK_QDRANT_URL",
        }.items():
            with pytest.raises(ConfigurationError, match=f"{variable} .*40[13]"):
                await Stack(
                    tmp_path, bare_environ(**stack.environment | {key: "wrong"})
                ).__aenter__()
