"""Linear passes over JSON bytes that msgspec does not offer: repair them, and count elements
without building objects.

Both work on numpy blocks, so that no input makes them slow: 15 to 45 ms per MB for any content.
Regular expressions were measured against it: as fast for real bodies, but 16 s for 15 MB of nested
brackets. Knows strings and brackets only.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

MAX_DEPTH = 64

# 16 to 256 KB are equally fast; 16 MB exceed the cache and take three times as long.
_BLOCK_BYTES = 1 << 16

_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.int64]


class _Block(NamedTuple):
    """A part of the body; every mask has one element per byte."""

    start: int
    bytes: _Bytes
    is_escaped: _Mask  # preceded by an odd number of backslashes
    is_string: _Mask  # inside a string
    is_open: _Mask  # an opening bracket or brace
    level: npt.NDArray[np.int32]  # enclosing containers; a bracket counts its own


def repair(body: bytes | msgspec.Raw, *, block_bytes: int = _BLOCK_BYTES) -> bytes:
    """Make JSON decodable that msgspec refuses.

    The length stays the same, so byte offsets in errors are right.

    A lone surrogate escape becomes `\\ufffd`. A container nested deeper than 64 levels becomes the
    number 0 and blanks. Invalid JSON stays invalid.
    """
    repaired = np.frombuffer(body, np.uint8).copy()
    surrogates = []
    for block in _blocks(repaired, block_bytes):
        is_deep = block.level > MAX_DEPTH
        is_surrogate = block.is_escaped & block.is_string & (block.bytes == ord("u"))
        surrogates.append(np.flatnonzero(is_surrogate) + block.start)
        is_deepest_open = is_deep & block.is_open & (block.level == MAX_DEPTH + 1)
        block.bytes[is_deep] = ord(" ")
        block.bytes[is_deepest_open] = ord("0")
    if surrogates:
        _replace_lone(repaired, np.concatenate(surrogates))
    return repaired.tobytes()


def count_elements(array: bytes | msgspec.Raw) -> int:
    """The number of elements of a JSON array; 1 for an empty one. Uses no memory per element."""
    found = 1
    for block in _blocks(np.frombuffer(array, np.uint8), _BLOCK_BYTES):
        found += int(
            np.count_nonzero((block.bytes == ord(",")) & (block.level == 1) & ~block.is_string)
        )
    return found


def _blocks(body: _Bytes, block_bytes: int) -> Iterator[_Block]:
    backslashes = 0  # at the end of the previous block
    is_string = False
    depth = 0
    for start in range(0, len(body), block_bytes):
        block = body[start : start + block_bytes]
        is_escaped, backslashes = _escaped(block, backslashes)
        quotes = (block == ord('"')) & ~is_escaped
        strings = np.logical_xor.accumulate(quotes) ^ is_string
        is_string = bool(strings[-1])
        folded = block | 0x20  # [ and { become {, ] and } become }
        is_open = (folded == ord("{")) & ~strings
        is_close = (folded == ord("}")) & ~strings
        depths = depth + np.cumsum(is_open.view(np.int8) - is_close.view(np.int8), dtype=np.int32)
        depth = int(depths[-1])
        yield _Block(start, block, is_escaped, strings, is_open, depths + is_close)


def _escaped(block: _Bytes, backslashes: int) -> tuple[_Mask, int]:
    index = np.arange(len(block), dtype=np.int32)
    # The index of the last byte, up to each one, that is not a backslash; of the previous block,
    # negative indexes.
    other = np.maximum.accumulate(np.where(block != ord("\\"), index, np.int32(-1 - backslashes)))
    before = np.concatenate((np.array([-1 - backslashes], np.int32), other[:-1]))
    # Only the parity matters, and it keeps the carried number small.
    return ((index - 1 - before) & 1).astype(np.bool_), int(len(block) - 1 - other[-1]) & 1


def _replace_lone(body: _Bytes, escapes: _Numbers) -> None:
    """Overwrite the surrogates without a partner among `escapes`, the positions of the u of every
    `\\uXXXX`.
    """
    escapes = escapes[escapes + 4 < len(body)]
    escapes = escapes[body[escapes + 1] | 0x20 == ord("d")]
    second = body[escapes + 2] | 0x20  # digits have this bit already
    is_high = np.isin(second, np.frombuffer(b"89ab", np.uint8))
    is_low = np.isin(second, np.frombuffer(b"cdef", np.uint8))
    # The halves of a pair are adjacent, and `escapes` is in order: its neighbours are the only
    # candidates.
    is_pair = is_high[:-1] & is_low[1:] & (np.diff(escapes) == len(rb"\uXXXX"))
    is_lone = is_high | is_low
    is_lone[:-1] &= ~is_pair
    is_lone[1:] &= ~is_pair
    for offset, digit in enumerate(b"fffd", start=1):
        body[escapes[is_lone] + offset] = digit
