"""Two tensors lost at once where the source's weights are not known: what the outputs tell of both together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.evaluate import tolerance
from layoutx.verify.diagnose.fixes import ported
from layoutx.verify.diagnose.numbers import tensors_of
from layoutx.verify.diagnose.settings import NORMS
from layoutx.verify.diagnose.solved import everywhere, found_of, then
from layoutx.verify.diagnose.suspect import Edit, Suspect

INITIAL: Mapping[str, float] = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
SPARE = 2  # samples more than unknown numbers below which they explain anything
RELATED = 0.3  # correlation above which a kernel is a changed copy of the source's


def both_lost(suspect: Suspect) -> Iterator[Edit]:
    """Scale and shift, or statistics, at their initial values; a kernel and a bias that are not the source's (F13)."""
    if suspect.weights:
        return  # tensors are held against the source's own
    bound = suspect.target
    if bound.kind.name in NORMS:
        held = [role for role in INITIAL if tensors_of(bound, (role,))]
        lost = [role for role in held if everywhere(suspect, role, INITIAL[role])]
        if len(lost) > 1:
            names = [", ".join(tensors_of(bound, (role,))) for role in lost]
            what = f"{', '.join(names)} hold {', '.join(f'{INITIAL[r]:g}' for r in lost)} everywhere: not loaded"
            yield _edit(suspect, "missing scale and shift", what, "with a scale and a shift")
        return
    if bound.kind.name != "dense" or not tensors_of(bound, ("bias",)) or not everywhere(suspect, "bias", 0.0):
        return
    found = _solved(suspect)
    if found is not None:
        both = " and ".join(tensors_of(bound, ("kernel", "bias")))
        what = f"{both} hold other numbers than the source: the layer was not loaded"

        def apply(s: Suspect) -> Suspect:
            return then(s, lambda y: found.reshape(y.shape))

        yield Edit("F13", "kernel and bias", what, apply, ported(suspect), ported(suspect), "loaded", late=True)


def _edit(suspect: Suspect, family: str, what: str, short: str) -> Edit:
    return Edit("F13", family, what, _affine, ported(suspect), ported(suspect), short, late=True, solves=True)


def _affine(suspect: Suspect) -> Suspect:
    """A factor and a shift of each channel; unchanged where none fits."""
    pair = found_of(suspect)
    if pair is None:
        return suspect
    here, there = pair
    middle = there - there.mean(0)
    power = (middle**2).sum(0)
    factor = (middle * here).sum(0) / np.where(power > 0, power, 1.0)
    shift = here.mean(0) - factor * there.mean(0)
    if not np.abs(there * factor + shift - here).max(initial=0.0) <= tolerance(suspect):
        return suspect
    return then(suspect, lambda y: y * factor + shift)


def _solved(suspect: Suspect) -> Array | None:
    """What the linear function of the inputs gives that is nearest to the source; None where that is no other one."""
    pair = found_of(suspect)
    x = np.asarray(suspect.inputs["x"], np.float64)
    x = x.reshape(-1, x.shape[-1])
    if pair is None or len(pair[0]) != len(x) or len(x) < x.shape[1] + 1 + SPARE:
        return None
    wide = np.column_stack([x, np.ones(len(x))])
    right, now = (np.linalg.lstsq(wide, y, rcond=None)[0] for y in pair)
    fits = np.abs(wide @ right - pair[0]).max(initial=0.0) <= tolerance(suspect)
    flat = right[:-1].reshape(-1), now[:-1].reshape(-1)
    alike = abs(float(np.corrcoef(*flat)[0, 1])) if np.ptp(flat[1]) > 0 and np.ptp(flat[0]) > 0 else 0.0
    same_numbers = np.allclose(np.sort(flat[0]), np.sort(flat[1]), rtol=1e-3, atol=1e-3 * float(np.abs(flat[0]).max()))
    return wide @ right if fits and alike < RELATED and not same_numbers else None
