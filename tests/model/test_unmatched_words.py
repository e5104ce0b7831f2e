"""What errors of matching advise: the form that a holder's numbers fit, and the live module in a file's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L = keras.layers


class Cross(L.Layer):
    """A layer of DCN-v2, whose Dense a `.keras` file of a class nobody knows does not call one."""

    def build(self, shapes: Any) -> None:
        self.dense = L.Dense(shapes[0][-1])
        self.dense.build(shapes[0])

    def call(self, pair: Any) -> Any:
        return pair[0] * self.dense(pair[1]) + pair[1]

    def compute_output_shape(self, shapes: Any) -> Any:
        return shapes[0]


def _refused(source: Path, like: Any, out: Path, **more: Any) -> str:
    with pytest.raises(LayoutxError) as error:
        lx.convert(source, out, to="torch", like=like, **more)
    return str(error.value)


def test_the_form_that_the_numbers_of_an_unknown_class_fit_is_named_and_works(tmp_path: Path) -> None:
    inputs = keras.Input((7,))
    model = keras.Model(inputs, L.Dense(3, name="head")(Cross(name="cross")([inputs, inputs])))
    model.save(tmp_path / "m.keras")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cross, self.head = torch.nn.Linear(7, 7), torch.nn.Linear(7, 3)

        def forward(self, x: Any) -> Any:
            return self.head(x * self.cross(x) + x)

    out = tmp_path / "o.pt"
    assert "--form cross=keras.Dense)" in _refused(tmp_path / "m.keras", Net(), out)
    lx.convert(tmp_path / "m.keras", out, to="torch", like=Net(), forms={"cross": "keras.Dense"})
    written = torch.load(out)["cross.weight"].numpy()
    np.testing.assert_array_equal(written, np.asarray(model.get_layer("cross").dense.kernel).T)


def test_a_file_in_which_a_convolution_looks_like_one_transposed_asks_for_the_module(tmp_path: Path) -> None:
    x = inputs = keras.Input((6, 6, 5))
    for layer in (L.Conv2D, L.Conv2DTranspose):
        x = layer(5, 3, strides=2, padding="same")(x)
    model = keras.Model(inputs, x)
    model.save(tmp_path / "m.keras")
    net = torch.nn.ModuleDict({"enc": torch.nn.Conv2d(5, 5, 3), "dec": torch.nn.ConvTranspose2d(5, 5, 3)})
    from safetensors.torch import save_file

    save_file(net.state_dict(), tmp_path / "t.safetensors")
    text = _refused(tmp_path / "m.keras", tmp_path / "t.safetensors", tmp_path / "o.safetensors")
    assert "give the live module that has loaded it" in text
    lx.convert(tmp_path / "m.keras", tmp_path / "o.pt", to="torch", like=net)
    kernel = np.asarray(model.layers[1].kernel).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(torch.load(tmp_path / "o.pt")["enc.weight"].numpy(), kernel)
