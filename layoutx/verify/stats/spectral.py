"""Singular values of large matrices without their decomposition, and the largest eigenvalue of square ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.stats.look import Matrix, floats

EXACT = 192  # up to this many rows or columns the eigenvalues of the smaller Gram matrix are computed
GRAM = 2048  # up to this many the smaller Gram matrix is formed: one product instead of many
STEPS = 64
CLOSE = 1e-6
SQUARE = 512  # the eigenvalues of a larger recurrent matrix are not computed


def spectral_norm(found: Matrix) -> float | None:
    """The largest singular value: by how much the layer can stretch an input. None where a number is not finite.

    Of blocks that do not mix (groups, directions) the largest of theirs. A convolution's kernel counts as
    (out, in times kernel positions): the norm on one patch, at most sqrt(kernel positions) below that of the layer.
    """
    array = floats(found.array)
    if not np.isfinite(array).all():
        return None
    return max((largest_singular(block) for block in array), default=0.0)


def largest_singular(matrix: Array) -> float:
    """The largest singular value of one matrix (rows, columns); of a large one from below, to about four digits."""
    if not matrix.size or not matrix.any():
        return 0.0
    scale = float(np.abs(matrix).max())
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if wide.shape[0] <= EXACT:
        wide = wide.astype(np.float64) / scale
        return scale * float(np.linalg.eigvalsh(wide @ wide.T)[-1] ** 0.5)
    wide = wide / np.asarray(scale, wide.dtype)
    if wide.shape[0] > GRAM:
        return scale * math.sqrt(_largest(lambda x: wide @ (x @ wide), wide.shape[0], wide.dtype))
    gram = wide @ wide.T
    return scale * math.sqrt(_largest(lambda x: gram @ x, wide.shape[0], wide.dtype))


def _largest(times: Callable[[Array], Array], size: int, dtype: Any) -> float:
    """The largest eigenvalue of a symmetric product (Lanczos, orthogonalised), from a fixed start: always the same."""
    start = np.random.default_rng(0).normal(size=size)
    basis = [(start / np.linalg.norm(start)).astype(dtype)]
    diagonal, beside = list[float](), list[float]()
    found = 0.0
    for _ in range(min(STEPS, size)):
        vector = times(basis[-1])
        diagonal.append(float(vector @ basis[-1]))
        again = float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[-1])
        vector = _apart(vector, basis)
        beta = float(np.linalg.norm(vector))
        if beta <= CLOSE * again or again - found <= CLOSE * again:
            return again
        found = again
        beside.append(beta)
        basis.append(vector / np.asarray(beta, dtype))
    return found


def _apart(vector: Array, basis: list[Array]) -> Array:
    """A vector without its part in the basis; twice, since once leaves rounding behind."""
    held = np.stack(basis)
    for _ in range(2):
        vector = vector - (held @ vector) @ held
    return vector


def spectral_radius(found: Matrix) -> float | None:
    """The largest absolute eigenvalue of square blocks; None where they are not square, too large or not finite."""
    array = found.array
    if array.shape[1] != array.shape[2] or array.shape[1] > SQUARE or not np.isfinite(floats(array)).all():
        return None
    return max((float(np.abs(np.linalg.eigvals(block.astype(np.float64))).max()) for block in array), default=0.0)
