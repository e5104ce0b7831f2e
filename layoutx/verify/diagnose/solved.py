"""Numbers that the outputs themselves tell: a bias or a scale that the target has never been given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.evaluate import outputs, tolerance
from layoutx.verify.diagnose.fixes import constructor, ported
from layoutx.verify.diagnose.numbers import atoms_of, opened, tensors_of
from layoutx.verify.diagnose.settings import NORMS, setting
from layoutx.verify.diagnose.suspect import Edit, Suspect
from layoutx.verify.roles import BIAS_KEYS

# kind -> the role that is added to each channel of y, and the role that multiplies it
LINEAR: Mapping[str, tuple[str, str]] = {
    "dense": ("bias", "kernel"),
    "conv": ("bias", "kernel"),
    "conv_transpose": ("bias", "kernel"),
    "separable_conv": ("bias", "pointwise"),
    "attention": ("b_o", "w_o"),
    "gated_mlp": ("b_down", "w_down"),
    "batch_norm": ("beta", "gamma"),
    "layer_norm": ("beta", "gamma"),
    "group_norm": ("beta", "gamma"),
    "rms_norm": ("beta", "gamma"),
}
LOST = "layoutx port SOURCE TARGET   # into a layer with a bias; or, if a batch norm alone follows it, --materialise"
ROWS = 4  # samples of each channel below which two numbers a channel explain anything


def solved(suspect: Suspect) -> Iterator[Edit]:
    """A bias that is zero or missing, one scale a channel that was never multiplied in (F13, F14, F32)."""
    bound = suspect.target
    if bound.kind.name not in LINEAR:
        return
    added, times = LINEAR[bound.kind.name]
    held = ", ".join(tensors_of(bound, (added,)))
    if everywhere(suspect, added, 0.0):
        what = f"{held} holds zeros: the bias was lost" if held else "the layer has no bias: the source's was lost"
        code, option = (ported(suspect), ported(suspect)) if held else (_with_bias(bound, suspect.place), LOST)
        yield Edit("F14", f"missing {added}", what, _added, code, option, "with a bias", late=True, solves=True)
    if bound.kind.name in NORMS and not everywhere(suspect, times, 1.0):
        return
    name = ", ".join(tensors_of(bound, (times,))) or "the layer"
    if bound.kind.name in NORMS:
        what = f"{name} is 1 everywhere: the scale was not loaded"
        yield Edit(
            "F13",
            "missing scale",
            what,
            _scaled,
            ported(suspect),
            ported(suspect),
            "with a scale",
            late=True,
            solves=True,
        )
    else:
        what = f"{name} lacks one factor for each output channel: weight_norm's g/|v|, or a folded scale"
        yield Edit(
            "F32", "missing scale", what, _scaled, "--materialise", _NORMED, "with a scale", late=True, solves=True
        )


def _with_bias(bound: BoundForm, place: str) -> str:
    key = next((key for key in BIAS_KEYS if key in bound.form.config), "")
    return constructor(bound, f"{key}=True", place) if key else ""


_NORMED = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')   # before the weights are read"


def everywhere(suspect: Suspect, role: str, value: float) -> bool:
    """Whether a role is not stored, or holds one value everywhere."""
    numbers = opened(suspect, tensors_of(suspect.target, (role,)))
    return all(bool((numbers.atom(atom) == value).all()) for atom in atoms_of(suspect.target, role))


def found_of(suspect: Suspect) -> tuple[Array, Array] | None:
    """What the source gave and what the target computes: (samples, channels) each; None where it says too little."""
    if setting(suspect, "activation") not in (None, "linear"):
        return None
    try:
        here, there = suspect.expected["y"], outputs(suspect)["y"]
    except (LayoutxError, KeyError, ValueError, IndexError):
        return None
    if here.shape != there.shape or here.ndim < 2 or here.size // here.shape[-1] < ROWS:
        return None
    wide = (-1, here.shape[-1])
    return np.asarray(here, np.float64).reshape(wide), np.asarray(there, np.float64).reshape(wide)


def _added(suspect: Suspect) -> Suspect:
    pair = found_of(suspect)
    if pair is None:
        return suspect
    by = (pair[0] - pair[1]).mean(0)
    if not np.abs(pair[0] - pair[1] - by).max(initial=0.0) <= tolerance(suspect):
        return suspect
    return then(suspect, lambda y: y + by)


def _scaled(suspect: Suspect) -> Suspect:
    """One factor a channel, on what is left of y without the bias."""
    pair = found_of(suspect)
    if pair is None:
        return suspect
    shift = _bias(suspect, pair[1].shape[1])
    there = pair[1] - shift
    with np.errstate(all="ignore"):
        factor = ((pair[0] - shift) * there).sum(0) / (there * there).sum(0)
    factor = np.where(np.isfinite(factor), factor, 1.0)
    if not np.abs(pair[0] - shift - there * factor).max(initial=0.0) <= tolerance(suspect):
        return suspect
    return then(suspect, lambda y: (y - shift) * factor + shift)


def _bias(suspect: Suspect, channels: int) -> Array:
    added, _ = LINEAR[suspect.target.kind.name]
    atoms = atoms_of(suspect.target, added)
    if not atoms:
        return np.zeros(channels)
    found = opened(suspect, tensors_of(suspect.target, (added,))).atom(atoms[0])
    return np.asarray(found, np.float64).reshape(-1)


def then(suspect: Suspect, change: Callable[[Array], Array]) -> Suspect:
    before = suspect.after

    def after(found: Mapping[str, Array]) -> Mapping[str, Array]:
        found = found if before is None else before(found)
        return {**found, "y": change(found["y"])}

    return replace(suspect, after=after)
