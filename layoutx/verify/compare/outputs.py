"""What two layers give, made comparable: under the same activation, directions merged alike, borders cut alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.errors import UsageError
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.windows import best_crop, border_words
from layoutx.verify.forward.activations import activation
from layoutx.verify.reference import MERGES


def alike(
    couple: Couple, expected: Mapping[str, Array], found: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array], list[str]]:
    """The outputs that both give, under the same activation, merged and cropped alike; what was done for it."""
    notes: list[str] = []
    left, right = dict(expected), dict(found)
    _merged(left, right, couple.source.bound)
    _merged(right, left, couple.target.bound)
    name = applied(couple)
    if name and "y" in left and "y" in right:
        side = right if own_activation(couple.source.bound.settings) else left
        try:
            side["y"] = activation(name)(side["y"])
        except UsageError:
            notes.append(f"its activation {name} is one of the user's own: what it gives is not compared here")
            del left["y"]
    if "y" in left and "y" in right and (couple.cropped or couple.source.bound.kind.name == "conv_transpose"):
        for whose, inner, outer in (("target", left, right), ("source", right, left)):
            outer["y"], by = best_crop(inner["y"], outer["y"])
            if by is not None:
                notes.append(f"the {whose} crops its output outside the layer: {border_words(by)}")
    common = [name for name in left if name in right]
    return {n: left[n] for n in common}, {n: right[n] for n in common}, notes


def applied(couple: Couple) -> str:
    """The activation that is part of the layer on one side only; "" where there is none."""
    here, there = own_activation(couple.source.bound.settings), own_activation(couple.target.bound.settings)
    return "" if here and there else here or there


def shared(couple: Couple) -> dict[str, str]:
    """The source's activation where it was applied to the target's output too, as a setting of the target."""
    name = own_activation(couple.source.bound.settings)
    return {"activation": name} if name and applied(couple) == name else {}


def own_activation(settings: Mapping[str, object]) -> str:
    """The activation that is part of a layer; "" for none."""
    name = settings.get("activation")
    return "" if name in (None, "linear") else str(name)


def _merged(own: Mapping[str, Array], other: dict[str, Array], bound: BoundForm) -> None:
    """Make one of the two directions of `other`, where `own` gives them so (Keras merge_mode)."""
    merge = MERGES.get(str(bound.settings.get("merge_mode")))
    if merge is not None and "merged" in own and "y" in other:
        y = other["y"]
        other["merged"] = np.asarray(merge(y.reshape(*y.shape[:2], 2, -1), axis=2))
    if merge is not None and "end" in own and "h" in other:
        other["end"] = np.asarray(merge(other["h"], axis=0))
