"""The help of the command line, which is a new user's first contact."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app

# What only a command needs. Each of them takes longer to import than Python takes to start.
HEAVY = {"aiohttp", "asyncio", "asyncpg", "httpx", "numpy", "qdrant_client", "redis", "rich"}

PRINT_MODULES = """
import sys
from cli.main import main
try:
    main()
except SystemExit as end:
    print(end.code, *sys.modules, file=sys.stderr)
"""


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of commands, with the words that call it."""
    yield words, group
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


ALL = list(commands(get_command(app)))
each_command = pytest.mark.parametrize("words", [words for words, _ in ALL], ids=" ".join)


@pytest.mark.parametrize("words", [(), ("index",), ("streams", "pending")], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", PRINT_MODULES, *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    status, *modules = done.stderr.split()
    assert status == "0"
    assert HEAVY.isdisjoint(modules)
    assert "Usage:" in done.stdout


@each_command
def test_every_help_page_fits_a_terminal_of_100_columns(words: tuple[str, ...]) -> None:
    page = CliRunner().invoke(app, [*words, "--help"], terminal_width=100)
    assert page.exit_code == 0
    assert max(map(len, page.output.splitlines())) <= 100


@pytest.mark.parametrize(
    "words", [words for words, command in ALL if isinstance(command, TyperGroup)], ids=" ".join
)
def test_no_list_of_commands_cuts_a_sentence(words: tuple[str, ...]) -> None:
    page = CliRunner().invoke(app, [*words, "--help"], terminal_width=80)
    listed = page.output.partition("Commands:")[2]
    assert not [line for line in listed.splitlines() if line.endswith("...")]


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_every_command_and_option_is_explained(words: tuple[str, ...], command: Any) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []
