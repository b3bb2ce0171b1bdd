"""What the TEI client makes of answers, without the network."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shared.service.errors import DependencyError, MillstreamError, RejectedError
from shared.tei.client import (
    Backoff,
    InputRejectedError,
    TeiBackendError,
    TeiInfo,
    TeiOverloadedError,
    Vectors,
    decode_vectors,
    error_of,
)


@settings(deadline=None)
@given(
    npst.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 16)),
        elements=st.floats(-1, 1, width=32).map(lambda x: x or 0.5),
    )
)
def test_vectors_survive_the_way_over_json_bit_by_bit(vectors: Vectors) -> None:
    answer = msgspec.json.encode(vectors.tolist())
    decoded = decode_vectors(answer, *vectors.shape)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, vectors)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "not a list of vectors"),
        (b"<html>", "not a list of vectors"),
        (b'{"error":"x"}', "not a list of vectors"),
        (b"[[0.1,0.2],[0.3]]", "not a list of vectors"),
        (b"[[0.1,null],[0.3,0.4]]", "not finite"),
        (b"[[0.1,NaN],[0.3,0.4]]", "not a list of vectors"),
        (b'[["a","b"],["c","d"]]', "not a list of vectors"),
        (b"[[0.1,\xff]]", "not a list of vectors"),
        (b"[]", "0 vectors for 2 texts"),
        (b"[[0.1,0.2]]", "1 vectors for 2 texts"),
        (b"[[0.1,0.2],[0.3,0.4],[0.5,0.6]]", "3 vectors for 2 texts"),
        (b"[[],[]]", "dimension 0"),
        (b"[[0.1],[0.2]]", "dimension 1, expected 2"),
        (b"[[0.1,1e39],[0.3,0.4]]", "not finite"),
        (b"[[0.1,0.2],[0.0,0.0]]", "zero"),
    ],
)
def test_garbage_is_a_fault_of_tei(answer: bytes, problem: str) -> None:
    with pytest.raises(DependencyError, match=problem) as caught:
        decode_vectors(answer, 2, 2)
    assert caught.value.service == "tei"


def test_any_dimension_is_right_while_none_is_known() -> None:
    assert decode_vectors(b"[[0.1,0.2,0.3]]", 1).shape == (1, 3)


def body(error_type: str, error: str = "what TEI says") -> bytes:
    return msgspec.json.encode({"error": error, "error_type": error_type})


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (429, body("Overloaded"), TeiOverloadedError),
        (429, b"slow down", TeiOverloadedError),
        (424, body("Backend"), TeiBackendError),
        (422, body("Tokenizer"), InputRejectedError),
        (422, body("Validation"), InputRejectedError),
        (413, body("Validation"), InputRejectedError),  # up to 1.8
        (400, body("Empty"), InputRejectedError),
        (413, b"length limit exceeded", InputRejectedError),
        (503, body("Unhealthy"), DependencyError),
        (502, b"<html>bad gateway</html>", DependencyError),
        (504, b"", DependencyError),
        (500, body("Validation"), DependencyError),  # not a status of TEI's for it
        (401, b"", DependencyError),
        (404, b"Not Found", DependencyError),
        (400, b"<html>a proxy</html>", DependencyError),  # must not condemn documents
        (422, b"Failed to deserialize the JSON body", DependencyError),
        (599, b"", DependencyError),
    ],
)
def test_every_answer_has_one_meaning(
    status: int, answer: bytes, expected: type[MillstreamError]
) -> None:
    assert type(error_of(status, answer)) is expected


def test_only_rejections_are_the_documents_fault_not_back_pressure_or_backend_errors() -> None:
    assert issubclass(TeiOverloadedError, DependencyError)
    assert issubclass(TeiBackendError, DependencyError)
    assert issubclass(InputRejectedError, RejectedError)


def test_a_rejection_says_what_tei_says_within_bounds() -> None:
    error = error_of(422, body("Validation", "must have less than 256 tokens. " * 100))
    assert isinstance(error, RejectedError)
    assert error.code == "tei_rejected"
    assert error.reason.startswith("must have less than 256 tokens.")
    assert len(error.reason) <= 300


def test_a_wrong_key_names_the_setting() -> None:
    assert "WEBHOOK_TEI_API_KEY" in str(error_of(401, b""))


@pytest.mark.parametrize(
    ("version", "counts_inputs"),
    [
        ("1.9.0", True),
        ("1.8.3", False),
        ("1.10.0", True),
        ("2.0.0-dev", True),
        ("0.6.0", False),
        ("dev", True),
    ],
)
def test_permits_count_inputs_from_version_1_9_on(version: str, counts_inputs: bool) -> None:
    info = TeiInfo(
        model_id="m",
        version=version,
        max_input_length=1,
        max_batch_tokens=1,
        max_client_batch_size=1,
        max_concurrent_requests=1,
    )
    assert info.counts_inputs is counts_inputs


@settings(deadline=None)
@given(st.integers(1, 100), st.floats(0, 1))
def test_a_pause_is_anywhere_between_nothing_and_a_growing_bound(
    failures: int, point: float
) -> None:
    backoff = Backoff(jitter=lambda low, high: low + point * (high - low))
    assert 0 <= backoff.delay_s(failures) <= min(5.0, 0.1 * 2.0 ** (failures - 1))
    assert Backoff(jitter=lambda low, high: low).delay_s(failures) == 0
