"""Models as people write them after the examples of flax and haiku, against torch modules of their own names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
torch = pytest.importorskip("torch")


def trained(tree: Any, seed: int = 0) -> Any:
    """A tree of parameters or statistics with made up numbers; variances and scales are positive."""
    rng = np.random.default_rng(seed)

    def made(path: Any, leaf: Any) -> Any:
        array = rng.standard_normal(np.shape(leaf)).astype(np.float32) * 0.4
        positive = any(word in jax.tree_util.keystr(path) for word in ("var", "scale"))
        return jax.numpy.asarray(np.abs(array) + 0.5 if positive else array)

    return jax.tree_util.tree_map_with_path(made, tree)


def torch_trained(module: Any, seed: int = 1) -> Any:
    """A torch module with made up numbers, at inference."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.dtype.is_floating_point:
                array = rng.standard_normal(tuple(tensor.shape)) * 0.4
                tensor.copy_(torch.from_numpy(np.abs(array) + 0.5 if "var" in name else array))
    return module.eval()


def first(x: Any) -> Any:
    """A batch of maps with its channels in front, for torch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


class Block(linen.Module):
    """A residual block whose call takes the norm's mode from outside, with names of its own."""

    train: bool

    def setup(self) -> None:
        self.conv_a, self.conv_b = linen.Conv(4, (3, 3), use_bias=False), linen.Conv(4, (3, 3), use_bias=False)
        self.bn_a, self.bn_b = (linen.BatchNorm(use_running_average=not self.train) for _ in range(2))

    def __call__(self, x: Any) -> Any:
        return linen.relu(x + self.bn_b(self.conv_b(linen.relu(self.bn_a(self.conv_a(x))))))


class Residual(linen.Module):
    """flax' ImageNet example in small: `train` is true unless the caller says otherwise."""

    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.Conv(4, (3, 3), name="conv_init")(x)
        for at in range(2):
            x = Block(train, name=f"block_{at}")(x)
        return linen.Dense(3, name="head")(x.mean((1, 2)))


class TorchBlock(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


class TorchResidual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.blocks = torch.nn.Sequential(TorchBlock(), TorchBlock())
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def test_a_model_that_trains_unless_told_otherwise_is_run_at_inference() -> None:
    """Its norms would ask for batch statistics to change, so that it was neither traced nor run."""
    x = np.random.default_rng(2).standard_normal((2, 6, 6, 2)).astype(np.float32)
    module = Residual()
    variables = trained(module.init(jax.random.key(0), x))
    target = TorchResidual().eval()
    report = lx.port((module, variables), target, x)
    assert report.end_to_end.agrees
    with torch.no_grad():
        np.testing.assert_allclose(target(first(x)), module.apply(variables, x, train=False), atol=1e-4)


class Names(linen.Module):
    """Layers whose names do not tell their classes."""

    def setup(self) -> None:
        self.up, self.mix = linen.Conv(4, (3, 3), padding="VALID"), linen.Dense(4)
        self.ln, self.out = linen.LayerNorm(), linen.Dense(3)

    def __call__(self, x: Any) -> Any:
        x = self.ln(self.up(x))
        return self.out(linen.relu(self.mix(x)))


class TorchNames(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.ln = torch.nn.Conv2d(4, 4, 3), torch.nn.LayerNorm(4, eps=1e-6)
        self.mix, self.out = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        x = self.ln(self.up(x).permute(0, 2, 3, 1))
        return self.out(torch.relu(self.mix(x)))


def test_the_counterpart_tells_the_class_of_a_layer_that_weights_alone_do_not() -> None:
    x = np.random.default_rng(3).standard_normal((2, 5, 5, 4)).astype(np.float32)
    module = Names()
    variables = trained(module.init(jax.random.key(0), x))
    with pytest.raises(LayoutxError, match=r"flax\.Conv, flax\.ConvTranspose"):
        lx.convert(variables, None, to="torch")
    target = TorchNames().eval()
    report = lx.port(variables, target, keep_order=True)  # a Dense of a map's channels: nothing is flattened
    assert "form from its counterpart" in " ".join(note for layer in report.layers for note in layer.notes)
    with torch.no_grad():
        np.testing.assert_allclose(target(first(x)), module.apply(variables, x), atol=1e-5)
    back = lx.port(target, variables).model
    for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(old, new)
