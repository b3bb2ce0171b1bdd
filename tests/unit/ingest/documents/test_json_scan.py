import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.documents.json_scan import MAX_DEPTH, count_elements, repair

# Pieces that meet in odd ways: runs of backslashes, halves of pairs, brackets and quotes inside
# strings.
pieces = st.sampled_from(
    [
        "\\",
        '"',
        "a",
        "\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\ud83d",
        "\ude00",
        "😀",
        "\ufffd",
        "ü",
        "u",
        "d8",
    ]
)
texts = st.lists(pieces, max_size=12).map("".join)
values = st.recursive(
    texts | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def replaced(value: Any) -> Any:
    """The value with U+FFFD for every lone surrogate, by way of UTF-16, where pairs join and halves
    do not.
    """
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [replaced(item) for item in value]
    if isinstance(value, dict):
        return {replaced(key): replaced(item) for key, item in value.items()}
    return value


BLOCKS = pytest.mark.parametrize("block_bytes", [1, 2, 7, 1 << 16])


@pytest.mark.parametrize(
    ("sent", "repaired"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDE00x"', rb'"\ufffdx"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\ud83dx\ude00"', rb'"\ufffdx\ufffd"'),
        (rb'"\ud83d\u0041"', rb'"\ufffd\u0041"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\"\ud83d"', rb'"\"\ufffd"'),
        (rb'{"\ud83d":["\ud83d"]}', rb'{"\ufffd":["\ufffd"]}'),
        (b"", b""),
        (rb'"\ud83', rb'"\ud83'),
    ],
)
@BLOCKS
def test_lone_surrogate_escapes_become_the_replacement_character(
    sent: bytes, repaired: bytes, block_bytes: int
) -> None:
    assert repair(sent, block_bytes=block_bytes) == repaired


@BLOCKS
def test_nesting_over_64_levels_becomes_a_number(block_bytes: int) -> None:
    deep = b"[" * 70 + b'"]["' + b"]" * 70
    repaired = repair(b'{"a":' + deep + b',"b":[1]}', block_bytes=block_bytes)
    value = msgspec.json.decode(repaired)
    assert value["b"] == [1]
    depth = 1
    value = value["a"]
    while isinstance(value, list):
        (value,), depth = value, depth + 1
    assert (value, depth) == (0, MAX_DEPTH)


def test_neighbours_at_the_deepest_level_stay_apart() -> None:
    deep = b"[" * 64 + b"1,[2],{},3" + b"]" * 64
    value = msgspec.json.decode(repair(deep))
    for _ in range(63):
        (value,) = value
    assert value == [1, 0, 0, 3]


@BLOCKS
def test_a_lone_surrogate_in_a_removed_container_leaves_no_trace(block_bytes: int) -> None:
    inner = rb'"\ud83d"'
    expected = b"[" * 64 + b"0" + b" " * (len(inner) + 1) + b"]" * 64
    assert repair(b"[" * 65 + inner + b"]" * 65, block_bytes=block_bytes) == expected


def test_brackets_inside_strings_do_not_nest() -> None:
    body = json.dumps(["[{" * 100, '\\"[[' * 100]).encode()
    assert repair(body) == body


@settings(deadline=None)
@given(values, st.sampled_from([1, 3, 8, 1 << 16]))
def test_any_json_of_lenient_senders_can_be_decoded(value: Any, size: int) -> None:
    body = json.dumps(value).encode()
    repaired = repair(body, block_bytes=size)
    assert len(repaired) == len(body)
    assert msgspec.json.decode(repaired) == json.loads(json.dumps(replaced(value)))


@settings(deadline=None)
@given(st.binary())
def test_bytes_of_any_kind_keep_their_length(body: bytes) -> None:
    assert len(repair(body)) == len(body)


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=6))
def test_elements_are_counted_at_the_top_level_only(array: list[Any]) -> None:
    assert count_elements(json.dumps(array).encode()) == len(array)
