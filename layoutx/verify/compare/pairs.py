"""What a comparison needs of a pair of layers, and what it finds out about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from layoutx.empty import NOTHING
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.plan.plan import Array, Plan
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.apart import Apart
from layoutx.verify.recording import Call


class Half(Protocol):
    """One layer of one model: `layoutx.job.joined.Side`."""

    @property
    def name(self) -> str:
        """The layer's name in its model."""

    @property
    def bound(self) -> BoundForm:
        """Its form, bound."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Form tensor name -> stored tensor."""

    @property
    def refine(self) -> Mapping[str, str]:
        """Axis -> its dims on this side."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Layers of its model that together are this one, in order; () for the one layer of its name."""

    @property
    def told(self) -> bool:
        """Whether its model shows the order of these dims; else they are its framework's habit."""

    @property
    def less(self) -> Mapping[str, Array]:
        """What it is given or gives -> the numbers along its last axis that it is compared without."""


class Couple(Protocol):
    """A layer and its counterpart: `layoutx.job.joined.Joined`."""

    @property
    def source(self) -> Half:
        """The layer that is right."""

    @property
    def target(self) -> Half:
        """The layer that should do the same."""

    @property
    def last(self) -> Mapping[str, str]:
        """Axis -> its dims in canonical order."""

    @property
    def rounds(self) -> bool:
        """Whether the target's weights are roundings of the source's: two biases summed into one."""

    @property
    def plan(self) -> Plan | None:
        """How the source's tensors become the target's; None where they cannot."""

    @property
    def cropped(self) -> bool:
        """Whether one of the two gives a larger map, which its model cuts to the other's size."""


ROUNDING = ("attention", "attention_scale", "additive_attention")  # kinds whose scale TensorFlow rounds to float32
ROUNDED = ("gelu", "gelu_tanh", "selu", "leaky_relu_0.2")


def rounds(couple: Couple) -> bool:
    """Whether a pair may differ by a rounding to float32: of its weights, of a constant that Keras computes with, or of
    what it computes in float32 whatever it is given, as norms of LLaMA's kind do."""
    return couple.rounds or in_float32(couple) or rounded_constant(couple.source.bound, couple.target.bound)


def in_float32(couple: Couple) -> bool:
    """Whether a pair is of a kind that people compute in float32, whatever it is given."""
    return couple.source.bound.kind.name == "rms_norm"


def rounded_constant(*sides: BoundForm) -> bool:
    """Whether one of the layers computes with a constant that Keras rounds to float32."""
    if not any(side.form.framework in ("keras", "onnx") for side in sides):
        return False
    return sides[0].kind.name in ROUNDING or any(
        side.settings.get("activation") in ROUNDED or side.facts.get("activation") in ROUNDED for side in sides
    )


@frozen
class Check:
    """One comparison.

    Attributes:
        layer: the layer's name in the source, with its direction: `bilstm.backward`; "output 0" of the model.
        place: its name in the target.
        verdict: OK, INACCURATE, FAIL or "not compared".
        largest, relative, scale: largest absolute difference, over the largest expected value, and that value.
        where: `step 29, unit 4`.
        unlike: values that are NaN or infinite on one side only.
        how: what computed the target's output, on what.
        note: what a reader should know; problem: why the weights could not be converted, one line.
        applied: the activation that is part of the layer on one side only, and was applied to the other's output too.
        call: 0 for the layer's first call.
        hidden: which weights differ though the outputs are the same: these inputs do not reach them.
        narrow: the dtype whose rounding of one side's weights is all that differs: "float16".
    """

    layer: str
    place: str
    verdict: str
    largest: float | None = None
    relative: float | None = None
    scale: float = 0.0
    where: str = ""
    unlike: int = 0
    how: str = ""
    note: str = ""
    problem: str = ""
    call: int = 0
    applied: str = ""
    narrow: str = ""
    hidden: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the layer: it is the same, or could not be looked at."""
        return self.verdict in ("OK", "not compared")


@frozen
class Handed:
    """An array that both models handed on somewhere: `what attn is given`, in the source and in the target."""

    words: str
    here: Array
    there: Array


@frozen
class Gap:
    """A fault between layers: what they hand on differs, though each computes the same.

    Attributes:
        before: the layers (source names) that come right before; () for the model's inputs.
        after: the layer whose input differs; "" for the model's outputs.
        places: the same names in the target, before and after.
        found: how far the inputs of `after` are apart; where: in words.
        expected, given: what `after` is given in the source and in the target, in canonical order where that is known.
        left, right: outputs of the layers before, in the source and in the target.
        passed, there: calls of layers without weights that lie between, in the source and in the target.
        verdict: INACCURATE or FAIL.
        hint: what the numbers say by themselves. call: which call of `after`.
        gave, there_gave: every output of the one layer before, by name, in canonical order, in the source and in the
            target; act: the activation that this layer has in the source only, and which `there_gave` lacks; there_act:
            the one that it has in the target only, and which `gave` lacks.
        earlier: what layers further ahead were given and gave: a connection may skip layers.
        calls: all that was called there, with the layers before, in the source and in the target.
        cropped: one of the models crops what the one layer before gives to the size that the other's gives.
    """

    before: tuple[str, ...]
    after: str
    places: tuple[str, ...]
    found: Apart
    verdict: str
    where: str
    expected: Array
    given: Array
    left: tuple[Array, ...] = ()
    right: tuple[Array, ...] = ()
    passed: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    hint: str = ""
    call: int = 0
    gave: Mapping[str, Array] = NOTHING
    there_gave: Mapping[str, Array] = NOTHING
    act: str = ""
    there_act: str = ""
    earlier: tuple[Handed, ...] = ()
    calls: tuple[tuple[Call, ...], tuple[Call, ...]] = ((), ())
    cropped: bool = False

    @property
    def place(self) -> str:
        """Between which layers, in words."""
        return f"between {', '.join(self.before) or 'the inputs'} and {self.after or 'the outputs'}"

    @property
    def spot(self) -> tuple[tuple[str, ...], str, int]:
        """Where it lies: what two comparisons of the same models call the same gap."""
        return self.before, self.after, self.call
