"""Each of our services with the command, environment and health check of compose.yaml.

Only addresses and ports differ. Without a Docker engine: `make compose-test` has the containers.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.ports import free_port
from tests.support.local_stack import bare_environ
from tests.support.qdrant_process import running_qdrant
from tests.support.stage_harness import Servers
from tests.support.tei_stand_in import StandInSettings, TeiStandIn
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())["services"]
PROCESSES = ["ingest", "chunker", "embedder", "indexer", "search"]
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}")


def environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """The service's environment as Compose would make it, if `given` stood in .env."""
    found = {}
    for name, value in COMPOSE[service]["environment"].items():
        if value is not None:
            found[name] = VARIABLE.sub(lambda match: given.get(match[1], match[2]), str(value))
        elif name in given:
            found[name] = given[name]
    return found


def secrets(qdrant_key: str) -> dict[str, str]:
    names = ("WEBHOOK_API_SECRET", "WEBHOOK_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD")
    return {name: name.lower() * 3 for name in names} | {"WEBHOOK_QDRANT_API_KEY": qdrant_key}


async def start(argv: list[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Run a command of compose.yaml, whose programs stand beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    return await asyncio.create_subprocess_exec(
        *argv,
        env=bare_environ(**environ, PATH=path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.parametrize("name", PROCESSES)
async def test_a_service_gets_healthy_and_stops_as_compose_says(
    servers: Servers, tmp_path: Path, name: str
) -> None:
    service: dict[str, Any] = COMPOSE[name]
    port = free_port()
    with running_qdrant(tmp_path / "qdrant") as qdrant:
        async with TeiStandIn(StandInSettings()) as tei:
            environ = environment(name, secrets(str(qdrant.qdrant_api_key)))
            [port_setting] = [each for each in environ if each.endswith("_PORT")]
            health_check = [
                word.replace(environ[port_setting], str(port))
                for word in service["healthcheck"]["test"][1:]
            ]
            environ |= addresses(servers, environ, tei.url, qdrant.qdrant_url)
            process = await start(service["command"], environ | {port_setting: str(port)})

            async def is_healthy() -> bool:
                assert process.returncode is None, (await process.communicate())[0]
                return await (await start(health_check, {})).wait() == 0

            await wait_until(is_healthy, timeout=60, description=f"{name} to be healthy")
            process.send_signal(signal.SIGTERM)
            output, _ = await process.communicate()
            assert process.returncode == 0, output


async def test_the_migration_ends_with_success(servers: Servers) -> None:
    environ = environment("migrate", secrets("a key"))
    process = await start(
        COMPOSE["migrate"]["command"], environ | {"WEBHOOK_DATABASE_URL": servers.database_url}
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output


def addresses(
    servers: Servers, environ: Mapping[str, str], tei_url: str, qdrant_url: str
) -> dict[str, str]:
    """Where the servers of this test are, for each address that the service was given."""
    known = {
        "WEBHOOK_REDIS_URL": servers.redis_url,
        "WEBHOOK_DATABASE_URL": servers.database_url,
        "WEBHOOK_TEI_URL": tei_url,
        "WEBHOOK_QDRANT_URL": qdrant_url,
    }
    return {name: url for name, url in known.items() if name in environ}
