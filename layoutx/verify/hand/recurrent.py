"""One unit of a recurrent layer at one step: its gates, term by term, and the states that they make."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.forward.activations import activation
from layoutx.verify.hand.layer import Hand
from layoutx.verify.hand.steps import Step, Term, summed
from layoutx.verify.reference import forward_roles

BIASES = ("b_input", "b_recurrent")


@frozen
class _Unit:
    """One unit of one direction at one step; `h` and `c` are the states before it."""

    hand: Hand
    batch: int
    time: int
    way: int
    unit: int
    h: Array
    c: Array | None
    before: str

    def inputs(self, gate: tuple[int, ...]) -> list[Term]:
        """x times the unit's input weights."""
        hand, spot = self.hand, (self.batch, self.time)
        many = hand.values["w_input"].shape[-1]
        return [hand.term("x", (*spot, i), "w_input", (self.way, *gate, self.unit, i)) for i in range(many)]

    def states(self, gate: tuple[int, ...], scale: Array | None = None) -> list[Term]:
        """The states before times the unit's recurrent weights."""
        found = []
        for p, value in enumerate(self.h if scale is None else self.h * scale):
            name = f"{self.before}[{p}]" if scale is None else f"r*{self.before}[{p}]"
            weight = self.hand.weight("w_recurrent", self.way, *gate, self.unit, p)
            found.append(Term(name, float(value), *weight))
        return found

    def gate(self, name: str, gate: tuple[int, ...], act: str, about: str, more: list[Term]) -> Step:
        """A gate: its sum first, then the function of it."""
        biases = self.hand.biases(BIASES, self.way, *gate, self.unit)
        formula = f"{name} = {act}(x @ w_input + h @ w_recurrent + b)"
        step = summed(name, about, formula, [*self.inputs(gate), *self.states(gate), *more], biases)
        return _through(step, act)


def _through(step: Step, act: str) -> Step:
    if act == "softmax":
        raise UsageError("a softmax inside a recurrent layer needs all units at once", do="lx.forward computes it")
    value = float(activation(act)(np.asarray([step.value]))[0])
    return Step(step.name, step.about, step.formula, value, step.terms, (*step.plain, ("(sum before it)", step.value)))


def simple_rnn(hand: Hand, formula: str) -> list[Step]:
    """h' = act(W x + R h + b)."""
    unit = _unit(hand)
    act = str(hand.bound.facts.get("activation", "tanh"))
    return [unit.gate("h'", (), act, _about(unit), [])]


def lstm(hand: Hand, formula: str) -> list[Step]:
    """i, f, g, o, then c' and h'."""
    if "w_projection" in hand.ids:
        raise UsageError("an LSTM with a projection is not shown by hand", do="lx.forward computes it")
    unit, facts = _unit(hand), hand.bound.facts
    act, gate = str(facts.get("activation", "tanh")), str(facts.get("gate_activation", "sigmoid"))
    words = hand.bound.kind.words["gate"].labels
    c = float(unit.c[unit.unit]) if unit.c is not None else 0.0

    def peep(at: int, cell: float) -> list[Term]:
        if "peephole" not in hand.ids:
            return []
        return [Term("c", cell, *hand.weight("peephole", unit.way, at, unit.unit))]

    steps = [
        unit.gate("i", (0,), gate, words["i"], peep(0, c)),
        unit.gate("f", (1,), gate, words["f"], peep(1, c)),
        unit.gate("g", (2,), act, words["g"], []),
    ]
    i, f, g = (step.value for step in steps)
    new = f * c + i * g
    steps.append(Step("c'", "the cell state", "c' = f * c + i * g", new, (), (("c before", c),)))
    steps.append(unit.gate("o", (3,), gate, words["o"], peep(2, new)))
    squashed = float(activation(act)(np.asarray([new]))[0])
    steps.append(Step("h'", _about(unit), f"h' = o * {act}(c')", steps[-1].value * squashed))
    return steps


def gru(hand: Hand, formula: str) -> list[Step]:
    """z, r, n, then h'."""
    unit, facts = _unit(hand), hand.bound.facts
    act, gate = str(facts.get("activation", "tanh")), str(facts.get("gate_activation", "sigmoid"))
    words = hand.bound.kind.words["gate"].labels
    z, r = (unit.gate(n, (k,), gate, words[n], []) for k, n in enumerate("zr"))
    steps = [z, r]
    own = hand.biases(("b_input",), unit.way, 2, unit.unit)
    rest = hand.biases(("b_recurrent",), unit.way, 2, unit.unit)
    if facts.get("reset", "after") == "after":
        inner = summed("q", "the recurrent share", "q = h @ w_recurrent.n + b_recurrent.n", unit.states((2,)), rest)
        formula = f"n = {act}(x @ w_input.n + b_input.n + r * q)"
        n = summed("n", words["n"], formula, [*unit.inputs((2,)), Term("r", r.value, "q", inner.value)], own)
        steps += [inner, _through(n, act)]
    else:
        scale = _resets(unit, gate)
        formula = f"n = {act}(x @ w_input.n + (r * h) @ w_recurrent.n + b.n)"
        n = summed("n", words["n"], formula, [*unit.inputs((2,)), *unit.states((2,), scale)], [*own, *rest])
        steps.append(_through(n, act))
    h = float(unit.h[unit.unit])
    value = z.value * h + (1.0 - z.value) * steps[-1].value
    return [*steps, Step("h'", _about(unit), "h' = z * h + (1 - z) * n", value, (), (("h before", h),))]


def _resets(unit: _Unit, gate: str) -> Array:
    """The reset gates of all units: before the product each unit needs those of the others."""
    hand, way = unit.hand, unit.way
    w, r = hand.values["w_input"][way, 1], hand.values["w_recurrent"][way, 1]
    bias = sum(hand.values[name][way, 1] for name in BIASES)
    x = hand.data["x"][unit.batch, unit.time]
    return np.asarray(activation(gate)(w @ x + r @ unit.h + bias))


def _about(unit: _Unit) -> str:
    way = f", {unit.hand.bound.labels['direction'][unit.way]}" if _ways(unit.hand) > 1 else ""
    return f"unit {unit.unit} at step {unit.time}{way}"


def _ways(hand: Hand) -> int:
    return int(hand.values["w_input"].shape[0])


def _unit(hand: Hand) -> _Unit:
    """Which unit of which direction an output element is, at which step of x, and the states before it."""
    batch, time, feature = hand.at
    hidden = hand.values["w_input"].shape[-2]
    way, unit = divmod(feature, hidden)
    steps = hand.data["x"].shape[1]
    labels = hand.bound.labels.get("direction", ("forward",))
    backward = labels[way] == "backward" or hand.bound.facts.get("direction") == "backward"
    if hand.bound.settings.get("go_backwards"):  # read from the end: output t belongs to the step steps - 1 - t of x
        time, backward = steps - 1 - time, True
    states = _before(hand, way, batch, time, backward)
    h, c = states.get("h"), states.get("c")
    zero = np.zeros(hidden)
    return _Unit(hand, batch, time, way, unit, zero if h is None else h, zero if c is None else c, "h")


def _before(hand: Hand, way: int, batch: int, time: int, backward: bool) -> Mapping[str, Array]:
    """The states of one direction when it comes to a step of x; none before the first."""
    x = hand.data["x"][batch : batch + 1]
    seen = x[:, :time:-1] if backward else x[:, :time]
    if seen.shape[1] == 0:
        return {}
    own = {name: (a[way : way + 1] if a.ndim and name != "count" else a) for name, a in hand.values.items()}
    settings = {**hand.bound.settings, "go_backwards": False, "activation": None}
    facts = {**hand.bound.facts, "direction": "forward"}
    found = forward_roles(hand.bound, own, {"x": seen}, settings, facts)
    return {name: found[name][0, 0] for name in ("h", "c") if name in found}
