"""Lines for people: a value that a sender chose does not leave its line."""

import io
import subprocess
import sys

import pytest

LOGGED = """
import sys, structlog
from shared.service.telemetry import configure_logging
configure_logging(service="s", instance="i", level="info", log_format="console")
log = structlog.get_logger()
log.info("Job accepted", url=sys.argv[1])
try:
    raise ValueError(sys.argv[1])
except ValueError:
    log.exception("Request failed")
"""


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b[2J", "\x9b31m", "\u2028"])
def test_control_characters_of_a_value_are_escaped_on_the_console(control: str) -> None:
    url = f"https://example.com/{control}10:00:00 | ERROR forged"
    output = subprocess.run(
        [sys.executable, "-c", LOGGED, url], capture_output=True, check=True, encoding="utf-8"
    ).stdout
    first = next(io.StringIO(output, newline="\n")).removesuffix("\n")
    assert first.endswith("10:00:00 | ERROR forged")
    assert all(part.isprintable() for part in output.split("\n"))
