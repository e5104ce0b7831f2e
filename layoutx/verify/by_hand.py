"""One output element of a layer by hand: the formula, every number in it, and the proof that there are no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.forward.activations import activation
from layoutx.verify.hand.attention import attention
from layoutx.verify.hand.layer import Hand, hand, inputs_of
from layoutx.verify.hand.loops import loop, space_of
from layoutx.verify.hand.norms import batch_norm, group_norm, layer_norm, layer_scale, prelu, rms_norm
from layoutx.verify.hand.recurrent import gru, lstm, simple_rnn
from layoutx.verify.hand.steps import Step
from layoutx.verify.hand.sums import conv, conv_transpose, dense, embedding, local, separable_conv

HANDS: Mapping[str, Callable[[Hand, str], list[Step]]] = MappingProxyType(
    {
        "dense": dense,
        "conv": conv,
        "conv_transpose": conv_transpose,
        "separable_conv": separable_conv,
        "locally_connected_1d": local,
        "locally_connected_2d": local,
        "embedding": embedding,
        "batch_norm": batch_norm,
        "layer_norm": layer_norm,
        "group_norm": group_norm,
        "rms_norm": rms_norm,
        "prelu": prelu,
        "layer_scale": layer_scale,
        "simple_rnn": simple_rnn,
        "lstm": lstm,
        "gru": gru,
        "attention": attention,
    }
)


@frozen
class ByHand:
    """One output element.

    Attributes:
        element: its index in the framework's own order.
        formula: the loop that makes every element, with this layer's sizes; "" where steps say it better.
        steps: the numbers on the way; the last one is the element.
        forward: what `lx.forward` computes for it.
    """

    element: tuple[int, ...]
    formula: str
    steps: tuple[Step, ...]
    forward: float

    @property
    def value(self) -> float:
        """The element, summed by hand."""
        return self.steps[-1].value

    @property
    def difference(self) -> float:
        """How far the sum is from what `lx.forward` computes: rounding, since the order of a sum differs."""
        return abs(self.value - self.forward)


def by_hand(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    x: Any,
    element: Sequence[int],
    own: Mapping[str, str] = NOTHING,
) -> ByHand:
    """One output element of a layer, term by term, in float64.

    Args:
        tensors: form tensor name -> stored array.
        x: the layer's input in the framework's own order (a mapping where there are several).
        element: index of the output in the framework's own order, (0, 3, 2).
        own: refined axis -> its dims as stored, for a layer of a file.

    Raises:
        UsageError: a kind whose numbers are not shown, or a class that the form reads another way; no such element.
        SizeError: an input that does not fit.
    """
    kind = bound.kind.name
    if kind not in HANDS:
        raise UsageError(f"{kind} is not shown by hand", why=f"shown are {', '.join(HANDS)}")
    if bound.form.of:
        raise UsageError(f"{bound.form.name} is {bound.form.of}, read another way", do=f"ask for {bound.form.of}")
    ready = hand(bound, tensors, inputs_of(bound, x), element, own)
    formula = loop(bound, space_of(bound, ready.data))
    steps = HANDS[kind](ready, formula)
    applied = bound.settings.get("activation")
    if applied not in (None, "linear"):
        steps = _activated(ready, steps, str(applied))
    return ByHand(tuple(int(i) for i in element), formula, tuple(steps), ready.value)


def _activated(ready: Hand, steps: list[Step], name: str) -> list[Step]:
    """The last step through the layer's activation; a softmax needs the other outputs as well."""
    before = steps[-1].value
    if name == "softmax":
        row = ready.found["y"][ready.at[:-1]]
        share = np.exp(row - row.max())
        value = float(np.exp(before - row.max()) / share.sum())
        about = f"exp of it over the sum of exp of all {row.size} outputs of this sample"
    else:
        value, about = float(activation(name)(np.asarray([before]))[0]), ""
    return [*steps, Step("y", about, f"y = {name}(sum)", value, (), (("sum", before),))]
