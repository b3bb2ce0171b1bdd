"""What ingest accepted with 202, in order, and what must be stored in the end."""

import hashlib

from chunker.splitting.cleaning import clean
from chunker.splitting.splitter import Splitter
from shared.tei.tokenizer import load_tokenizer
from tests.torture.checker import Expected
from tests.torture.traffic import Request


class Ledger:
    """One scenario's. Record requests in the order of their acceptance: the last text counts."""

    def __init__(self) -> None:
        self._splitter = Splitter(load_tokenizer(None))
        self._jobs: dict[str, list[str]] = {}
        self._texts: dict[str, str | None] = {}
        self._poison: set[str] = set()

    def accept(self, request: Request, job_id: str) -> None:
        self._jobs[job_id] = request.urls
        if request.poison:
            self._poison.update(request.urls)
        self._texts |= {page.url: page.markdown for page in request.pages}
        if request.delete is not None:
            self._texts[request.delete] = None

    @property
    def documents(self) -> int:
        """Accepted items."""
        return sum(map(len, self._jobs.values()))

    def expected(self) -> Expected:
        """What a clean end looks like."""
        dead = frozenset(self._poison)
        chunks = {
            url: self._hashes(text)
            for url, text in self._texts.items()
            if text is not None and url not in dead
        }
        return Expected(jobs=self._jobs, chunks=chunks, dead=dead)

    def _hashes(self, markdown: str) -> list[str]:
        chunks = self._splitter.split(clean(markdown), "")
        return [hashlib.sha256(chunk.text.encode()).hexdigest() for chunk in chunks]
