"""Recurrent models: a tagger with an embedding and a bidirectional LSTM, LSTM, GRU and simple RNN; what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from mistakes.case import Array, Case, Made, changed, normal, ported, shaken

L = keras.layers
SIZES = {"primes": (5, 7), "square": (6, 6), "large": (13, 17)}  # inputs, units
STEPS = 11


def one(kind: str, inputs: int, units: int, **how: Any) -> Any:
    """One recurrent layer and a dense one."""
    layer = {"lstm": L.LSTM, "gru": L.GRU, "rnn": L.SimpleRNN}[kind]
    model = [keras.Input((STEPS, inputs)), layer(units, return_sequences=True, name="cell", **how), L.Dense(3, name="out")]  # fmt: skip # noqa: E501
    return shaken(keras.Sequential(model))


class One(nn.Module):
    """The same in torch."""

    def __init__(self, kind: str, inputs: int, units: int, first: bool = True, turned: bool = False) -> None:
        super().__init__()
        make = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.cell = make(inputs, units, batch_first=first)
        self.out = nn.Linear(units, 3)
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, feature) -> (batch, time, 3)."""
        y, _ = self.cell(x.flip(1) if self.turned else x)
        return self.out(y)


def single(kind: str, size: tuple[int, int], fix: Callable[[Any], Any] | None = None, **how: Any) -> Made:
    """Keras is right; the torch model has the mistake."""
    inputs, units = size
    source = one(kind, inputs, units)
    return source, ported(source, One(kind, inputs, units), One(kind, inputs, units, **how), fix), normal(STEPS, STEPS, inputs)  # fmt: skip # noqa: E501


def back(kind: str, size: tuple[int, int], change: Callable[[list[Array]], list[Array]]) -> Made:
    """torch is right; the Keras layer has the mistake."""
    inputs, units = size
    right, wrong = one(kind, inputs, units), one(kind, inputs, units)
    source = ported(right, One(kind, inputs, units))
    wrong.set_weights(right.get_weights())
    wrong.get_layer("cell").set_weights(change(right.get_layer("cell").get_weights()))
    return source, wrong, normal(4, STEPS, inputs)


ALL = "cell.weight_ih_l0|cell.weight_hh_l0|cell.bias_ih_l0|cell.bias_hh_l0"


def order(gates: list[int], names: str = ALL) -> Callable[[Any], None]:
    """Gates in another order, in torch."""
    return changed(names, lambda w: w.reshape(len(gates), -1, *w.shape[1:])[gates].reshape(w.shape))


def columns(gates: list[int]) -> Callable[[list[Array]], list[Array]]:
    """Gates in another order, in Keras."""
    return lambda held: [w.reshape(*w.shape[:-1], len(gates), -1)[..., gates, :].reshape(w.shape) for w in held]


def copied(model: Any) -> None:
    """The whole bias in both places."""
    total = model.cell.bias_ih_l0 + model.cell.bias_hh_l0
    model.cell.bias_ih_l0.copy_(total)
    model.cell.bias_hh_l0.copy_(total)


def forget(by: float, units: int) -> Callable[[Any], None]:
    """A forget bias that is added by the framework, or already in the numbers."""

    def apply(b: Array) -> Array:
        b[units : 2 * units] += by
        return b

    return changed("cell.bias_ih_l0", apply)


def per_gate(gates: int) -> Callable[[Array], Array]:
    """Each gate's block transposed."""
    return lambda w: w.reshape(gates, -1, w.shape[1]).transpose(0, 2, 1).reshape(w.shape)


def packed(gates: int) -> Callable[[Array], Array]:
    """Each gate's transpose written as its bytes (cuDNN)."""
    return lambda w: np.stack([b.T.reshape(b.shape) for b in w.reshape(gates, -1, w.shape[1])]).reshape(w.shape)


def folded(model: Any) -> None:
    """The recurrent bias added to the other: the candidate of a GRU does not allow it."""
    model.cell.bias_ih_l0 += model.cell.bias_hh_l0
    model.cell.bias_hh_l0.zero_()


def cases() -> Iterator[Case]:
    """All of them."""
    for name, size in SIZES.items():
        square = size[0] == size[1]
        yield Case("F3", f"gates i c f o (TF1, haiku), {name}", "cell", lambda s=size: single("lstm", s, order([0, 2, 1, 3])))  # fmt: skip # noqa: E501
        yield Case("F3", f"gates i o f c (ONNX), {name}", "cell", lambda s=size: single("lstm", s, order([0, 3, 1, 2])))
        yield Case("F3", f"gates of the recurrent kernel, {name}", "cell", lambda s=size: single("lstm", s, order([0, 1, 3, 2], "cell.weight_hh_l0")))  # fmt: skip # noqa: E501
        yield Case("F3", f"gates in Keras, {name}", "cell", lambda s=size: back("lstm", s, columns([0, 1, 3, 2])))
        yield Case("F4", f"z r h as r z n, {name}", "cell", lambda s=size: single("gru", s, order([1, 0, 2])))
        yield Case("F4", f"gates in Keras, {name}", "cell", lambda s=size: back("gru", s, columns([1, 0, 2])))
        yield Case("F6", f"the LSTM's bias in both, {name}", "cell", lambda s=size: single("lstm", s, copied))
        yield Case("F6", f"the RNN's bias in both, {name}", "cell", lambda s=size: single("rnn", s, copied))
        yield Case("F6", f"the GRU's biases summed into one, {name}", "cell", lambda s=size: single("gru", s, folded), ("F5",))  # fmt: skip # noqa: E501
        kernel = changed("cell.weight_ih_l0", lambda w: np.ascontiguousarray(w.T).reshape(w.shape))
        also = ("F2",) if square else ()
        yield Case("F12", f"the LSTM's kernel, {name}", "cell", lambda s=size, k=kernel: single("lstm", s, k), also)
        yield Case("F21", f"a forget bias of 1 twice, {name}", "cell", lambda s=size: single("lstm", s, forget(1.0, s[1])))  # fmt: skip # noqa: E501
        yield Case("F22", f"packed as cuDNN, {name}", "cell", lambda s=size: single("lstm", s, changed("cell.weight_ih_l0|cell.weight_hh_l0", packed(4))), ("F2",))  # fmt: skip # noqa: E501
        yield Case("F2", f"the recurrent kernel transposed, {name}", "cell", lambda s=size: single("rnn", s, changed("cell.weight_hh_l0", np.transpose)))  # fmt: skip # noqa: E501
        yield Case("F18", f"run from the end, {name}", "", lambda s=size: single("lstm", s, turned=True))
        yield Case(
            "F36", f"time taken for the batch, {name}", "", lambda s=size: single("lstm", s, first=False), told=True
        )
    square6 = SIZES["square"]
    yield Case("F2", "the LSTM's recurrent kernel gate by gate", "cell", lambda: single("lstm", square6, changed("cell.weight_hh_l0", per_gate(4))), ("F22",))  # fmt: skip # noqa: E501
    yield Case("F11", "the RNN's kernel converted twice", "cell", lambda: single("rnn", square6, changed("cell.weight_ih_l0", np.transpose)), ("F2",))  # fmt: skip # noqa: E501
    yield Case("F5", "reset gate before the product", "cell", lambda: _reset())
    yield Case("F14", "the LSTM's biases left out", "cell", lambda: single("lstm", SIZES["primes"], changed("cell.bias_ih_l0|cell.bias_hh_l0", np.zeros_like)), ("F6", "F13"))  # fmt: skip # noqa: E501
    yield Case("F19", "old Keras' hard sigmoid gates", "cell", lambda: _hard())
    yield from tagger()


def _reset() -> Made:
    """Keras computes with the reset gate before the product; the target keeps it after."""
    import layoutx.torch as modules

    source = shaken(keras.Sequential([keras.Input((STEPS, 5)), L.GRU(7, return_sequences=True, reset_after=False, name="cell"), L.Dense(3, name="out")]))  # fmt: skip # noqa: E501
    right, wrong = One("gru", 5, 7), One("gru", 5, 7)
    right.cell = modules.GRU(5, 7, batch_first=True, reset_after=False)
    wrong.cell = modules.GRU(5, 7, batch_first=True, reset_after=False)
    target = ported(source, right)
    wrong.load_state_dict(target.state_dict())
    wrong.cell = modules.GRU(5, 7, batch_first=True, reset_after=True)
    held = {n: v for n, v in target.cell.state_dict().items() if n in wrong.cell.state_dict()}
    wrong.cell.load_state_dict(held, strict=False)
    for name, value in wrong.cell.named_parameters():
        if name not in held:
            value.data.zero_()
    return source, wrong.eval(), normal(4, STEPS, 5)


def _hard() -> Made:
    """The source's gates are hard sigmoids; nn.LSTM's are not."""
    source = one("lstm", 5, 7, recurrent_activation="hard_sigmoid")
    plain = one("lstm", 5, 7)
    plain.set_weights(source.get_weights())
    return source, ported(plain, One("lstm", 5, 7)), normal(4, STEPS, 5)


class Tagger(nn.Module):
    """Embedding, bidirectional LSTM, dense; the arguments make the mistakes."""

    def __init__(self, summary: str = "right", halves: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(17, 5)
        self.encoder = nn.LSTM(5, 7, batch_first=True, bidirectional=True)
        self.out = nn.Linear(14, 3)
        self.summary, self.halves = summary, halves

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, 3)."""
        y, (h, _) = self.encoder(self.table(x.long()))
        if self.summary == "last":
            return self.out(y[:, -1])
        return self.out(torch.cat((h[1], h[0]) if self.halves else (h[0], h[1]), 1))


def tagged(fix: Callable[[Any], Any] | None = None, **how: Any) -> Made:
    """The tagger with a mistake."""
    source = shaken(
        keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                L.Embedding(17, 5, name="table"),
                L.Bidirectional(L.LSTM(7), name="encoder"),
                L.Dense(3, name="out"),
            ]
        )
    )
    ids = np.random.default_rng(2).integers(0, 17, (8, STEPS)).astype(np.int32)
    return source, ported(source, Tagger(), Tagger(**how), fix), ids


def directions(model: Any) -> None:
    """Forward and backward weights exchanged."""
    held = model.encoder.state_dict()
    other = {n: held[n.removesuffix("_reverse") if n.endswith("_reverse") else f"{n}_reverse"].clone() for n in held}
    model.encoder.load_state_dict(other)


def tagger() -> Iterator[Case]:
    """In the tagger."""
    encoder = [f"encoder.{n}_l0{r}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for r in ("", "_reverse")]
    yield Case("F3", "both directions' gates", "encoder", lambda: tagged(order([0, 2, 1, 3], "|".join(encoder))))
    yield Case("F18", "the directions exchanged", "encoder", lambda: tagged(directions))
    yield Case("F18", "the last step of both directions", "", lambda: tagged(summary="last"))
    yield Case("F18", "the halves of the summary exchanged", "", lambda: tagged(halves=True))
    yield Case("F32", "the table times the root of its width", "table", lambda: tagged(changed("table.weight", lambda w: w * np.sqrt(5))))  # fmt: skip # noqa: E501
    yield Case("F37", "rows moved by one", "table", lambda: tagged(changed("table.weight", lambda w: np.roll(w, 1, 0))))
    yield Case("F37", "the padding row zero", "table", lambda: tagged(changed("table.weight", _padding)))


def _padding(w: Array) -> Array:
    w[0] = 0
    return w
