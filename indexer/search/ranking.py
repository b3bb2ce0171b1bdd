"""From two lists of hits to one page: visible hits, fused order, one hit per document. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

# Hits per side, whatever the page: a window that grew with the offset would make pages unstable.
WINDOW = 200


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A point that matched, with no more of its payload than ranking needs."""

    id: str
    document_id: str
    version: int
    chunk_index: int
    score: float


def live_hits(hits: Sequence[Hit], live: Mapping[str, int | None]) -> list[Hit]:
    """Hits of their document's live version; unknown (missing) and deleted (None) documents have
    none.
    """
    return [hit for hit in hits if live.get(hit.document_id) == hit.version]


def overtaken_documents(
    sides: Iterable[Sequence[Hit]], live: Mapping[str, int | None]
) -> dict[str, int]:
    """Live version of each document that a side has hits of, but none of that version.

    Either a newer version came in between, or it does not match and an older one was left behind.
    """
    overtaken: dict[str, int] = {}
    for side in sides:
        shown = {hit.document_id for hit in live_hits(side, live)}
        for hit in side:
            version = live.get(hit.document_id)
            if version is not None and hit.document_id not in shown:
                overtaken[hit.document_id] = version
    return overtaken


def newest_versions(hits: Iterable[Hit]) -> dict[str, int | None]:
    """The best guess at what is live when the registry cannot be asked."""
    newest: dict[str, int | None] = {}
    for hit in hits:
        newest[hit.document_id] = max(hit.version, newest.get(hit.document_id) or 0)
    return newest


def order(hits: Iterable[Hit]) -> list[Hit]:
    """Best first; ties by document, then chunk, so that equal searches give equal pages."""
    return sorted(
        hits, key=lambda hit: (-hit.score, hit.document_id, hit.chunk_index, -hit.version)
    )


def fuse(sides: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Reciprocal rank fusion: the sum of 1 / (k + rank) over the sides, rank from 1 (Cormack et al.
    2009).
    """
    return order(_fused(sides, k, lambda hit: hit.id))


def fuse_documents(sides: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """The same with documents for hits: each ranks as its best chunk does, and is shown by the
    higher ranking one.
    """
    return order(
        _fused([best_per_document(order(side)) for side in sides], k, lambda hit: hit.document_id)
    )


def _fused(sides: Sequence[Sequence[Hit]], k: int, identity: Callable[[Hit], str]) -> Iterator[Hit]:
    best: dict[str, tuple[int, Hit]] = {}
    scores: dict[str, float] = {}
    for side in sides:
        for rank, hit in enumerate(order(side), start=1):
            id_ = identity(hit)
            scores[id_] = scores.get(id_, 0.0) + 1 / (k + rank)
            best[id_] = min(
                best.get(id_, (rank, hit)),
                (rank, hit),
                key=lambda b: (b[0], b[1].chunk_index, b[1].id),
            )
    return (msgspec.structs.replace(hit, score=scores[id_]) for id_, (_, hit) in best.items())


def best_per_document(hits: Iterable[Hit]) -> list[Hit]:
    """The first hit of every document; keeps the order."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.document_id, hit)
    return list(first.values())
