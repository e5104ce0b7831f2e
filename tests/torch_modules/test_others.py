"""ConvLSTM, locally connected layers and batch normalization over another axis, against the real Keras layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
import torch
from module_pairs import carried, close, data, filled, first, outputs, sound

import layoutx.torch as lt

HARD = {keras: "hard_sigmoid_1/6", tf_keras: "hard_sigmoid_0.2"}


def made(package: Any, layer: Any, shape: tuple[int, ...]) -> Any:
    x = package.layers.Input(shape, dtype="float64")
    return filled(package.Model(x, layer(x)))


@pytest.mark.parametrize("package", [keras, tf_keras])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "config",
    [
        {"kernel_size": 3, "padding": "same", "strides": 2},
        {"kernel_size": 4, "activation": "relu", "use_bias": False},
        {"kernel_size": 2, "dilation_rate": 2, "go_backwards": True, "padding": "same"},
    ],
    ids=["strided", "even", "dilated"],
)
def test_conv_lstm(package: Any, rank: int, config: dict[str, Any]) -> None:
    space = ((11,), (11, 8), (6, 5, 4))[rank - 1]
    layer = getattr(package.layers, f"ConvLSTM{rank}D")(
        filters=3,
        recurrent_activation="hard_sigmoid",
        return_sequences=True,
        return_state=True,
        dtype="float64",
        **config,
    )
    model, x = made(package, layer, (5, *space, 3)), data(2, 5, *space, 3)
    module = getattr(lt, f"ConvLSTM{rank}d")(
        3, 3, config["kernel_size"], config.get("strides", 1), config.get("padding", "valid"),
        config.get("dilation_rate", 1), config.get("use_bias", True), batch_first=True,
        activation=config.get("activation", "tanh"), gate_activation=HARD[package],
        go_backwards=config.get("go_backwards", False),
    )  # fmt: skip
    y, h, c = outputs(carried(model, module), np.moveaxis(x, -1, 2))
    wanted = [np.asarray(v) for v in model(x)]
    close(np.moveaxis(wanted[0], -1, 2), y)
    close(first(wanted[1]), h)
    close(first(wanted[2]), c)
    sound(module, np.moveaxis(x, -1, 2))


def test_conv_lstm_goes_on_from_given_states() -> None:
    module, x = lt.ConvLSTM2d(3, 2, 3, padding="same").double(), torch.from_numpy(data(4, 2, 3, 5, 7))
    y, last = module(x)
    half, states = module(x[:2])
    rest, end = module(x[2:], states)
    close(y.detach().numpy(), torch.cat((half, rest)).detach().numpy())
    close(last[1].detach().numpy(), end[1].detach().numpy())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_locally_connected(stride: int, bias: bool) -> None:
    more = {"strides": stride, "use_bias": bias, "dtype": "float64"}
    model = made(tf_keras, tf_keras.layers.LocallyConnected1D(5, 3, **more), (11, 3))
    module = lt.LocallyConnected1d(3, 5, 8 // stride + 1, 3, stride, bias)
    close(first(model(data(2, 11, 3))), outputs(carried(model, module), first(data(2, 11, 3)))[0])
    sound(module, first(data(2, 11, 3)))
    for size in ((3, 2), 3) if bias else ():  # without one, the rows and columns of a live layer are not told
        model = made(tf_keras, tf_keras.layers.LocallyConnected2D(5, size, **more), (9, 7, 3))
        steps = first(model(data(2, 9, 7, 3))).shape[2:]
        module = lt.LocallyConnected2d(3, 5, steps, size, stride, bias)
        close(first(model(data(2, 9, 7, 3))), outputs(carried(model, module), first(data(2, 9, 7, 3)))[0])
        sound(module, first(data(2, 9, 7, 3)))


@pytest.mark.parametrize("package", [keras, tf_keras])
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("shape", [(5, 3, 7), (5, 5, 5)])
def test_batch_norm_over_any_axis(package: Any, axis: int, shape: tuple[int, ...]) -> None:
    layer = package.layers.BatchNormalization(axis=axis, epsilon=0.01, dtype="float64")
    model, x = made(package, layer, shape), data(2, *shape)
    module = carried(model, lt.BatchNorm((2, *shape)[axis], axis, eps=0.01))
    close(model(x), outputs(module, x)[0])
    sound(module, x)


def test_batch_norm_trains_as_torch_does() -> None:
    own, real = lt.BatchNorm(5).double(), torch.nn.BatchNorm2d(5).double()
    for seed in range(3):
        x = torch.from_numpy(data(4, 5, 3, 7, seed=seed))
        close(real(x).detach().numpy(), own(x).detach().numpy())
    assert own.state_dict().keys() == real.state_dict().keys()
    for name, value in real.state_dict().items():
        close(value.numpy(), own.state_dict()[name].numpy())


def test_eps_added_to_the_deviation() -> None:
    module = lt.BatchNorm(3, eps=0.5, eps_added_to="deviation").double().eval()
    module.running_var.fill_(4.0)
    close(data(2, 3) / 2.5, outputs(module, data(2, 3))[0])
    with pytest.raises(ValueError, match="deviation"):
        lt.BatchNorm(3, eps_added_to="root")
