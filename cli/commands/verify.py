"""`millstream verify`: whether Qdrant holds what the registry in Postgres says."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failures import Exit
from cli.output import Json, console, emit

if TYPE_CHECKING:
    from indexer.verifier import Verified

Collection = Annotated[
    str | None, typer.Option(help="Verify this collection only; without it, all of them.")
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Index documents again that have too few points.")
]


def verify(collection: Collection = None, repair: Repair = False, as_json: Json = False) -> None:
    """Find documents whose points in Qdrant are missing.

    Use it after a snapshot of Qdrant was restored, or points were deleted by hand. The indexers do
    the same with --repair after each WEBHOOK_SCRUB_INTERVAL. It asks Qdrant and Postgres directly:
    the settings of the indexer must be in the environment. Exit status 1: documents lack points and
    were not queued again.
    """
    import asyncio

    import msgspec

    verified = asyncio.run(verify_targets(collection, repair=repair))
    rows = [{"target": target, **msgspec.to_builtins(each)} for target, each in verified.items()]
    emit({"targets": rows}, as_json=as_json, show=lambda: _show(verified))
    if any(each.short > each.requeued for each in verified.values()):
        raise typer.Exit(Exit.FAILED)


async def verify_targets(collection: str | None, *, repair: bool) -> "dict[str, Verified]":
    """Verify the targets in use, one after the other. Raises DependencyError."""
    import contextlib

    import msgspec

    from indexer.qdrant.client import make_client
    from indexer.qdrant.store import PointStore
    from indexer.verifier import Verifier
    from shared.jobs.targets import Targets
    from shared.service.clients import postgres_errors, postgres_pool
    from shared.service.settings import PostgresSettings, QdrantSettings, RuntimeSettings, load

    blocks = [
        ("postgres", PostgresSettings),
        ("qdrant", QdrantSettings),
        ("runtime", RuntimeSettings),
    ]
    settings: Any = load(msgspec.defstruct("Settings", blocks, frozen=True), os.environ)
    async with contextlib.AsyncExitStack() as stack:
        with postgres_errors():
            pool = await postgres_pool(settings.postgres.database_url, name="verify", max_size=2)
        stack.push_async_callback(pool.close)
        client = make_client(settings.qdrant)
        stack.push_async_callback(client.close)
        timeout = settings.runtime.indexing_job_timeout
        verifier = Verifier(pool, PointStore(client), timeout, rest=0.0)
        targets = [
            target.target
            for target in await Targets(pool).in_use()
            if collection in {None, target.collection}
        ]
        return {target: await verifier.verify(target, repair=repair) for target in targets}


def _show(verified: "dict[str, Verified]") -> None:
    if not verified:
        console().print("no collection holds documents")
    for target, each in verified.items():
        short = f"{each.short} with too few points" if each.short else "all points are there"
        queued = f", {each.requeued} queued again" if each.requeued else ""
        console().print(f"{target}: {each.documents} documents, {short}{queued}")
