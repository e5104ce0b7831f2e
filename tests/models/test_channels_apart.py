"""Channels that a program takes apart and joins again: norms of groups written by hand, shuffles, repeated vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx
from layoutx.errors import ConversionError

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
keras = pytest.importorskip("keras")
L = keras.layers
RNG = np.random.default_rng(29)
X = RNG.normal(size=(2, 7, 5, 3)).astype("float32")  # n h w c


def filled(tree: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a + RNG.normal(0, 0.3, a.shape), "float32"), tree)


def trained(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.from_numpy(RNG.normal(0, 0.4, tuple(value.shape))))
    return module.eval()


class Groups(linen.Module):
    """A norm over two groups of channels as haiku and many scripts write it: channels are cut, and joined again."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        y = linen.Conv(6, (3, 3), padding="VALID")(x)
        apart = y.reshape(*y.shape[:3], 2, 3)
        centred = apart - apart.mean((1, 2, 4), keepdims=True)
        y = (centred / jax.numpy.sqrt((centred**2).mean((1, 2, 4), keepdims=True) + 1e-5)).reshape(y.shape)
        return linen.Dense(11)(y.reshape(len(y), -1))


class TorchGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6, affine=False), nn.Linear(90, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).flatten(1))


def test_the_rows_behind_channels_that_were_apart_are_those_of_the_map() -> None:
    """Taken for rows of no map, they stayed in the order of jax: every layer was right and the model was not."""
    module, target = Groups(), TorchGroups()
    variables = filled(module.init(jax.random.key(0), X))
    first = torch.from_numpy(np.moveaxis(X, -1, 1).copy())
    report = lx.port((module, variables), target, X, compare=False)
    assert "rows h w c reordered to c h w" in " ".join(str(report).split())
    np.testing.assert_allclose(target.eval()(first).detach(), module.apply(variables, X), rtol=1e-4, atol=1e-5)
    back = lx.port(trained(target), (module, variables), first.numpy())
    np.testing.assert_allclose(target(first).detach(), module.apply(back.model[1], X), rtol=1e-4, atol=1e-5)


class Shuffled(nn.Module):
    """ShuffleNet's exchange of channels between groups, before the map is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(90, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(y.flatten(1))


class LinenShuffled(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        y = linen.Conv(6, (3, 3), padding="VALID")(x)
        y = y.reshape(*y.shape[:3], 2, 3).swapaxes(3, 4).reshape(y.shape)
        return linen.Dense(11)(y.reshape(len(y), -1))


def test_shuffled_channels_are_flattened_in_their_new_order() -> None:
    module, other = trained(Shuffled()), LinenShuffled()
    variables = filled(other.init(jax.random.key(0), X))
    first = torch.from_numpy(np.moveaxis(X, -1, 1).copy())
    there = lx.port(module, (other, variables), first.numpy(), compare=False)
    np.testing.assert_allclose(module(first).detach(), other.apply(there.model[1], X), rtol=1e-4, atol=1e-5)
    lx.port((other, variables), module, X, compare=False)
    np.testing.assert_allclose(module(first).detach(), other.apply(variables, X), rtol=1e-4, atol=1e-5)


class Pooled(linen.Module):
    """Halves of the channels beside positions: no map, and no vector that lies alike elsewhere."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        y = linen.Conv(6, (3, 3), padding="VALID")(x)
        return linen.Dense(11)(y.reshape(*y.shape[:3], 2, 3).mean(4).reshape(len(y), -1))


def test_a_part_of_the_channels_beside_positions_is_in_no_known_order() -> None:
    module = Pooled()
    variables = filled(module.init(jax.random.key(0), X))
    target = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(30, 11))
    with pytest.raises(ConversionError, match="the order of the 30 input rows of Dense_0 is not known"):
        lx.port((module, variables), target, X, compare=False)


class Repeated(nn.Module):
    """A vector given to every step of a decoder, as `x[:, None].repeat(1, steps, 1)`, `expand` or `tile`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.code, self.decode = nn.Conv2d(3, 6, 3), nn.Linear(90, 5), nn.GRU(5, 7, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.code(self.conv(x).flatten(1))
        if self.how == "repeat":
            steps = code[:, None].repeat(1, 4, 1)
        else:
            steps = code[:, None, ...].expand(-1, 4, -1) if self.how == "expand" else code.unsqueeze(1).tile(4, 1)
        return self.decode(steps)[0]


@pytest.mark.parametrize("how", ["repeat", "expand", "tile"])
def test_a_vector_repeated_over_the_steps_is_followed(how: str) -> None:
    module = trained(Repeated(how))
    x = keras.Input((7, 5, 3))
    code = L.Dense(5)(L.Flatten()(L.Conv2D(6, 3)(x)))
    model = keras.Model(x, L.GRU(7, return_sequences=True)(L.RepeatVector(4)(code)))
    report = lx.port(module, model, np.moveaxis(X, -1, 1).copy(), allow=["rounds"])
    assert report.end_to_end.agrees
    variables = Decoded().init(jax.random.key(0), X)
    back = lx.port(module, (Decoded(), variables), np.moveaxis(X, -1, 1).copy(), allow=["rounds"])
    assert back.end_to_end.agrees


class Decoded(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        y = linen.Conv(6, (3, 3), padding="VALID")(x)
        code = linen.Dense(5)(y.reshape(len(y), -1))
        return linen.RNN(linen.GRUCell(7))(jax.numpy.repeat(code[:, None], 4, 1))
