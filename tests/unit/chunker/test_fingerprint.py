import pytest

from chunker.fingerprint import content_hash, fingerprint
from shared.pipeline.messages import Page
from shared.service.settings import ChunkerSettings

URL = "https://a.test/b"
PAGE = Page(
    title="T",
    description="D",
    language="en",
    country="DE",
    is_mobile=False,
    metadata={"a": 1, "b": [2]},
)


def test_the_order_of_metadata_and_default_fields_do_not_matter() -> None:
    other = Page(
        title="T",
        description="D",
        language="en",
        country="DE",
        is_mobile=False,
        metadata={"b": [2], "a": 1},
    )
    assert content_hash(URL, PAGE, "text") == content_hash(URL, other, "text")
    assert content_hash(URL, Page(), "text") == content_hash(
        URL, Page(title="", metadata={}), "text"
    )
    assert len(content_hash(URL, PAGE, "text")) == 32


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "x"},
        {"description": "x"},
        {"language": "de"},
        {"country": None},
        {"is_mobile": None},
        {"metadata": {"a": 1, "b": [3]}},
    ],
)
def test_every_field_that_is_stored_counts(changed: dict[str, object]) -> None:
    fields: dict[str, object] = {
        name: getattr(PAGE, name) for name in PAGE.__struct_fields__
    } | changed
    assert content_hash(URL, Page(**fields), "text") != content_hash(URL, PAGE, "text")  # type: ignore[arg-type]


def test_url_and_text_count_each_for_itself() -> None:
    hashes = {
        content_hash(url, PAGE, text)
        for url, text in [("a", "b"), ("ab", ""), ("b", "a"), ("a", "b ")]
    }
    assert len(hashes) == 4


def test_the_fingerprint_is_of_bounds_tokenizer_and_target() -> None:
    default = ChunkerSettings()
    assert fingerprint(default, "{}", "g") == fingerprint(
        ChunkerSettings(chunker_port=1), "{}", "g"
    )
    others = {
        fingerprint(ChunkerSettings(max_chunk_tokens=128), "{}", "g"),
        fingerprint(ChunkerSettings(chunk_overlap_tokens=20), "{}", "g"),
        fingerprint(ChunkerSettings(chunk_prefix_tokens=20), "{}", "g"),
        fingerprint(ChunkerSettings(max_chunk_characters=900), "{}", "g"),
        fingerprint(default, "[]", "g"),
        fingerprint(default, "{}", "h"),
    }
    assert len(others | {fingerprint(default, "{}", "g")}) == 7
