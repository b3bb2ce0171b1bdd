"""Retrieval collections in BEIR's layout: corpus.jsonl[.gz], queries.jsonl[.gz], qrels.tsv.

corpus: {_id, title?, text} on each line; queries: {_id, text}; qrels: query-id, corpus-id and
score, separated by tabs, below a header (Thakur et al. 2021, github.com/beir-cellar/beir).
"""

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")

Qrels = dict[str, dict[str, int]]  # query id -> document id -> relevance


class Document(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="_id")
    text: str | None = None
    title: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self.content

    @property
    def content(self) -> str:
        """The text that every compared system gets."""
        return f"{self.title or ''}\n{self.text or ''}".strip()


class Query(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="_id")
    text: str = ""


class RetrievalCollection(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, the queries that have a relevant one, and the judgements of relevance."""

    name: str
    documents: list[Document]  # without empty ones
    empty: int
    queries: list[Query]
    qrels: Qrels

    @property
    def index_name(self) -> str:
        """The name in a form that is valid for a collection of millstream."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", self.name)


def load_collections(folder: Path) -> list[RetrievalCollection]:
    """The collection of a folder, or those of its subfolders. FileNotFoundError if none."""
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [_load(each) for each in folders if _find(each, "corpus.jsonl") is not None]
    if not found:
        raise FileNotFoundError(f"no corpus.jsonl in {folder} or the folders in it")
    return found


def _load(folder: Path) -> RetrievalCollection:
    documents = list(_lines(folder, "corpus.jsonl", Document))
    qrels = _read_qrels(folder)
    return RetrievalCollection(
        name=folder.resolve().name,
        documents=[document for document in documents if not document.is_empty],
        empty=sum(document.is_empty for document in documents),
        queries=[
            query
            for query in _lines(folder, "queries.jsonl", Query)
            if query.id in qrels and query.text.strip()
        ],
        qrels=qrels,
    )


def _read_qrels(folder: Path) -> Qrels:
    candidates = [folder / "qrels.tsv", folder / "qrels" / "test.tsv"]
    path = next((path for path in candidates if path.exists()), candidates[0])
    qrels: Qrels = {}
    with path.open(encoding="utf-8", newline="") as lines:
        next(lines, None)
        for query_id, document_id, score in filter(
            None, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ):
            if (relevance := int(float(score))) > 0:
                qrels.setdefault(query_id, {})[document_id] = relevance
    return qrels


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def _lines(folder: Path, name: str, kind: type[T]) -> Iterator[T]:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(f"no {name} in {folder}")
    decoder = msgspec.json.Decoder(kind)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        yield from (decoder.decode(line) for line in lines if line.strip())
