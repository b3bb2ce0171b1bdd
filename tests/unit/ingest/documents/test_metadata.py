import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.documents.metadata import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, keep_metadata

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    texts
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def keep(metadata: Any, leave_out: frozenset[str] = frozenset()) -> tuple[dict[str, Any], int]:
    return keep_metadata(msgspec.Raw(json.dumps(metadata).encode()), leave_out)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_plain_json_is_kept_as_it_is_and_in_order() -> None:
    metadata = {
        "title": "T",
        "n": 1,
        "x": 1.5,
        "ok": True,
        "none": None,
        "list": [1, {"a": "b"}],
        "": "empty key",
    }
    kept, omitted = keep(metadata)
    assert (kept, list(kept), omitted) == (metadata, list(metadata), 0)


def test_nul_is_removed_from_keys_and_values_at_every_level() -> None:
    assert keep({"a\0b": "c\0d", "e": [{"f\0": "\0"}]}) == ({"ab": "cd", "e": [{"f": ""}]}, 0)


def test_of_keys_that_differ_only_by_nul_the_first_is_kept() -> None:
    assert keep({"a": 1, "a\0": 2}) == ({"a": 1}, 1)


def test_whole_numbers_beyond_64_bits_become_text() -> None:
    edge = {"a": 2**63 - 1, "b": 2**63, "c": -(2**63), "d": -(2**63) - 1}
    assert keep(edge)[0] == {"a": 2**63 - 1, "b": str(2**63), "c": -(2**63), "d": str(-(2**63) - 1)}


def test_only_the_entry_of_a_number_beyond_a_double_is_omitted() -> None:
    assert keep_metadata(msgspec.Raw(b'{"a":1e999,"b":[-1e999],"c":1}')) == ({"c": 1}, 2)


def test_an_entry_nested_over_8_levels_is_omitted() -> None:
    kept, omitted = keep(
        {"deep": nested(MAX_METADATA_DEPTH), "fits": nested(MAX_METADATA_DEPTH - 1), "last": 1}
    )
    assert (list(kept), omitted) == (["fits", "last"], 1)


def test_an_oversized_entry_is_omitted_and_later_ones_still_fit() -> None:
    kept, omitted = keep(
        {"first": 1, "huge": "x" * MAX_METADATA_BYTES, "vast": "y" * 200_000, "last": 2}
    )
    assert (kept, omitted) == ({"first": 1, "last": 2}, 2)


def test_many_small_entries_are_kept_up_to_the_size() -> None:
    metadata = {f"key{number}": "x" * 100 for number in range(1000)}
    kept, omitted = keep(metadata)
    assert list(kept) == list(metadata)[: len(kept)]
    assert len(kept) + omitted == 1000
    assert MAX_METADATA_BYTES - 120 < len(msgspec.json.encode(kept)) <= MAX_METADATA_BYTES


def test_the_size_is_that_of_the_text_not_of_its_escapes() -> None:
    text = "語" * 5000
    assert keep({"title": text}) == ({"title": text}, 0)
    assert keep_metadata(msgspec.Raw(json.dumps({"title": text}, ensure_ascii=False).encode())) == (
        {"title": text},
        0,
    )


def test_metadata_over_one_mebibyte_is_omitted_as_one_entry() -> None:
    assert keep({"a": 1, "b": "x" * 2**20}) == ({}, 1)


def test_dropped_names_are_not_counted_as_omitted() -> None:
    assert keep({"scrapeId": "s", "a": 1}, frozenset({"scrapeId"})) == ({"a": 1}, 0)


def test_anything_but_an_object_in_utf8_is_refused() -> None:
    with pytest.raises(UnprocessableBodyError):
        keep([1])
    with pytest.raises(MalformedBodyError, match="UTF-8"):
        keep_metadata(msgspec.Raw(b'{"a":"\xff"}'))


@settings(deadline=None)
@given(st.dictionaries(texts, values, max_size=5))
def test_stored_metadata_is_accepted_by_postgres_msgpack_and_qdrant(
    metadata: dict[str, Any],
) -> None:
    kept, _ = keep(metadata)
    stored = msgspec.json.encode(kept)
    assert len(stored) <= MAX_METADATA_BYTES
    assert b"\\u0000" not in stored.replace(rb"\\", b"")
    assert msgspec.json.decode(stored) == kept
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(kept)) == kept
    assert all(math.isfinite(value) for value in kept.values() if isinstance(value, float))
