import gzip
from pathlib import Path

import pytest

from bench.beir import Document, load_collections

CORPUS = b"""{"_id": "1", "title": "Foxes", "text": "A fox."}
{"_id": "2", "title": "", "text": " ", "metadata": {"year": 1970}}

{"_id": "3", "title": null, "text": "Untitled."}
"""
QUERIES = (
    '{"_id": "q1", "text": "fox"}\n'
    '{"_id": "q2", "text": "nobody judged this one"}\n'
    '{"_id": "q4", "text": " "}\n'
)
QRELS = 'query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t"3\t0\nq3\t1\t0\nq4\t1\t1.0\n\n'


def write(folder: Path, qrels: str = "qrels.tsv") -> Path:
    (folder / qrels).parent.mkdir(parents=True)
    (folder / "queries.jsonl").write_text(QUERIES)
    (folder / qrels).write_text(QRELS)
    return folder


@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_collection_has_its_documents_and_the_queries_that_have_an_answer(
    tmp_path: Path, qrels: str
) -> None:
    (write(tmp_path / "red foxes", qrels) / "corpus.jsonl").write_bytes(CORPUS)
    (collection,) = load_collections(tmp_path / "red foxes")
    assert (collection.name, collection.index_name) == ("red foxes", "red-foxes")
    assert collection.documents == [
        Document("1", "A fox.", "Foxes"),
        Document("3", "Untitled.", None),
    ]
    assert collection.empty == 1
    assert [query.id for query in collection.queries] == ["q1"]
    assert collection.qrels == {"q1": {"1": 2}, "q4": {"1": 1}}


def test_a_folder_of_collections_is_read_in_order_and_files_may_be_gzipped(tmp_path: Path) -> None:
    (write(tmp_path / "b") / "corpus.jsonl.gz").write_bytes(gzip.compress(CORPUS))
    (write(tmp_path / "a") / "corpus.jsonl").write_bytes(CORPUS)
    (tmp_path / "notes").mkdir()
    assert [(each.name, len(each.documents)) for each in load_collections(tmp_path)] == [
        ("a", 2),
        ("b", 2),
    ]


def test_a_folder_without_collections_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"corpus\.jsonl"):
        load_collections(tmp_path)
