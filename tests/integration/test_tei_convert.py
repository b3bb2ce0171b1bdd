"""The conversion of the real weights, with kills and competitors."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from local.tei.convert import DIMENSION
from local.tei.model import WEIGHTS_SHA256, cached_model, open_backend
from shared.tei.tokenizer import bundled_file

pytestmark = pytest.mark.embedded_server("tei")


def start_converter(target: Path) -> subprocess.Popen[bytes]:
    weights = bundled_file("model.safetensors", WEIGHTS_SHA256)
    return subprocess.Popen([sys.executable, "-m", "local.tei.convert", str(weights), str(target)])


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.001)


def test_a_converter_killed_while_writing_leaves_nothing_that_is_served(tmp_path: Path) -> None:
    complete = cached_model(tmp_path / "undisturbed")
    target = tmp_path / "killed" / complete.name
    with start_converter(target) as converter:
        wait_for_file(target.with_suffix(".partial"))
        converter.kill()
    # The kill may come too late on a fast disk; then the file is complete.
    assert not target.exists() or target.read_bytes() == complete.read_bytes()
    again = cached_model(target.parent)
    assert again.read_bytes() == complete.read_bytes()
    vectors = open_backend(again)(np.array([[101, 102]]), np.array([2], np.int32))
    assert vectors.shape == (1, DIMENSION)


def test_two_converters_at_once_make_one_complete_model(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model.onnx"
    with start_converter(target) as one, start_converter(target) as other:
        assert [one.wait(timeout=60), other.wait(timeout=60)] == [0, 0]
    assert open_backend(target)(np.array([[101, 102]]), np.array([2], np.int32)).shape == (
        1,
        DIMENSION,
    )
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.lock", "model.onnx"]
