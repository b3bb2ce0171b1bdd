"""What commands print: tables for people, JSON for programs, errors on stderr."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import typer

from cli.failures import Exit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_FILE_WIDTH = 250  # columns; rows are not folded where no terminal shows them


@functools.cache
def console() -> "Console":
    """The console of stdout."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)


@functools.cache
def errors() -> "Console":
    """The console of stderr, for progress and errors: stdout carries the answer alone."""
    from rich.console import Console

    return Console(stderr=True)


def emit(value: Any, *, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as JSON, or let `show` print it as text."""
    if as_json:
        print_json(value)
    else:
        show()


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON, and flush it."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "Table":
    """A table without borders; None is an empty cell."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    return made


def tell(message: str) -> None:
    """Print a line about the progress of the command on stderr."""
    errors().print(message, markup=False, highlight=False)


def print_error(message: str) -> None:
    """Print an error on stderr."""
    errors().print(message, style="red", markup=False, highlight=False)


def fail(message: str, status: Exit) -> NoReturn:
    """Print an error on stderr and end the command with `status`."""
    print_error(message)
    raise typer.Exit(status)


def without_credentials(url: str) -> str:
    """The URL without user and password, to be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
