"""Real LSTM files of Keras 1 and 2 with hard_sigmoid gates, run in torch against the outputs that Keras once gave."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import layoutx as lx
import layoutx.torch as lt
from layoutx.errors import LayoutxError

NAMES = ["tf_keras_1", "tf_keras_2", "th_keras_1"]


@pytest.mark.models
@pytest.mark.parametrize("name", NAMES)
def test_a_real_lstm_with_hard_sigmoid(name: str, models: Path, tmp_path: Path) -> None:
    path, out = models / "dl4j-fixtures/simple_lstm" / f"{name}_model.h5", tmp_path / "out.safetensors"
    with pytest.raises(LayoutxError, match="--allow modules"):
        lx.convert(path, out, to="torch")
    assert not out.exists()
    lstm, dense = lx.convert(path, out, to="torch", allow={"modules"}).layers
    module = eval(lstm.settings[0].removeprefix("build it as "), {"layoutx": lx})
    assert isinstance(module, lt.LSTM)
    head = torch.nn.Linear(50, 1)
    state = load_file(out)
    for layer, built in ((lstm, module), (dense, head)):
        start = f"{layer.name}."
        built.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
    assert lstm.proof.method.startswith("torch ")
    with h5py.File(str(path).replace("model.h5", "inputs_and_outputs.h5")) as data:
        if "predictions" not in data:  # that file keeps no outputs
            return
        (x,), (wanted,) = (np.asarray(list(data[key].values())) for key in ("inputs", "predictions"))
    with torch.no_grad():
        y, _ = module(torch.from_numpy(x.astype(np.float32)))
        got = head(y[:, -1]).numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * max(1.0, float(np.abs(wanted).max())))
    module.gate_activation = "sigmoid"  # what torch's own LSTM would compute
    with torch.no_grad():
        assert np.abs(head(module(torch.from_numpy(x.astype(np.float32)))[0][:, -1]).numpy() - wanted).max() > 1e-3


@pytest.mark.models
def test_real_transposed_convolutions(models: Path) -> None:
    """28 of TensorFlow's outputs; two are longer than the full transposed convolution."""
    folder = models / "dl4j-fixtures/deconv2d"
    names = sorted(path.name.removesuffix("_W.npy") for path in folder.glob("*_W.npy"))
    assert len(names) == 28
    for name in names:
        weight, bias, x, wanted = (np.load(folder / f"{name}_{part}.npy") for part in ("W", "b", "in", "out"))
        stride, padding, dilation = name.split("_")[3:6]
        if name.endswith("nhwc"):
            x, wanted = np.moveaxis(x, -1, 1), np.moveaxis(wanted, -1, 1)
        size, out, channels = weight.shape[:2], *weight.shape[2:]
        module = lt.ConvTranspose2dSame(channels, out, size, int(stride[1:]), padding, dilation=int(dilation[1:]))
        numbers = {"weight": weight.transpose(3, 2, 0, 1), "bias": bias.reshape(-1)}
        module.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(a)).float() for key, a in numbers.items()})
        with torch.no_grad():
            got = module(torch.from_numpy(np.ascontiguousarray(x)).float()).numpy()
        if padding == "valid":  # Keras fills up to a whole stride, which these calls of tf.nn did not ask for
            got = got[..., : wanted.shape[2], : wanted.shape[3]]
        assert got.shape == wanted.shape, name
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())), err_msg=name)
