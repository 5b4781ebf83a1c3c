"""A sheet of images as PNG."""

from __future__ import annotations

import io

import numpy as np

from mtbench.inputs import Array

__all__ = ["sheet_png"]

COLUMNS, GAP, SIDE = 8, 2, 280
"""Images side by side, at most, the pixels between them, and how wide a column is at the least, so that a
pixel of a small image can be seen."""
PAPER = 255


def sheet_png(images: Array) -> bytes:
    """The images [count, rows, columns, channels] uint8 in a grid, each pixel a square.

    >>> sheet_png(np.zeros((3, 4, 4, 1), np.uint8))[1:4]
    b'PNG'
    """
    from matplotlib.image import imsave

    count, rows, columns, channels = images.shape
    across = min(COLUMNS, count)
    down = -(-count // across)
    scale = max(1, SIDE // 4 // columns)
    height, width = rows * scale + GAP, columns * scale + GAP
    sheet = np.full((down * height + GAP, across * width + GAP, 3), PAPER, np.uint8)
    for number, image in enumerate(images):
        top, left = GAP + number // across * height, GAP + number % across * width
        large = image.repeat(scale, 0).repeat(scale, 1)
        sheet[top : top + rows * scale, left : left + columns * scale] = (
            large if channels == 3 else large[..., :1]
        )
    out = io.BytesIO()
    imsave(out, sheet, format="png", pil_kwargs={"optimize": True})
    return out.getvalue()
