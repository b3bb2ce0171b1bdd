import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from local.tei.batch import MAX_INPUTS, Vectors, check_dimensions, finish, pack, pad, short_floats
from local.tei.contract import ErrorType, TeiError

lengths_of_inputs = st.lists(st.integers(1, 300), max_size=64)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
vectors_of_eight = st_numpy.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.just(8)), elements=finite
)


@given(lengths_of_inputs, st.integers(1, 4096))
def test_every_input_is_in_exactly_one_group(lengths: list[int], max_tokens: int) -> None:
    indexes = [index for group in pack(lengths, max_tokens) for index in group]
    assert sorted(indexes) == list(range(len(lengths)))


@given(lengths_of_inputs, st.integers(1, 4096))
def test_a_group_keeps_to_both_limits_unless_it_is_one_long_input(
    lengths: list[int], max_tokens: int
) -> None:
    for group in pack(lengths, max_tokens):
        padded = len(group) * max(lengths[index] for index in group)
        assert len(group) <= MAX_INPUTS
        assert padded <= max_tokens or len(group) == 1


@given(lengths_of_inputs, st.integers(1, 4096))
def test_groups_go_from_long_to_short(lengths: list[int], max_tokens: int) -> None:
    in_order = [lengths[index] for group in pack(lengths, max_tokens) for index in group]
    assert in_order == sorted(lengths, reverse=True)


def test_a_group_is_filled_before_the_next_begins() -> None:
    assert [len(group) for group in pack([16] * 20, 2048)] == [8, 8, 4]
    assert [len(group) for group in pack([256] * 20, 1024)] == [4] * 5


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    ids, lengths = pad([[101, 102], [101, 7592, 102]])
    assert ids.tolist() == [[101, 102, 0], [101, 7592, 102]]
    assert lengths.tolist() == [2, 3]
    assert [ids.dtype.name, lengths.dtype.name] == ["int64", "int32"]


@given(vectors_of_eight)
def test_json_gives_back_the_very_same_float32(vectors: Vectors) -> None:
    decoded = np.array(msgspec.json.decode(msgspec.json.encode(short_floats(vectors))), np.float32)
    assert np.allclose(decoded, vectors, rtol=0, atol=1e-20)
    ordinary = np.abs(vectors) > 1e-12
    assert (decoded[ordinary] == vectors[ordinary]).all()


def test_json_has_no_more_digits_than_a_float32_needs() -> None:
    assert msgspec.json.encode(short_floats(np.array([[0.1, -0.020964134]], np.float32))) == (
        b"[[0.100000001,-0.0209641345]]"
    )


def test_dimensions_are_cut_before_the_length_is_made_one() -> None:
    vectors = np.array([[3, 4, 12], [0, 2, 1]], np.float32)
    assert finish(vectors, 2, normalize=True).tolist() == pytest.approx(
        np.array([[0.6, 0.8], [0, 1]])
    )
    assert finish(vectors, 2, normalize=False).tolist() == [[3, 4], [0, 2]]
    assert finish(vectors, None, normalize=False).tolist() == vectors.tolist()


@pytest.mark.parametrize("dimensions", [0, 385])
def test_dimensions_that_the_model_does_not_have_are_refused(dimensions: int) -> None:
    with pytest.raises(TeiError) as caught:
        check_dimensions(dimensions, 384)
    assert caught.value.error_type is ErrorType.VALIDATION


@pytest.mark.parametrize("dimensions", [None, 1, 384])
def test_dimensions_that_the_model_has_are_accepted(dimensions: int | None) -> None:
    check_dimensions(dimensions, 384)
