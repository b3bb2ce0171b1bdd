"""The figures of a relevance run, for results/relevance.json and for docs/search.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.baselines import Ranking
from bench.beir import RetrievalCollection
from bench.measures import ndcg, paired_interval, recall
from bench.report import RESULTS, SEARCH_PAGE, write_figures

_RESULTS = RESULTS / "relevance.json"

PAIRS = (("keyword", "bm25s"), ("hybrid", "rrf"), ("hybrid", "keyword"), ("hybrid", "semantic"))


class Difference(msgspec.Struct, frozen=True):
    """Mean difference of nDCG@10 over the queries, and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


class CollectionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one collection by system."""

    name: str
    documents: int
    empty: int
    failed: int
    queries: int
    ndcg_at_10: dict[str, float]
    recall_at_100: dict[str, float]
    differences: dict[str, Difference]  # "ours - theirs"

    @property
    def table_row(self) -> str:
        """The row of this collection in the table of the page."""
        scores = [
            f"{score:.3f} / {self.recall_at_100[system]:.3f}"
            for system, score in self.ndcg_at_10.items()
        ]
        differences = [str(difference) for difference in self.differences.values()]
        cells = [self.name, f"{self.documents}, {self.queries}", *scores, *differences]
        return f"| {' | '.join(cells)} |"


def report_of(
    collection: RetrievalCollection, rankings: Mapping[str, Sequence[Ranking]], failed: int
) -> CollectionReport:
    """Score the rankings of each system by query. A query's own document does not count."""
    relevance = [collection.qrels[query.id] for query in collection.queries]
    cleaned = {
        system: [
            _without(query.id, each) for query, each in zip(collection.queries, ranked, strict=True)
        ]
        for system, ranked in rankings.items()
    }
    ndcgs = {
        s: [ndcg(*pair) for pair in zip(ranked, relevance, strict=True)]
        for s, ranked in cleaned.items()
    }
    recalls = {
        s: [recall(*pair) for pair in zip(ranked, relevance, strict=True)]
        for s, ranked in cleaned.items()
    }
    return CollectionReport(
        name=collection.name,
        documents=len(collection.documents),
        empty=collection.empty,
        failed=failed,
        queries=len(collection.queries),
        ndcg_at_10={system: round(_mean(scores), 4) for system, scores in ndcgs.items()},
        recall_at_100={system: round(_mean(scores), 4) for system, scores in recalls.items()},
        differences={f"{a} - {b}": _difference(ndcgs[a], ndcgs[b]) for a, b in PAIRS},
    )


def write_results(
    reports: Sequence[CollectionReport], results: Path = _RESULTS, page: Path = SEARCH_PAGE
) -> None:
    """Store the figures, replacing those of the same collections, and update the page's table."""
    kept = (
        msgspec.json.decode(results.read_bytes(), type=list[CollectionReport])
        if results.exists()
        else []
    )
    merged = sorted(
        ({r.name: r for r in kept} | {r.name: r for r in reports}).values(), key=lambda r: r.name
    )
    results.parent.mkdir(exist_ok=True)
    results.write_bytes(msgspec.json.format(msgspec.json.encode(merged), indent=2) + b"\n")
    write_figures("relevance", _table(merged), page)


def _table(reports: Sequence[CollectionReport]) -> str:
    head = ["collection", "documents, queries", *reports[0].ndcg_at_10, *reports[0].differences]
    lines = [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(report.table_row for report in reports),
    ]
    return "\n".join(lines)


def _without(query_id: str, ranking: Ranking) -> Ranking:
    return [document_id for document_id in ranking if document_id != query_id]


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    low, high = paired_interval(ours, theirs)
    return Difference(round(_mean(ours) - _mean(theirs), 4), round(low, 4), round(high, 4))


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
