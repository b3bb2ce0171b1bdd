"""Stand-ins at the borders of the runtime: Redis' scripts and commands, writes to Postgres."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from shared.jobs.progress import Ended, Ending, Postponed
from shared.pipeline.entries import Consumer, Entry
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, DocumentRef, Header, encode_body, encode_header
from shared.pipeline.stages import StageName
from shared.runtime.streams.lua import script

STAGE = StageName.CHUNKER
CONSUMER = Consumer(stage=STAGE, name="me", lease=30.0)
SCRIPTS = ("renew", "recount", "handover", "leave", "join", "claim")

Answer = Callable[[Sequence[str], Sequence[Any]], Any]


class FakeScripts:
    """The scripts of Redis: calls are recorded and answered by a function of keys and arguments."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.calls: list[tuple[str, list[str], list[Any]]] = []
        self._names = {script(name): name for name in SCRIPTS}

    async def ping(self) -> bool:
        """Raises what the answer `ping` raises."""
        return bool(self.answers["ping"]([], [])) if "ping" in self.answers else True

    def register_script(self, source: str) -> Callable[..., Any]:
        name = self._names[source]

        async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
            self.calls.append((name, list(keys), list(args)))
            return self.answers[name](keys, args)

        return run

    def called(self, name: str) -> list[tuple[list[str], list[Any]]]:
        return [(keys, args) for called, keys, args in self.calls if called == name]


class FakeProgress:
    """Postgres: every item is current but those of `replaced` positions."""

    def __init__(self, replaced: Sequence[int] = ()) -> None:
        self.replaced = set(replaced)
        self.attempts: dict[int, int] = {}
        self.ended: list[Ended] = []
        self.deliveries: list[int] = []
        self.postponed: list[Postponed] = []
        self.passed_on: list[DocumentRef] = []
        self.dead_letters: list[tuple[str, str]] = []
        self.ending = Ending(items=[], jobs=[])

    def _current(self, refs: Sequence[DocumentRef]) -> list[int]:
        return [index for index, ref in enumerate(refs) if ref.position not in self.replaced]

    async def start(self, refs: Sequence[DocumentRef]) -> dict[int, int]:
        return {index: self.attempts.get(refs[index].position, 0) for index in self._current(refs)}

    async def pass_on(
        self, refs: Sequence[DocumentRef], _counts: Sequence[tuple[int, int | None]]
    ) -> set[int]:
        self.passed_on += refs
        return set(self._current(refs))

    async def postpone(self, items: Sequence[Postponed]) -> None:
        self.postponed += items

    async def end(self, items: Sequence[Ended], deliveries: int) -> Ending:
        self.ended += items
        self.deliveries.append(deliveries)
        return self.ending

    async def dead_letter(self, entry: Entry, error: str) -> None:
        self.dead_letters.append((entry.id, error))


def ref(position: int, action: Action = Action.INDEX) -> DocumentRef:
    return DocumentRef(
        job_id="job", position=position, release=1, document_id=f"document {position}",
        version=position, url=f"https://example.com/{position}", action=action,
    )  # fmt: skip


def header_of(documents: int, stage_deliveries: int = 0) -> Header:
    refs = tuple(ref(position) for position in range(documents))
    return Header(target="docs_1", lane=Lane.NORMAL, documents=refs, deliveries=stage_deliveries)


def entry(documents: int = 1, deliveries: int = 1, entry_id: str = "1-0", **fields: Any) -> Entry:
    """An entry of so many documents that was delivered so often."""
    values = {
        "header": encode_header(header_of(documents)),
        "body": encode_body([{"text": str(n)} for n in range(documents)]),
        **fields,
    }
    return Entry(
        stream=STAGE.stream(Lane.NORMAL), lane=Lane.NORMAL, id=entry_id, documents=documents,
        deliveries=deliveries, **values,
    )  # fmt: skip


async def settle() -> None:
    """Let every task run until it waits for something that is not ready."""
    for _ in range(20):
        await asyncio.sleep(0)
