"""A service that must not start, in a process of its own."""

import asyncio
import json
import sys

from tests.support.local_stack import bare_environ
from tests.support.stage_harness import Servers


async def refusal(servers: Servers, module: str = "chunker", **settings: str) -> str:
    """Start a service that must not start; why it did not."""
    environ = bare_environ(
        **{
            "WEBHOOK_REDIS_URL": servers.redis_url,
            "WEBHOOK_DATABASE_URL": servers.database_url,
            **settings,
        }
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 78, output + errors
    if errors:
        return errors.decode()
    last = json.loads(output.splitlines()[-1])
    assert last["event"] == "Cannot start"
    return str(last["error"])
