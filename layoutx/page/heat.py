"""A tensor as a small picture: a cell shows its number of largest magnitude, so that no outlier is averaged away."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array

ROWS, COLUMNS = 48, 96
LEVELS = 120  # on each side of zero
CENTRE, NAN = 127, 255
COLD, WARM, MIDDLE, WRONG = (33, 92, 158), (189, 68, 22), (245, 245, 243), (214, 51, 108)


@frozen
class Heat:
    """A heat map.

    Attributes:
        png: a data URI. shape: its pixels. cell: rows and columns of the tensor in one pixel.
        end: where the colours end; strange: numbers that are NaN or infinite.
    """

    png: str
    shape: tuple[int, int]
    cell: tuple[int, int]
    end: float
    strange: int

    @property
    def caption(self) -> str:
        """What a reader must know to trust the picture."""
        down, along = self.cell
        each = "one number a pixel" if self.cell == (1, 1) else f"a pixel is the largest of {down} × {along} numbers"
        wrong = f"; {self.strange:,} NaN or infinite (pink)" if self.strange else ""
        return f"blue −{self.end:.3g} … +{self.end:.3g} orange; {each}{wrong}"


def heat(plane: Array) -> Heat:
    """The heat map of a plane (rows, columns) of real numbers, at most 48 by 96 pixels."""
    rows, columns = plane.shape
    cell = (-(-rows // ROWS), -(-columns // COLUMNS))
    strange = int(plane.size - np.count_nonzero(np.isfinite(plane)))
    small = _largest(plane, cell)
    finite = np.abs(small[np.isfinite(small)])
    end = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    end = end or (float(finite.max()) if finite.size else 0.0)
    with np.errstate(invalid="ignore"):
        levels = np.clip(np.round(small / (end or 1.0) * LEVELS), -LEVELS, LEVELS)
    index = np.where(np.isfinite(small), levels + CENTRE, NAN).astype(np.uint8)
    return Heat(png(index), index.shape, cell, end, strange)


def _largest(plane: Array, cell: tuple[int, int]) -> Array:
    """The number of largest magnitude in each cell; NaN where a cell holds one that is not finite."""
    kept = plane.astype(np.float32, copy=False)
    for axis, size in enumerate(cell):
        if size > 1:
            starts = np.arange(0, kept.shape[axis], size)
            high, low = np.maximum.reduceat(kept, starts, axis), np.minimum.reduceat(kept, starts, axis)
            kept = np.where(np.abs(low) > np.abs(high), low, high)
    return kept


def png(index: Array) -> str:
    """A palette image (rows, columns) of uint8 as a data URI."""
    rows, columns = index.shape
    raw = b"".join(b"\0" + row.tobytes() for row in index)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _palette() -> bytes:
    colours = []
    for level in range(256):
        share = min(abs(level - CENTRE) / LEVELS, 1.0) ** 0.8
        end = COLD if level < CENTRE else WARM
        colour = WRONG if level == NAN else tuple(round(m + (e - m) * share) for m, e in zip(MIDDLE, end, strict=True))
        colours.append(bytes(colour))
    return b"".join(colours)
