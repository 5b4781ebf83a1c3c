"""The IDX files of MNIST: a header that says kind and sizes, and the bytes."""

from __future__ import annotations

import struct

import numpy as np

from mtbench.errors import BadInput
from mtbench.inputs import Array

__all__ = ["read_idx"]

BYTES = 0x08
"""The code of unsigned bytes, the third byte of a file; the fourth is how many sizes follow, each four bytes,
the highest first."""


def read_idx(name: str, text: bytes, shape: tuple[int, ...]) -> Array:
    """[items, *shape] uint8 of a file's content.

    Raises:
        BadInput: it is not IDX, not of bytes, of another shape, or not as long as it says.
    """
    axes = 1 + len(shape)
    begin = 4 + 4 * axes
    if len(text) < begin or text[:2] != b"\0\0":
        raise BadInput(f"{name} is not an IDX file: it begins with {text[:4].hex() or 'nothing'}")
    if text[2:4] != bytes((BYTES, axes)):
        raise BadInput(
            f"{name} holds IDX data of kind {text[2]:#04x} with {text[3]} axes, and wanted are unsigned "
            f"bytes ({BYTES:#04x}) with {axes}"
        )
    items, *found = struct.unpack(f">{axes}I", text[4:begin])
    if tuple(found) != shape:
        raise BadInput(f"{name} holds items of {found}, and wanted are {list(shape)}")
    size = items * int(np.prod(shape))
    if len(text) - begin != size or not items:
        raise BadInput(
            f"{name} says that it holds {items} items, {size} bytes, and has {len(text) - begin} bytes of "
            "them"
        )
    return np.frombuffer(text, np.uint8, offset=begin).reshape(items, *shape)
