"""Layers whose numbers look as an initialiser left them: never trained, or never loaded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.stats.finding import SUSPECT, Finding
from layoutx.verify.stats.look import Look, Matrix, bias_of, floats, matrices

LEAST = 64  # numbers; fewer say too little about their distribution
NEAR = 0.01
TRUNCATED = 0.87962566103423978  # the spread of a normal distribution cut at two of its standard deviations


def start_findings(look: Look) -> Iterator[Finding]:
    """Kernels that are spread as an initialiser spreads them, beside a bias that is where it starts."""
    if look.bound.kind.name == "embedding":
        return
    found = matrices(look)
    if not found:
        yield from _norm(look)
        return
    said = [(one.role, _initialiser(one)) for one in found]
    pairs = [(b, one) for one in found if (b := bias_of(look, one.role)) and b in look.stored]
    bias = [b for b, _ in pairs]
    if not all(name for _, name in said):
        return
    bounded = all(name.endswith("uniform") or name == "orthogonal" for _, name in said)
    if bias and not all(_at_start(look.values[b], one) for b, one in pairs):
        return
    if not bias and not bounded:
        return
    yield Finding(
        "looks untrained",
        SUSPECT,
        look.name,
        ", ".join(f"{role} is spread as {name} spreads it" for role, name in said)
        + (f", and {' and '.join(bias)} {'is' if len(bias) == 1 else 'are'} as at the start" if bias else ""),
        ", ".join((*(role for role, _ in said), *bias)),
        "training moves the spread and the bias: a layer that was trained rarely looks so",
        "see whether the right file was loaded, whether the layer was frozen or its gradient cut",
    )


def _initialiser(found: Matrix) -> str:
    """The initialiser whose spread a kernel has within NEAR, "" for none; uniform ones must keep their ends too."""
    array = floats(found.array)
    if array.size < LEAST or not np.isfinite(array).all():
        return ""
    if _orthogonal(array):
        return "orthogonal"
    fields = int(np.prod([n for axis, n in found.into[1:]], dtype=np.int64))
    fan_in, fan_out = array.shape[2], array.shape[0] * array.shape[1] * fields
    whole = float(np.abs(array).max())
    spread = float(array.std(dtype=np.float64))
    room = max(NEAR, 2.0 / np.sqrt(array.size))
    limits = {
        "glorot_uniform": (6.0 / (fan_in + fan_out)) ** 0.5,
        "glorot_uniform (of one group)": (6.0 / (fan_in + array.shape[1] * fields)) ** 0.5,
        "he_uniform": (6.0 / fan_in) ** 0.5,
        "lecun_uniform": (3.0 / fan_in) ** 0.5,
    }
    for name, limit in [*limits.items(), *(("torch's uniform", limit) for limit in _of_torch(found))]:
        ends = limit * (1 - 12.0 / array.size) <= whole <= limit * (1 + 1e-6)
        if ends and abs(spread / (limit / 3**0.5) - 1) <= room:
            return name.partition(" (")[0]
    for name, variance in {"glorot_normal": 2.0 / (fan_in + fan_out), "he_normal": 2.0 / fan_in,
                           "lecun_normal": 1.0 / fan_in}.items():  # fmt: skip
        cut = 2 * variance**0.5 / TRUNCATED
        for end in (cut, np.inf):  # Keras cuts the tails, torch does not
            if whole <= end * (1 + 1e-6) and abs(spread / variance**0.5 - 1) <= NEAR and _normal(array, whole, spread):
                return name
    return ""


def _normal(array: Array, whole: float, spread: float) -> bool:
    """Whether about two thirds of the numbers lie within one standard deviation, as of a normal distribution."""
    inside = np.count_nonzero(np.abs(array) < spread) / array.size
    return bool(abs(inside - 0.66) < 0.04 and whole > 1.9 * spread)


def _orthogonal(array: Array) -> bool:
    """Whether the rows or the columns of every block are orthonormal, gate by gate or as a whole."""
    out, into = array.shape[1:]
    if min(out, into) < 4 or max(out, into) > 4096:
        return False
    if abs(float(np.vdot(array, array)) / (array.shape[0] * min(out, into)) - 1) > 1e-3:
        return False
    eye = np.eye(min(out, into))
    products = (block @ block.T if out <= into else block.T @ block for block in array)
    return all(np.allclose(product, eye, atol=1e-4) for product in products)


def _at_start(bias: Array, found: Matrix) -> bool:
    """Whether a bias is all zero, ones for one gate at most, or spread as torch's uniform numbers to their bounds."""
    values = bias.astype(np.float64)
    if not values.any() or set(np.unique(values)) <= {0.0, 1.0}:
        return True
    whole = float(np.abs(values).max())
    room = 1.35 / values.size**0.5  # three standard deviations of the spread of so many uniform numbers
    ends = (
        limit * (1 - 12.0 / values.size) <= whole <= limit * (1 + 1e-6)
        and abs(float(values.std()) * 3**0.5 / limit - 1) <= room
        for limit in _of_torch(found)
    )
    return values.size >= 4 and any(ends)


def _of_torch(found: Matrix) -> list[float]:
    """Where torch's uniform start ends: one over the root of the inputs, of recurrent layers of the hidden size."""
    own = [size for axis, size in found.out if axis == "hidden"]
    return [size**-0.5 for size in (*own, found.array.shape[2])]


def _norm(look: Look) -> Iterator[Finding]:
    """A scale that is all one beside a shift that is all zero."""
    values = look.values
    if not {"gamma", "beta"} <= look.stored or values["gamma"].size < 4:
        return
    if (values["gamma"] == 1).all() and not values["beta"].any():
        yield Finding(
            "looks untrained",
            SUSPECT,
            look.name,
            "gamma is all 1 and beta all 0: as they start",
            "gamma, beta",
            "training moves both: the layer was not trained, or it was frozen",
            "see whether the right file was loaded, and whether the layer is frozen",
        )
