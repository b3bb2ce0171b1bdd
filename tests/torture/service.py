"""A service under torture: `python -m tests.torture.service NAME` runs NAME with an order.

An order is a file in the directory that `MILLSTREAM_ORDERS` names: a failpoint for one start. The
start that takes it removes it, so that the restart after a kill is an ordinary one. Each stage also
has a weakness: texts that kill it, or that it fails on once.
"""

import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from shared.service.errors import RejectedError

ORDERS = "MILLSTREAM_ORDERS"
REFUSED_TEXT = "The chunker does not take this sentence."

# Where each stage has its texts in hand: one at a time, or those of a batch.
_METHODS = {
    "chunker": ("chunker.splitting.splitter", "Splitter", "split"),
    "embedder": ("embedder.stage", "EmbedStage", "prepare"),
    "indexer": ("indexer.stage", "IndexStage", "prepare"),
}


def deadly_text(stage: str) -> str:
    """A text that kills each process of this stage that handles it."""
    return f"This sentence kills the {stage}."


def tripping_text(stage: str) -> str:
    """A text that each process of this stage fails on the first time."""
    return f"This sentence trips the {stage}."


def order(directory: Path, service: str, failpoint: str) -> None:
    """Have one of the next starts of the service run with this failpoint."""
    number = len(list(directory.iterdir()))
    path = directory / f"{service}.{number:04}"
    path.with_suffix(".new").write_text(failpoint)
    path.with_suffix(".new").replace(path)


def take(directory: Path, service: str) -> str | None:
    """The failpoint that was ordered for this start; no other start gets it."""
    for path in sorted(directory.glob(f"{service}.[0-9]*")):
        taken = path.with_name(f"taken-{os.getpid()}-{path.name}")
        try:
            path.rename(taken)
        except FileNotFoundError:
            continue
        return taken.read_text()
    return None


def weaken(service: str) -> None:
    """Let the stage check its texts for the weakness before it handles them."""
    if service not in _METHODS:
        return
    module, class_name, method = _METHODS[service]
    owner = getattr(importlib.import_module(module), class_name)
    work, look = getattr(owner, method), _Look(service)

    def look_and_work(self: Any, subject: Any, *rest: Any) -> Any:
        for text in _texts(subject):
            look(text)
        return work(self, subject, *rest)

    setattr(owner, method, look_and_work)


def _texts(subject: Any) -> list[bytes]:
    """The text of a document, or the bodies of a batch."""
    if isinstance(subject, str):
        return [subject.encode()]
    return [msgspec.msgpack.encode(document.body) for document in subject.documents]


class _Look:
    def __init__(self, stage: str) -> None:
        self._deadly = deadly_text(stage).encode()
        self._tripping = tripping_text(stage).encode()
        self._has_tripped = False

    def __call__(self, text: bytes) -> None:
        if REFUSED_TEXT.encode() in text:
            raise RejectedError("refused", "it was sent to be refused")
        if self._deadly in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._tripping in text and not self._has_tripped:
            self._has_tripped = True
            raise RuntimeError("tripped")


def main() -> None:
    service = sys.argv[1]
    if failpoint := take(Path(os.environ[ORDERS]), service):
        os.environ["WEBHOOK_FAILPOINT"] = failpoint
    weaken(service)
    sys.argv = [service]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
