"""The bundled model on disk: found, verified, converted once into a cache, opened as a backend."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from local.tei.batch import Vectors
from local.tei.engine import Backend
from shared.service.errors import ConfigurationError
from shared.tei.tokenizer import bundled_file

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GRAPH_VERSION = 1  # of what convert.py builds: one more makes every cache convert again


def cached_model(cache_dir: Path) -> Path:
    """The ONNX model in `cache_dir`, converted first if it is not there (about 2 s); blocks.

    Raises ConfigurationError if the weights are missing or not the expected ones, or the conversion
    fails.
    """
    target = cache_dir / f"all-minilm-l6-v2-{WEIGHTS_SHA256[:16]}-{GRAPH_VERSION}.onnx"
    if not target.exists():
        _convert(bundled_file("model.safetensors", WEIGHTS_SHA256), target)
    return target


def _convert(weights: Path, target: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "local.tei.convert",
        str(weights.resolve()),
        str(target.resolve()),
    ]
    # A session of its own: Ctrl-C is for the server, which then ends; the converter ends by itself.
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise ConfigurationError(
            f"the embedding model could not be converted into {target.parent} ({reason}): "
            "check that the directory can be written and has 200 MB free"
        )


def open_backend(model: Path) -> Backend:
    """Load the ONNX model (about 0.2 s, 190 MB); the backend may be called from several threads at
    once.

    Raises ConfigurationError if the file is not the model that convert.py writes.
    """
    options = onnxruntime.SessionOptions()
    # Each call computes in its caller's thread: two calls on two threads beat one call that uses
    # both.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # patterns are kept per shape: 30 MB more, and no faster
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no other base
        raise ConfigurationError(
            f"{model} cannot be loaded ({error}): delete it and start again"
        ) from error

    def run(ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]) -> Vectors:
        vectors: Vectors = session.run(["vectors"], {"ids": ids, "lengths": lengths})[0]
        return vectors

    return run
