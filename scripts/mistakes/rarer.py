"""The rarer faces of known modes: merged directions, masks, tied heads, cell states, TensorFlow 1's resizing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import torch
from torch import Tensor, nn

from mistakes.between import stepped
from mistakes.case import FLOAT32, Case, Made, normal, ported, shaken, shaken_torch

L = keras.layers
STEPS = 11


class Both(nn.Module):
    """A bidirectional LSTM over a sequence; `merge` makes one of its directions."""

    def __init__(self, merge: Callable[[Tensor], Tensor], wide: int) -> None:
        super().__init__()
        self.bi, self.out, self.merge = nn.LSTM(5, 7, batch_first=True, bidirectional=True), nn.Linear(wide, 3), merge

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 5) -> (batch, time, 3)."""
        return self.out(self.merge(self.bi(x)[0]))


def both(mode: str, right: Callable[[Tensor], Tensor], wrong: Callable[[Tensor], Tensor], wide: int) -> Made:
    """Keras merges the directions itself."""
    layers = [L.Bidirectional(L.LSTM(7, return_sequences=True), merge_mode=mode, name="bi"), L.Dense(3, name="out")]
    source = shaken(keras.Sequential([keras.Input((STEPS, 5)), *layers]))
    return source, ported(source, Both(right, wide), Both(wrong, wide)), normal(4, STEPS, 5)


def both_right() -> Made:
    """Nothing is wrong."""
    add: Callable[[Tensor], Tensor] = lambda y: y[..., :7] + y[..., 7:]  # noqa: E731
    return both("sum", add, add, 7)


class Last(nn.Module):
    """The last state of an LSTM, or its cell state."""

    def __init__(self, cell: bool) -> None:
        super().__init__()
        self.cell, self.out, self.state = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3), int(cell)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 5) -> (batch, 3)."""
        return self.out(self.cell(x)[1][self.state][-1])


def last() -> Made:
    """The source reads h, the target c."""
    source = shaken(keras.Sequential([keras.Input((STEPS, 5)), L.LSTM(7, name="cell"), L.Dense(3, name="out")]))
    return source, ported(source, Last(False), Last(True)), normal(4, STEPS, 5)


class Words(nn.Module):
    """Embedding, LSTM, dense; a tied head shares the table."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.table, self.fc, self.head = nn.Embedding(17, 5), nn.Linear(5, 5), nn.Linear(5, 17, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, time, 17)."""
        return self.head(torch.tanh(self.fc(self.table(x.long()))))


def tied() -> Made:
    """The head of the target is one of its own, which nobody loaded."""
    source, target = shaken_torch(Words()), shaken_torch(Words(False), seed=5)
    held = {name: value for name, value in source.state_dict().items() if not name.startswith("head")}
    target.load_state_dict(held, strict=False)
    return source, target.eval(), np.random.default_rng(3).integers(0, 17, (4, STEPS))


class Masked(nn.Module):
    """Embedding, LSTM and dense, without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.out = nn.Embedding(17, 5), nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, 3)."""
        return self.out(self.cell(self.table(x.long()))[1][0][-1])


def masked() -> Made:
    """The source leaves out steps of zeros."""
    layers = [L.Embedding(17, 5, mask_zero=True, name="table"), L.LSTM(7, name="cell"), L.Dense(3, name="out")]
    source = shaken(keras.Sequential([keras.Input((STEPS,), dtype="int32"), *layers]))
    ids = np.random.default_rng(4).integers(1, 17, (4, STEPS)).astype(np.int32)
    ids[1:, 7:] = 0
    return source, ported(source, Masked()), ids


class Causal(nn.Module):
    """Attention that sees all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 6) -> (batch, time, 3)."""
        return self.out(self.attn(x, x, x)[0])


def causal() -> Made:
    """The source sees the past alone."""
    inputs = keras.Input((STEPS, 6))
    h = L.MultiHeadAttention(2, 3, name="attn")(inputs, inputs, use_causal_mask=True)
    source = shaken(keras.Model(inputs, L.Dense(3, name="out")(h)))
    return source, ported(source, Causal()), normal(4, STEPS, 6)


def asymmetric(x: Tensor) -> Tensor:
    """Bilinear enlarging by 2 as TensorFlow 1 did it by default."""
    for axis in (2, 3):
        many = x.shape[axis]
        at = torch.arange(2 * many, dtype=x.dtype) / 2
        low = at.floor().long()
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, (low + 1).clamp(max=many - 1)) * part
    return x


def cases() -> Iterator[Case]:
    """All of them."""
    add: Callable[[Tensor], Tensor] = lambda y: y[..., :7] + y[..., 7:]  # noqa: E731
    same: Callable[[Tensor], Tensor] = lambda y: y  # noqa: E731
    yield Case("F18", "averaged directions for their sum", "", lambda: both("sum", add, lambda y: add(y) / 2, 7), ("F34",), limit=float("inf"))  # fmt: skip # noqa: E501
    yield Case("F18", "multiplied directions for their sum", "", lambda: both("sum", add, lambda y: y[..., :7] * y[..., 7:], 7), limit=float("inf"))  # fmt: skip # noqa: E501
    back: Callable[[Tensor], Tensor] = lambda y: torch.cat([y[..., :7], y[..., 7:].flip(1)], -1)  # noqa: E731
    yield Case("F18", "backward outputs not turned back", "", lambda: both("concat", same, back, 14))
    yield Case("F18", "halves of the sequence exchanged", "", lambda: both("concat", same, lambda y: y.roll(7, -1), 14))
    yield Case("F36", "the cell state for the state", "", last, ("F18",))
    yield Case("F14", "a tied head that is not tied", "head", tied, ("F13",))
    yield Case("F37", "masked steps read", "", masked, limit=float("inf"))
    yield Case("F37", "the causal mask forgotten", "attn", causal)
    up = [L.UpSampling2D(2, interpolation="bilinear")]
    half: Callable[[Tensor], Tensor] = lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear")  # noqa: E731
    yield Case("F28", "asymmetric, as TensorFlow 1", "", lambda: stepped(up, half, asymmetric), limit=FLOAT32)
