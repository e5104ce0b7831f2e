"""Attention and norms of tokens: one transformer block in two sizes, RMS and group norms; what goes wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mistakes.case import FLOAT32, Array, Case, Made, changed, normal, ported, shaken

L = keras.layers
SIZES = {"primes": (2, 3), "square": (4, 4)}  # heads, features of a head
STEPS = 5


def block(heads: int, head: int, act: str = "gelu") -> Any:
    """One block of Keras layers."""
    embed = heads * head
    x = keras.Input((STEPS, embed))
    a = L.MultiHeadAttention(heads, head, name="attn")(x, x)
    n = L.LayerNormalization(name="ln1")(L.Add()([x, a]))
    f = L.Dense(embed, name="fc2")(L.Dense(4 * embed, activation=act, name="fc1")(n))
    y = L.LayerNormalization(name="ln2")(L.Add()([n, f]))
    return shaken(keras.Model(x, y))


class Block(nn.Module):
    """The same in torch."""

    def __init__(
        self,
        heads: int,
        head: int,
        eps: float = 1e-3,
        act: Callable[[Tensor], Tensor] = F.gelu,
        residual: bool = True,
        first: bool = True,
    ) -> None:
        super().__init__()
        embed = heads * head
        self.attn = nn.MultiheadAttention(embed, heads, batch_first=first)
        self.ln1, self.ln2 = nn.LayerNorm(embed, eps=eps), nn.LayerNorm(embed, eps=1e-3)
        self.fc1, self.fc2 = nn.Linear(embed, 4 * embed), nn.Linear(4 * embed, embed)
        self.act, self.residual = act, residual

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, feature) -> the same."""
        a, _ = self.attn(x, x, x)
        n = self.ln1(x + a if self.residual else a)
        return self.ln2(n + self.fc2(self.act(self.fc1(n))))


def planted(size: tuple[int, int], fix: Callable[[Any], Any] | None = None, **how: Any) -> Made:
    """Keras is right; the torch model has the mistake."""
    source = block(*size)
    return source, ported(source, Block(*size), Block(*size, **how), fix), normal(3, STEPS, size[0] * size[1])


PACKED = "attn.in_proj_weight|attn.in_proj_bias"


def interleaved(heads: int) -> Callable[[Array], Array]:
    """q, k and v of each head side by side (Megatron)."""
    return lambda w: w.reshape(3, heads, -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, size in SIZES.items():
        heads, head = size
        blocks = changed(PACKED, lambda w: w.reshape(3, -1, *w.shape[1:])[[1, 0, 2]].reshape(w.shape))
        yield Case("F23", f"k q v, {name}", "attn", lambda s=size, b=blocks: planted(s, b))
        yield Case("F23", f"interleaved by head, {name}", "attn", lambda s=size: planted(s, changed(PACKED, interleaved(s[0]))))  # fmt: skip # noqa: E501
        out = changed("attn.out_proj.weight", lambda w, h=heads, d=head: w.reshape(-1, h, d).swapaxes(1, 2).reshape(w.shape))  # fmt: skip # noqa: E501
        yield Case("F23", f"head axes of the output projection, {name}", "attn", lambda s=size, o=out: planted(s, o))
        transposed = changed("attn.out_proj.weight", np.transpose)
        yield Case("F2", f"output projection transposed, {name}", "attn", lambda s=size, t=transposed: planted(s, t))
        bytes_ = changed("attn.in_proj_weight", lambda w: np.ascontiguousarray(w.T).reshape(w.shape))
        yield Case("F12", f"packed projection, {name}", "attn", lambda s=size, b=bytes_: planted(s, b), ("F2",))
        query = changed(PACKED, lambda w, d=head: np.concatenate([w[: len(w) // 3] * d**-0.5, w[len(w) // 3 :]]))
        yield Case("F32", f"query scale taken twice, {name}", "attn", lambda s=size, q=query: planted(s, q))
        yield Case("F14", f"bias left out, {name}", "attn", lambda s=size: planted(s, changed("attn.out_proj.bias", np.zeros_like)))  # fmt: skip # noqa: E501
        yield Case("F8", f"layer norm 1e-5, {name}", "ln1", lambda s=size: planted(s, eps=1e-5))
        yield Case("F8", f"layer norm 1e-12 (BERT), {name}", "ln1", lambda s=size: planted(s, eps=1e-12))
        yield Case("F13", f"gamma left at 1, {name}", "ln1", lambda s=size: planted(s, changed("ln1.weight", np.ones_like)))  # fmt: skip # noqa: E501
        yield Case("F2", f"fc2's bytes as fc1's, {name}", "fc2", lambda s=size: planted(s, changed("fc2.weight", lambda w: np.ascontiguousarray(w.T).reshape(w.shape))), ("F12",))  # fmt: skip # noqa: E501
        tanh = {"act": lambda x: F.gelu(x, approximate="tanh")}
        yield Case("F20", f"gelu of tanh, {name}", "", lambda s=size, t=tanh: planted(s, **t), limit=FLOAT32)
        yield Case("F36", f"batch and time exchanged, {name}", "", lambda s=size: _square_batch(s))
    yield Case("F32", "RMSNorm less one (Gemma)", "norm", lambda: rms(changed("norm.weight", lambda w: w - 1)))
    yield Case("F8", "RMSNorm of 1e-6", "norm", lambda: rms(eps=1e-5))
    yield Case("F8", "group norm of 1e-5", "norm", lambda: groups(eps=1e-5))
    yield Case("F11", "a stacked projection converted twice", "fc1", lambda: dense_pair(np.transpose), ("F2",))
    yield Case("F38", "two layers of one shape paired the wrong way round", "fc1|fc2", lambda: dense_pair(None))


def _square_batch(size: tuple[int, int]) -> Made:
    source, target, _ = planted(size, first=False)
    return source, target, normal(STEPS, STEPS, size[0] * size[1])


class Normed(nn.Module):
    """Dense, a norm, dense."""

    def __init__(self, norm: nn.Module, turned: bool = False) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(7, 6), norm, nn.Linear(6, 3)
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 7) -> (batch, time, 3)."""
        x = self.fc1(x)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if self.turned else self.norm(x)
        return self.fc2(x)


def normed(norm: Any) -> Any:
    """The same in Keras."""
    return shaken(keras.Sequential([keras.Input((STEPS, 7)), L.Dense(6, name="fc1"), norm, L.Dense(3, name="fc2")]))


def rms(fix: Callable[[Any], Any] | None = None, eps: float = 1e-6) -> Made:
    """RMS norm."""
    source = normed(L.RMSNormalization(epsilon=1e-6, name="norm"))
    right, wrong = (Normed(nn.RMSNorm(6, eps=e)) for e in (1e-6, eps))
    return source, ported(source, right, wrong, fix), normal(3, STEPS, 7)


def groups(eps: float) -> Made:
    """Group norm."""
    source = normed(L.GroupNormalization(3, epsilon=1e-3, name="norm"))
    right, wrong = (Normed(nn.GroupNorm(3, 6, eps=e), turned=True) for e in (1e-3, eps))
    return source, ported(source, right, wrong), normal(3, STEPS, 7)


class Pair(nn.Module):
    """Two square dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 8) -> the same."""
        return self.fc2(torch.tanh(self.fc1(x)))


def dense_pair(change: Callable[[Array], Array] | None) -> Made:
    """A change of the first, or both exchanged."""
    source = shaken(keras.Sequential([keras.Input((8,)), L.Dense(8, activation="tanh", name="fc1"), L.Dense(8, name="fc2")]))  # fmt: skip # noqa: E501

    def exchanged(model: Any) -> None:
        for one, other in zip(model.fc1.parameters(), model.fc2.parameters(), strict=True):
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)

    fix = exchanged if change is None else changed("fc1.weight", change)
    return source, ported(source, Pair(), fix=fix), normal(4, 8)
