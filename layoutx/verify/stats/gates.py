"""Recurrent layers: gates that no state can move, and a recurrence that grows what it remembers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutx.verify.stats.finding import NOTE, SUSPECT, Finding
from layoutx.verify.stats.look import Look, Matrix, matrix, spell
from layoutx.verify.stats.spectral import spectral_radius
from layoutx.words import listed

MARGIN = 1.01  # an orthogonal start has 1, up to rounding
STUCK = 4.6  # sigmoid is beyond 0.99 here, tanh beyond 0.9998


def gate_findings(look: Look) -> Iterator[Finding]:
    """What the recurrent weights and biases show by themselves."""
    if "w_recurrent" not in look.stored:
        return
    recurrent, given = matrix(look, "w_recurrent"), matrix(look, "w_input")
    if recurrent is None or given is None:
        return
    if any(axis == "gate" for axis, _ in recurrent.out):
        yield from _stuck(look, recurrent, given)
    else:
        yield from _growing(look, recurrent)


def _stuck(look: Look, recurrent: Matrix, given: Matrix) -> Iterator[Finding]:
    """Gates that stay beyond STUCK whatever the hidden state is: its numbers lie between -1 and 1."""
    axes = [axis for axis, _ in (*recurrent.apart, *recurrent.out)]
    bias = sum(
        look.values[role].astype(np.float64).transpose([look.axes[role].index(a) for a in axes])
        for role in ("b_input", "b_recurrent")
        if role in look.values and sorted(look.axes[role]) == sorted(axes)
    )
    if not isinstance(bias, np.ndarray) or look.bound.facts.get("activation", "tanh") != "tanh":
        return
    flat = bias.reshape(recurrent.array.shape[:2])
    reach = np.abs(recurrent.array.astype(np.float64)).sum(axis=2)
    weights = np.abs(given.array.astype(np.float64)).sum(axis=2)
    spare = np.abs(flat) - STUCK - reach
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(weights > 0, spare / weights, np.inf)
    stuck = (spare > 0) & (needed >= 1.0)
    for sign, word in ((1, "open (1)"), (-1, "closed (0)")):
        at = np.argwhere(stuck & (np.sign(flat) == sign))
        if not len(at):
            continue
        names = tuple(
            ", ".join(filter(None, (spell(look, recurrent.apart, int(a)) if flat.shape[0] > 1 else "",
                                    spell(look, recurrent.out, int(o))))) for a, o in at
        )  # fmt: skip
        least = float(min(needed[tuple(i)] for i in at))
        yield Finding(
            "stuck gates",
            SUSPECT,
            look.name,
            f"{len(names)} of {flat.size} gate sums stay beyond {STUCK} in size, whatever the state",
            f"{listed(names)}: {word}",
            f"inputs below {least:.2g} in size do not move them: a sigmoid is then within 1 % of its end, "
            "and passes hardly any gradient",
            "look at the bias: its start, its regularisation, the scale of the inputs",
            len(names),
            names,
        )


def _growing(look: Look, recurrent: Matrix) -> Iterator[Finding]:
    radius = spectral_radius(recurrent)
    if radius is None or radius <= MARGIN:
        return
    yield Finding(
        "growing recurrence",
        NOTE if radius < 1.5 else SUSPECT,
        look.name,
        f"the largest eigenvalue of the recurrent weights is {radius:.3g} in size",
        "w_recurrent",
        "above 1 a small state grows from step to step until the activation holds it: gradients may explode",
        "clip gradients, or start from an orthogonal matrix",
    )
