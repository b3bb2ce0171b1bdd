import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from local.tei.convert import LAYERS, Weights, build_model, convert
from local.tei.model import GRAPH_VERSION, cached_model, open_backend
from shared.service.errors import ConfigurationError

LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
GRAPH_SHA256 = {1: "d39e9b0ad347b8f1b156bb695e4a1e290d0729133037e4cf91c78a40d42485d2"}


def tiny_weights() -> Weights:
    layers = [f"encoder.layer.{layer}.{name}" for layer in range(LAYERS) for name in LINEAR + NORMS]
    tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    matrices = [f"{name}.weight" for name in layers if not name.endswith("LayerNorm")] + tables
    norms = ["embeddings.LayerNorm", *(name for name in layers if name.endswith("LayerNorm"))]
    vectors = [f"{name}.weight" for name in norms] + [f"{name}.bias" for name in (*norms, *layers)]
    return dict.fromkeys(matrices, square) | dict.fromkeys(vectors, square[0])


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    save_file(dict(tiny_weights()), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_graph_is_a_valid_onnx_model() -> None:
    onnx.checker.check_model(build_model(tiny_weights()))


def test_a_changed_graph_has_a_new_version() -> None:
    # Every cache holds the old graph under the old version: raise GRAPH_VERSION and add the new
    # hash here.
    digest = hashlib.sha256(
        build_model(tiny_weights()).SerializeToString(deterministic=True)
    ).hexdigest()
    assert GRAPH_SHA256[GRAPH_VERSION] == digest


def test_what_a_killed_converter_left_behind_is_replaced(
    weights_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache" / "model.onnx"
    target.parent.mkdir()
    target.with_suffix(".partial").write_bytes(b"half a model")
    target.with_suffix(".lock").touch()
    convert(weights_file, target)
    onnx.checker.check_model(onnx.load(target))
    assert not target.with_suffix(".partial").exists()


def test_a_model_that_is_there_is_not_converted_again(weights_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the other converter was faster")
    convert(weights_file, target)
    assert target.read_bytes() == b"the other converter was faster"


def test_a_directory_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(
        ConfigurationError, match=r"could not be converted into .*cache.*can be written"
    ):
        cached_model(tmp_path / "cache")


def test_a_file_that_is_no_model_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match=r"model\.onnx cannot be loaded .*delete it"):
        open_backend(tmp_path / "model.onnx")
