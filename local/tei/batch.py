"""Token ids to the arrays that the model takes, and its vectors to what a client asked for.

Pure.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from local.tei.contract import invalid

Vectors = npt.NDArray[np.float32]

DIMENSION = 384
# What one run of the model takes. Larger runs are no faster on a CPU, their intermediate results
# only fall out of its cache; with 2,048 tokens a query waited up to 0.6 s for a thread, and the
# process took 100 MB more.
MAX_INPUTS = 8
MAX_TOKENS = 512


def pack(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group inputs of similar length, longest first: indexes into `lengths`, each exactly once.

    A group has at most 8 inputs and at most `max_tokens` padded tokens; an input longer than that
    is alone.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        group = groups[-1] if groups else []
        # The first of a group is its longest, so it says how wide every row is.
        if group and len(group) < MAX_INPUTS and (len(group) + 1) * lengths[group[0]] <= max_tokens:
            group.append(index)
        else:
            groups.append([index])
    return groups


def pad(rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """`ids` int64[n, longest], padded with 0 on the right, and `lengths` int32[n]."""
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    return ids, lengths


def check_dimensions(dimensions: int | None, available: int) -> None:
    """Raise TeiError for a number of dimensions that the model cannot give."""
    if dimensions == 0:
        raise invalid("`dimensions` should be positive")
    if dimensions is not None and dimensions > available:
        raise invalid("`dimensions` should be smaller than the maximum embedding dimension.")


def finish(vectors: Vectors, dimensions: int | None, *, normalize: bool) -> Vectors:
    """The first `dimensions` of each vector, scaled to length 1 if asked (norm in float64, as TEI
    has it).
    """
    kept = vectors[:, :dimensions]
    if not normalize:
        return kept
    norms = np.sqrt(np.square(kept, dtype=np.float64).sum(axis=1, keepdims=True))
    scaled: Vectors = kept * (1.0 / norms).astype(np.float32)
    return scaled


def short_floats(vectors: Vectors) -> list[list[float]]:
    """Floats whose shortest JSON text has 9 digits, which is enough to give back the same float32.

    Without this a float32 is written with the 17 digits of a float64: 257 instead of 166 KB for 32
    vectors, and 0.69 instead of 0.41 ms for the client to decode; it costs 0.1 ms.
    """
    wide = vectors.astype(np.float64)
    scale = 10.0 ** (8 - np.floor(np.log10(np.maximum(np.abs(wide), 1e-14))))
    rounded: list[list[float]] = (np.rint(wide * scale) / scale).tolist()
    return rounded
