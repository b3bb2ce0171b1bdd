"""Weights of all-MiniLM-L6-v2 (safetensors) to an ONNX graph; run once, as a process of its own.

A process of its own, because onnx takes 0.6 s to import and the conversion 300 MB that the server
would keep. The graph maps `ids` int64[batch, length], padded on the right, and `lengths`
int32[batch] to `vectors` float32[batch, 384]: the mean of the token states, not normalised.
"""

import fcntl
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

LAYERS = 6
HEADS = 12
EPSILON = 1e-12
DIMENSION = 384

Weights = Mapping[str, npt.NDArray[np.float32]]


class _Graph:
    """Nodes and constants as they are added; names come from the order, so equal input gives equal
    bytes.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(
        self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        )
        return name

    def linear(self, x: str, weights: Weights, prefix: str) -> str:
        product = self.add("MatMul", x, self.constant(weights[f"{prefix}.weight"].T))
        return self.add("Add", product, self.constant(weights[f"{prefix}.bias"]))

    def layer_norm(self, x: str, weights: Weights, prefix: str) -> str:
        scale = self.constant(weights[f"{prefix}.weight"])
        bias = self.constant(weights[f"{prefix}.bias"])
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def build_model(weights: Weights) -> onnx.ModelProto:
    """The whole encoder with mean pooling, as one ONNX model (opset 20 and com.microsoft)."""
    graph = _Graph()
    length = graph.add("Shape", "ids", start=1, end=2)
    state = _embeddings(graph, weights, length)
    for layer in range(LAYERS):
        state = _layer(graph, weights, f"encoder.layer.{layer}", state)
    _mean_pool(graph, state, length)
    proto = helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIMENSION])],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=9)


def _embeddings(graph: _Graph, weights: Weights, length: str) -> str:
    # There is only one token type, so its row is added to every position beforehand.
    types = weights["embeddings.token_type_embeddings.weight"][0]
    positions = graph.constant(weights["embeddings.position_embeddings.weight"] + types)
    zero = graph.constant(np.array([0], np.int64))
    words = graph.add(
        "Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "ids", axis=0
    )
    summed = graph.add("Add", words, graph.add("Slice", positions, zero, length, zero))
    return graph.layer_norm(summed, weights, "embeddings.LayerNorm")


def _layer(graph: _Graph, weights: Weights, prefix: str, state: str) -> str:
    names = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
    packed = graph.constant(np.concatenate([weights[f"{name}.weight"].T for name in names], axis=1))
    bias = graph.constant(np.concatenate([weights[f"{name}.bias"] for name in names]))
    attended = graph.add(
        "Attention", state, packed, bias, "lengths", domain="com.microsoft", num_heads=HEADS
    )
    output = graph.linear(attended, weights, f"{prefix}.attention.output.dense")
    state = graph.layer_norm(
        graph.add("Add", output, state), weights, f"{prefix}.attention.output.LayerNorm"
    )
    inner = graph.linear(state, weights, f"{prefix}.intermediate.dense")
    # TEI computes the tanh form of GELU; with the exact form vectors are 2.5e-4 away from its own.
    inner = graph.add("Gelu", inner, approximate="tanh")
    output = graph.linear(inner, weights, f"{prefix}.output.dense")
    return graph.layer_norm(graph.add("Add", output, state), weights, f"{prefix}.output.LayerNorm")


def _mean_pool(graph: _Graph, state: str, length: str) -> None:
    scalar = graph.add("Squeeze", length)
    zero, one = graph.constant(np.array(0, np.int64)), graph.constant(np.array(1, np.int64))
    columns = graph.add("Cast", graph.add("Range", zero, scalar, one), to=TensorProto.INT32)
    last, first = graph.constant(np.array([-1], np.int64)), graph.constant(np.array([1], np.int64))
    rows = graph.add("Unsqueeze", "lengths", last)
    mask = graph.add("Cast", graph.add("Less", columns, rows), to=TensorProto.FLOAT)
    masked = graph.add("Mul", state, graph.add("Unsqueeze", mask, last))
    total = graph.add("ReduceSum", masked, first, keepdims=0)
    graph.add("Div", total, graph.add("Cast", rows, to=TensorProto.FLOAT), output="vectors")


def convert(weights: Path, target: Path) -> None:
    """Write the ONNX model to `target`, unless it is there; safe against kills and other
    converters.

    Only a complete file, synced to disk, ever gets the name. The lock dies with its process, and a
    partial file that a killed converter left behind is overwritten by the next.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(build_model(load_file(weights)).SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
