"""Axes back to front: kernels of true convolutions, and the channels of an image in the other order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from layoutx.lang.show import show
from layoutx.spec.bound import BoundTensor
from layoutx.verify.diagnose.axes import Leaf, leaves_of, own_axes
from layoutx.verify.diagnose.fixes import numbers, ported, rewritten
from layoutx.verify.diagnose.numbers import is_float, with_stored
from layoutx.verify.diagnose.suspect import Edit, Suspect

CHANNELS = 4  # up to which an input's channels may be an image's, in the order B G R
WINDOWS = ("conv", "conv_transpose", "separable_conv", "conv_lstm", "locally_connected_1d", "locally_connected_2d")


def flips(suspect: Suspect) -> Iterator[Edit]:
    """Kernels back to front: true convolutions (F16, F17), and channels of an image in reverse (F34)."""
    kind = suspect.target.kind
    spatial = {name for axes in kind.spread.values() for name in axes} | {"kh", "kw"}
    for tensor in suspect.target.tensors:
        leaves = leaves_of(suspect.target, tensor)
        if not is_float(suspect, tensor.name):
            continue
        window = [i for i, leaf in enumerate(leaves) if leaf.name in spatial]
        if window and kind.name in WINDOWS:
            many = range(len(window), 0, -1)
            for chosen in (c for n in many for c in combinations(window, n)):
                mode = "F16" if kind.name == "conv_transpose" else "F17"
                yield _flipped(suspect, tensor, leaves, chosen, mode, "a convolution that flips its kernel made it")
        for i, leaf in enumerate(leaves):
            refined = leaf.name == "c" and leaf.name not in own_axes(suspect)
            if (leaf.name == "in" or refined) and leaf.size <= CHANNELS and kind.name in (*WINDOWS, "dense"):
                yield _flipped(suspect, tensor, leaves, (i,), "F34", "it was trained on B G R images, or the reverse")


def _flipped(
    suspect: Suspect, tensor: BoundTensor, leaves: Sequence[Leaf], axes: Sequence[int], mode: str, why: str
) -> Edit:
    sizes = [leaf.size for leaf in leaves]
    names = " and ".join(leaves[i].name for i in axes)

    def apply(s: Suspect) -> Suspect:
        array = s.stored[tensor.name]
        flipped = np.ascontiguousarray(np.flip(array.reshape(sizes), tuple(axes)))
        return with_stored(s, {tensor.name: flipped.reshape(array.shape)})

    what = f"{tensor.name} is stored back to front along {names}: {why}; {suspect.target.form.name} reads {show(tensor.layout)}"  # noqa: E501
    family = "reversed channels" if mode == "F34" else f"flip of {tensor.name}"
    steps = f"np.flip({{w}}.reshape({numbers(sizes)}), ({numbers(list(axes))},)).reshape({numbers(tensor.shape)})"
    return Edit(mode, family, what, apply, ported(suspect), rewritten(suspect, tensor.name, steps), f"{names} reversed")
