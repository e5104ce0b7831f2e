"""What a run at inference does not show: a model's mode, what only training reads, layers that are left over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.fixes import constructor
from layoutx.words import listed

Bounds = Sequence[tuple[str, BoundForm, BoundForm]]
Runs = tuple[Sequence[Array], Sequence[Array], Sequence[Array]]
FOLDED = re.compile(r"(\S+) is folded with eps=(\S+), its own is (\S+)")
SMALL = 1e-5  # of the largest output: float32 runs of one model differ by less
# How the running variance is updated: torch/nn/modules/batchnorm.py calls at::batch_norm, which takes n / (n - 1);
# keras 3 batch_normalization.py and flax linen/normalization.py take the batch's own moments.
UNBIASED, BIASED = ("torch",), ("keras", "flax", "nnx")


@frozen
class Remark:
    """Something that a comparison at inference does not show, or does not tell.

    Attributes:
        mode: the failure mode, "F10"; "" where the list has no number for it.
        what: in one sentence; do: what to do.
        wrong: whether it makes the outputs that the user sees differ.
        random: whether two runs differ, of the model on that `side`.
        training: it only matters when training goes on.
    """

    mode: str
    what: str
    do: str = ""
    wrong: bool = False
    random: bool = False
    side: str = ""
    training: bool = False


def of_folded(notes: Sequence[str]) -> Iterator[Remark]:
    """F8: a norm that was folded with another eps than its own, as the comparison's notes tell."""
    for note in notes:
        if (told := FOLDED.fullmatch(note)) is not None:
            yield Remark("F8", f"the norm {note}", f"{told[1]}.eps = {told[2]}, or fold it again with {told[3]}", True)


def of_mode(runs: Runs, name: str, training: bool | None) -> Remark | None:
    """F10: a model that is not at inference as it was given.

    Args:
        runs: outputs as the model was given, twice, and at inference. name: "source" or "target".
        training: whether it says of itself that it is in training mode; None where it cannot say.
    """
    once, again, calm = ([np.asarray(a, np.float64) for a in run] for run in runs)
    chance = max((float(np.abs(a - b).max(initial=0.0)) for a, b in zip(once, again, strict=True)), default=0.0)
    mode = max((float(np.abs(a - b).max(initial=0.0)) for a, b in zip(once, calm, strict=True)), default=0.0)
    scale = max((float(np.abs(a).max(initial=0.0)) for a in calm), default=0.0)
    if max(chance, mode) <= SMALL * scale:
        return None
    if training is False and chance > SMALL * scale:
        what = f"two runs of the {name} on the same inputs differ by {chance:.3g}, at inference too: dropout is active"
        return Remark("F10", what, "tell the function: F.dropout(x, p, training=self.training)", True, True, side=name)
    if chance > SMALL * scale:
        why = f"two runs on the same inputs differ by {chance:.3g}: dropout is active"
    else:
        why = f"its outputs differ by {mode:.3g} from those at inference: batch norms take the batch's statistics"
    what = f"the {name} is in training mode as it was given: {why}"
    return Remark("F10", what, "call model.eval() first (torch), or pass training=False (Keras)", True, side=name)


def of_settings(bounds: Bounds) -> Iterator[Remark]:
    """Settings that only training reads and that differ: one remark for each pair of values (F9, F33, F37)."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, source, target in bounds:
        here, there = source.settings.get("momentum"), target.settings.get("momentum")
        if here is not None and there is not None and abs(here - there) > 1e-9:
            groups.setdefault((here, there, source.form.framework, target.form.framework), []).append(name)
    for (here, there, one, other), names in groups.items():
        what = f"{listed(names)}: an update keeps {here:g} of the old statistics in {one}, {there:g} in {other}"
        if abs(here + there - 1) < 1e-9:
            what += ": the one gives the share of the old, the other of the new"
        yield Remark("F9", what, _momentum(other, here), training=True)
    both = [n for n, s, t in bounds if s.kind.name == "batch_norm" and _biased(s) is not None and _biased(t) is not None
            and _biased(s) != _biased(t)]  # fmt: skip
    if both:
        what = f"{listed(both)}: torch updates the running variance with n / (n - 1), Keras 3 and flax do not"
        yield Remark("F33", what, training=True)


def _biased(bound: BoundForm) -> bool | None:
    """Whether the running variance takes the batch's as it is; None where that is not known."""
    framework = bound.form.framework
    return True if framework in BIASED else False if framework in UNBIASED else None


def _momentum(framework: str, kept: float) -> str:
    if framework in ("torch", "mlx"):
        return f"torch.nn.BatchNorm2d(..., momentum={round(1 - kept, 12):g})"
    return f"momentum={kept:g}"


def of_rest(lost: Mapping[str, str], unused: Mapping[str, str], same: bool) -> Iterator[Remark]:
    """F14: layers of the source without a counterpart, tensors of the target that nothing was written to."""
    if lost and not same:
        first = next(iter(lost.values()))
        what = f"of the source {listed(list(lost))} {'have' if len(lost) > 1 else 'has'} no counterpart: {first}"
        yield Remark("F14", what, "layoutx match SOURCE TARGET -o map.yaml, and edit it", True)
    if unused and not same:
        first = next(iter(unused.values()))
        what = f"of the target {listed(list(unused))} {'belong' if len(unused) > 1 else 'belongs'} to no layer: {first}"
        yield Remark("F14", what, "load them, or leave them out")


def of_order(notes: Sequence[str], turned: Sequence[tuple[str, BoundForm]] = ()) -> Iterator[Remark]:
    """F36: the models agree once the inputs' axes batch and time are exchanged, which a square batch would hide.

    Args:
        turned: (place, target) of the layers that read time first on one side only.
    """
    if any("time turned before batch" in note for note in notes):
        what = "the target reads its inputs with time before batch, the source with batch before time"
        torch = [(place, bound) for place, bound in turned if bound.form.framework == "torch"]
        do = "; ".join(
            constructor(bound, f"batch_first={not bound.config.get('batch_first')}", p) for p, bound in torch
        )
        said = f"{what} ({listed([place for place, _ in turned])})" if turned else what
        yield Remark(
            "F36", said, f"{do or 'batch_first=True for its recurrent layers'}, or x.transpose(0, 1) before it"
        )
