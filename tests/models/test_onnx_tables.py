"""Tables of positions in ONNX graphs: a bare torch parameter that an Add holds, there and back; masks are none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_models import precision
from torch import Tensor, nn

import layoutx
from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records

STEPS, WIDTH = 5, 7


class Adds(nn.Module):
    """A projection, positions added to it, and another."""

    def __init__(self, shape: tuple[int, ...] = (1, STEPS, WIDTH), name: str = "pos", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.name = name
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, steps, 3)."""
        return self.last(getattr(self, self.name) + self.first(x))


def exported(module: nn.Module, path: Path, x: Tensor, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), path, dynamo=False, opset_version=17, input_names=["x"], **options)
    return path


def given(seed: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(2, STEPS, 3)).astype("float32")


@pytest.mark.parametrize("options", [{}, {"do_constant_folding": False}, {"dynamic_axes": {"x": {0: "b", 1: "t"}}}])
@pytest.mark.parametrize("shape", [(1, STEPS, WIDTH), (STEPS, WIDTH)])
def test_torch_there_and_back(shape: tuple[int, ...], options: dict[str, Any], tmp_path: Path) -> None:
    module = Adds(shape)
    path = exported(module, tmp_path / "m.onnx", torch.from_numpy(given()), **options)
    found = {r.name: r for r in onnx_records(open_store(path)).layers}
    assert list(found) == ["first", "pos", "last"]
    assert (found["pos"].form, found["pos"].config) == ("onnx.Add", {"leading": len(shape) == 3})
    assert (found["pos"].inputs, found["last"].inputs) == (("first",), ("pos",))
    other = Adds(shape, seed=1)
    assert layoutx.match(path, other).complete
    assert layoutx.port(path, other, given()).end_to_end.agrees is True
    torch.testing.assert_close(other.pos, module.pos, rtol=0, atol=0)
    third = Adds(shape, seed=2)
    layoutx.convert(third, tmp_path / "new.onnx", to="onnx", like=path)
    assert layoutx.validate(third, tmp_path / "new.onnx", given()).ok
    assert not layoutx.validate(third, path, given()).ok


def keras_adds(seed: int) -> Any:
    import keras

    class Positions(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=shape[1:], name="table")

        def call(self, x: Any) -> Any:
            return x + self.table

    with precision(keras, "float32"):
        x = keras.Input((STEPS, 3))
        y = keras.layers.Dense(WIDTH, name="first")(x)
        model = keras.Model(x, keras.layers.Dense(2, name="last")(Positions(name="pos")(y)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def test_keras_there_and_back(tmp_path: Path) -> None:
    module = Adds()
    path = exported(module, tmp_path / "m.onnx", torch.from_numpy(given()))
    model = keras_adds(4)
    layoutx.convert(model, tmp_path / "new.onnx", to="onnx", like=path)
    table = open_store(tmp_path / "new.onnx").tensors["pos"].read()
    np.testing.assert_array_equal(table[0], model.get_layer("pos").table)
    assert layoutx.validate(model, tmp_path / "new.onnx", given()).ok
    assert layoutx.port(path, model, given()).end_to_end.agrees is True
    np.testing.assert_array_equal(np.asarray(model.get_layer("pos").table), module.pos.detach().numpy()[0])


@pytest.mark.parametrize("name", ["mask", "offset"])
def test_what_is_not_called_a_table_is_none(name: str, tmp_path: Path) -> None:
    path = exported(Adds((STEPS, WIDTH), name), tmp_path / "m.onnx", torch.from_numpy(given()))
    (added,) = [r for r in onnx_records(open_store(path)).layers if r.class_name == "Add"]
    assert (added.form, list(added.tensors)) == ("", [name])


def test_what_is_spread_over_positions_or_maps_is_none(tmp_path: Path) -> None:
    """One row for all positions, and numbers of the places of a map, are no rows of a table."""
    path = exported(Adds((1, 1, WIDTH)), tmp_path / "m.onnx", torch.from_numpy(given()))
    assert "onnx.Add" not in {r.form for r in onnx_records(open_store(path)).layers}

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pos = nn.Conv2d(3, 2, 1), nn.Parameter(torch.randn(STEPS, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x)) + self.pos

    path = exported(Maps(), tmp_path / "maps.onnx", torch.randn(2, 3, STEPS, WIDTH))
    assert "onnx.Add" not in {r.form for r in onnx_records(open_store(path)).layers}
