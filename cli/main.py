"""The `millstream` command.

Modules of commands import what is heavy (an HTTP client, database drivers, rich) inside functions:
`millstream --help` loads none of it.
"""

import sys

import typer

from cli.commands import collections, dead, documents, jobs, streams
from cli.commands.index import index
from cli.commands.reindex import reindex
from cli.commands.search import search
from cli.commands.serve import migrate_database, serve
from cli.commands.up import up
from cli.commands.verify import verify
from cli.doctor.command import doctor
from cli.failures import ApiError, Exit
from cli.output import print_error

_HELP = """Index documents and search them.

Documents come in by webhook, by API call or from files. Four services chunk, embed and index them.
`millstream up` runs everything on this machine; `millstream COMMAND --help` explains a command.
"""

_EPILOG = """Environment:

\b
  MILLSTREAM_URL      address of ingest [http://127.0.0.1:50108]
  WEBHOOK_API_SECRET  its API secret
`millstream up` writes both to a file: set -a; . .millstream/stack.env; set +a

Exit status:

\b
  0  success
  1  the command ran, and a document, a job or a check failed
  2  wrong command line
  3  ingest or the database did not answer
  4  the request was refused, or a setting is wrong
  5  doctor found warnings only
"""

app = typer.Typer(
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes would cost 0.5 s of every --help
    context_settings={"max_content_width": 100},
)
app.command()(up)
app.command()(index)
app.command()(search)
app.command()(doctor)
app.add_typer(jobs.app, name="jobs")
app.add_typer(documents.app, name="documents")
app.add_typer(collections.app, name="collections")
app.add_typer(dead.app, name="dead")
app.add_typer(streams.app, name="streams")
app.command()(documents.stats)
app.command()(documents.prune)
app.command()(reindex)
app.command()(verify)
app.command()(serve)
app.command("migrate")(migrate_database)


def main() -> None:
    """Run the command line. Errors of the API and of settings become a message and a status."""
    try:
        app()
    except ApiError as error:
        print_error(str(error))
        sys.exit(error.exit_status)
    except Exception as error:
        from shared.service.errors import (
            MillstreamError,  # not for --help: it loads the Redis client
        )

        if not isinstance(error, MillstreamError):
            raise
        print_error(str(error))
        sys.exit(Exit.REFUSED)
