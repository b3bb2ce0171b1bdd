"""The `millstream` command."""

import sys

import typer

from cli import collections, dead, documents, jobs, streams
from cli.client import ApiError
from cli.doctor.command import doctor
from cli.index import index
from cli.output import Exit, errors
from cli.reindex import reindex
from cli.search import search
from cli.serve import migrate_database, serve
from cli.up import up
from shared.service.errors import MillstreamError

app = typer.Typer(
    help="Documents in, a searchable index out.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
app.command()(up)
app.command()(serve)
app.command("migrate")(migrate_database)
app.command()(index)
app.command()(search)
app.command()(doctor)
app.command()(reindex)
app.command()(documents.prune)
app.command()(documents.stats)
app.add_typer(jobs.app, name="jobs")
app.add_typer(streams.app, name="streams")
app.add_typer(dead.app, name="dead")
app.add_typer(documents.app, name="documents")
app.add_typer(collections.app, name="collections")


def main() -> None:
    """Run the command line; errors of the API and of settings become a sentence and an exit code."""
    try:
        app()
    except ApiError as error:
        errors.print(str(error), style="red", markup=False)
        sys.exit(Exit.UNREACHABLE if error.status is None else Exit.REFUSED)
    except MillstreamError as error:
        errors.print(str(error), style="red", markup=False)
        sys.exit(Exit.REFUSED)
