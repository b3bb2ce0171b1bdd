"""The relevance bench, on a collection of eight documents."""

import contextlib
import json
from pathlib import Path

import pytest

from bench.baselines import fuse
from bench.beir import load_collections
from bench.relevance import Deployment, measure
from bench.relevance_report import write_results
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.timeout(180)

DOCUMENTS = {
    "fox": "The quick brown fox jumps over the lazy dog.",
    "volcano": "A volcano erupts when magma rises through the crust.",
    "bread": "Knead the dough and let it rise before you bake the bread.",
    "tide": "The moon's gravity raises the tides of the oceans.",
    "vaccine": "A vaccine trains the immune system against a virus.",
    "violin": "The strings of a violin are tuned in fifths.",
    "glacier": "Glaciers carve valleys as their ice slides downhill.",
    "title only": "",
}
QUESTIONS = {
    "fox": "brown foxes jumping", "volcano": "magma rising in volcanoes", "bread": "how to bake bread",
    "tide": "what causes ocean tides", "vaccine": "protection from viruses", "violin": "tuning string instruments",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-relevance"
    folder.mkdir()
    corpus = [
        {"_id": name, "title": name.title(), "text": text} for name, text in DOCUMENTS.items()
    ]
    corpus.append({"_id": "empty", "title": "", "text": ""})
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    queries = [{"_id": f"q-{name}", "text": text} for name, text in QUESTIONS.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "".join(f"q-{name}\t{name}\t1\n" for name in QUESTIONS)
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


async def test_a_collection_is_measured_by_all_systems_and_the_figures_are_written(
    pipeline: Pipeline, folder: Path
) -> None:
    (collection,) = load_collections(folder)
    with contextlib.closing(Deployment(pipeline.env)) as deployment:
        report = await measure(deployment, collection)
    assert (report.documents, report.empty, report.failed, report.queries) == (8, 1, 0, 6)
    assert (
        set(report.ndcg_at_10)
        == set(report.recall_at_100)
        == {"keyword", "semantic", "hybrid", "bm25s", "rrf"}
    )
    assert all(0.8 < score <= 1 for score in report.ndcg_at_10.values()), report.ndcg_at_10
    assert report.recall_at_100["semantic"] == report.recall_at_100["hybrid"] == 1
    assert all(d.low <= d.mean <= d.high for d in report.differences.values())

    results, page = folder / "results.json", folder / "page.md"
    begin, end = "<!-- figures: make bench NAME=relevance -->", "<!-- end of figures -->"
    page.write_text(f"Before.\n\n{begin}\nold\n{end}\n\nAfter.\n")
    for _ in range(2):
        write_results([report], results, page)
    assert [each["name"] for each in json.loads(results.read_text())] == ["tiny-relevance"]
    assert page.read_text().count("| tiny-relevance |") == 1
    assert page.read_text().startswith(f"Before.\n\n{begin}\n| collection |")
    assert page.read_text().endswith(f"{end}\n\nAfter.\n")
    assert "old" not in page.read_text()


def test_fusion_by_hand_prefers_what_both_rank_high() -> None:
    assert fuse(["a", "b", "c"], ["b", "d", "c"]) == ["b", "c", "a", "d"]
