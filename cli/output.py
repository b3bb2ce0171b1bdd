"""What commands print: tables for people, JSON for programs; and what their exit codes mean."""

import enum
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]

_WIDTH_OF_A_FILE = 250  # rows are not folded when no person looks at them

console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
errors = Console(stderr=True)


class Exit(enum.IntEnum):
    """Exit codes; 2 is a wrong command line."""

    OK = 0
    FAILED = 1  # it ran, and something did not succeed: a document, a job
    UNREACHABLE = 3  # the service did not answer
    REFUSED = 4  # the service answered with an error
    WARNED = 5  # it ran, and somebody should look at something soon


def emit(value: Any, *, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as JSON, or let `show` print it for a person."""
    if as_json:
        print_json(value)
    else:
        show()


def print_json(value: Any) -> None:
    """Print `value` as JSON on a line of its own, at once also into a pipe."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; None shows as nothing."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    return made


def fail(message: str, code: Exit) -> NoReturn:
    """Say why on stderr and end with `code`."""
    errors.print(f"[red]{message}[/red]", highlight=False, markup=True)
    raise typer.Exit(code)
