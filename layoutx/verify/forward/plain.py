"""Dense, embedding, layer scale, bare matrices and PReLU: one line of mathematics each."""

from __future__ import annotations

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.shapes import Arrays, Facts, biased, need, sizes_of


def dense(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, np.ndarray]:
    """y = x kernel + bias.

    kernel (input, output), bias (output) or absent; x (batch..., input) -> y (batch..., output).
    """
    (kernel,), (data,) = need("dense", roles, "kernel"), need("dense", x, "x")
    bias = roles.get("bias")
    sizes_of("dense", {"kernel": (kernel, "input output"), "bias": (bias, "output"), "x": (data, "batch... input")})
    y = data @ kernel
    return {"y": biased(y, bias)}


def embedding(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, np.ndarray]:
    """y = the rows of the table that x names.

    table (vocab, dim); x integers (batch...) in 0..vocab-1 -> y (batch..., dim).

    Raises:
        UsageError: x holds no integers, or one that is no row (NumPy would count negatives from the end).
    """
    (table,), (data,) = need("embedding", roles, "table"), need("embedding", x, "x")
    sizes = sizes_of("embedding", {"table": (table, "vocab dim")})
    if not np.issubdtype(data.dtype, np.integer):
        raise UsageError(f"embedding: x is {data.dtype}", why="it names rows of the table", do="give integers")
    if data.size and not (data.min() >= 0 and data.max() < sizes["vocab"]):
        raise UsageError(
            f"embedding: x holds {data.min()}..{data.max()}",
            where=f"table (vocab={sizes['vocab']}, dim={sizes['dim']})",
        )
    return {"y": table[data]}


def layer_scale(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, np.ndarray]:
    """y = x gamma.

    gamma (channel); x (batch..., channel) -> y of the same shape.
    """
    (gamma,), (data,) = need("layer_scale", roles, "gamma"), need("layer_scale", x, "x")
    sizes_of("layer_scale", {"gamma": (gamma, "channel"), "x": (data, "batch... channel")})
    return {"y": data * gamma}


def matrices(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, np.ndarray]:
    """y = x matrix, matrix by matrix.

    matrix (outer, stack, row, column); x (batch, outer, stack, row) -> y (batch, outer, stack, column).
    """
    (matrix,), (data,) = need("matrices", roles, "matrix"), need("matrices", x, "x")
    sizes_of("matrices", {"matrix": (matrix, "outer stack row column"), "x": (data, "batch outer stack row")})
    return {"y": (data[..., None, :] @ matrix)[..., 0, :]}


def prelu(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, np.ndarray]:
    """y = x where x > 0, alpha x elsewhere.

    alpha (..., channel), every size may be 1 and is then shared; x (batch, ..., channel) -> y of the same shape.
    """
    (alpha,), (data,) = need("prelu", roles, "alpha"), need("prelu", x, "x")
    fits = alpha.ndim < data.ndim and all(
        a in (1, n) for a, n in zip(alpha.shape[::-1], data.shape[:0:-1], strict=False)
    )
    if not fits:
        raise SizeError(
            f"prelu: alpha {alpha.shape} does not fit x {data.shape}",
            where=("alpha (..., channel)", "x (batch, ..., channel)"), why="every size of alpha must be 1 or that of x",
        )  # fmt: skip
    return {"y": np.where(data > 0, data, alpha * data)}
