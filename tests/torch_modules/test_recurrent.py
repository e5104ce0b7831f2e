"""RNN, GRU and LSTM of layoutx.torch against the real layers of Keras 3, tf_keras and TensorFlow 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from module_pairs import carried, close, data, filled, outputs, scripted, sound

import layoutx.torch as lt
from layoutx.torch.activations import ACTIVATIONS

HARD = {2: "hard_sigmoid_0.2", 3: "hard_sigmoid_1/6"}


def package(version: int) -> Any:
    if version == 3:
        import keras

        return keras
    import tf_keras

    return tf_keras


def model_of(version: int, name: str, shape: tuple[int, ...], both: bool, **config: Any) -> Any:
    """A model of one recurrent layer that returns its outputs and its states."""
    keras = package(version)
    layer = getattr(keras.layers, name)(**config, return_sequences=True, return_state=True, dtype="float64")
    layer = keras.layers.Bidirectional(layer, dtype="float64") if both else layer
    x = keras.layers.Input(shape, dtype="float64")
    return filled(keras.Model(x, layer(x)))


def agree(model: Any, module: Any, x: Any) -> None:
    wanted = [np.asarray(y) for y in model(x)]
    y, *states = outputs(carried(model, module), x)
    close(wanted[0], y)
    many = len(states)
    for number, state in enumerate(states):
        close(np.stack(wanted[1 + number :: many]), state)
    sound(module, x)


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("units", [3, 7])  # square, and different primes
@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
def test_hard_sigmoid(version: int, both: bool, units: int, name: str) -> None:
    gates = {} if name == "SimpleRNN" else {"recurrent_activation": "hard_sigmoid"}
    config = {"activation": "hard_sigmoid"} if name == "SimpleRNN" else {"activation": "softsign", **gates}
    more = {"reset_after": False} if name == "GRU" else {}
    own = {"activation": HARD[version] if name == "SimpleRNN" else "softsign"}
    own |= {"gate_activation": HARD[version]} if gates else {}
    made = {"SimpleRNN": lt.RNN, "GRU": lt.GRU, "LSTM": lt.LSTM}[name]
    module = made(7, units, batch_first=True, bidirectional=both, **own)
    agree(model_of(version, name, (5, 7), both, units=units, **config, **more), module, data(2, 5, 7))


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_gru(version: int, after: bool, bias: bool, backwards: bool) -> None:
    config = {"units": 3, "reset_after": after, "use_bias": bias, "go_backwards": backwards}
    module = lt.GRU(7, 3, bias=bias, batch_first=True, reset_after=after, go_backwards=backwards)
    agree(model_of(version, "GRU", (5, 7), False, **config), module, data(2, 5, 7))


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_two_directions_that_go_backwards_read_x_from_its_end(name: str) -> None:
    module, x = getattr(lt, name)(7, 3, bidirectional=True).double(), data(5, 2, 7)
    wanted = outputs(module, x[::-1])
    module.go_backwards = True
    for a, b in zip(wanted, outputs(module, x), strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["relu", "elu", "selu", "softplus", "softsign", "swish", "linear", "mish"])
def test_activations(name: str) -> None:
    module = lt.LSTM(7, 3, batch_first=True, activation={"swish": "silu"}.get(name, name))
    agree(model_of(3, "LSTM", (5, 7), False, units=3, activation=name), module, data(2, 5, 7))


def test_the_other_hard_sigmoid_is_another_function() -> None:
    model = model_of(2, "LSTM", (5, 7), False, units=3, recurrent_activation="hard_sigmoid")
    module = carried(model, lt.LSTM(7, 3, batch_first=True, gate_activation="hard_sigmoid_0.2"))
    module.gate_activation = "hard_sigmoid_1/6"
    assert np.abs(np.asarray(model(data(2, 5, 7))[0]) - outputs(module, data(2, 5, 7))[0]).max() > 1e-3


def test_the_name_hard_sigmoid_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hard_sigmoid_0\.2, hard_sigmoid_1/6"):
        lt.GRU(3, 5, gate_activation="hard_sigmoid")


@pytest.mark.parametrize("proj", [0, 3])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("forget", [0.0, 1.0])
def test_the_cell_of_tensorflow_1(proj: int, peephole: bool, forget: float) -> None:
    from layoutx.plan.fit import fit
    from layoutx.spec.registry import registry
    from layoutx.verify import live

    config = {"num_units": 5, "use_peepholes": peephole, "num_proj": proj or None, "forget_bias": 1.0}
    x, rng = data(2, 7, 3), np.random.default_rng(2)
    shapes = live.describe("tf1.LSTMCell", config, {"x": x.shape})
    weights = {name: rng.uniform(-0.6, 0.9, shape) for name, shape in shapes}
    wanted = live.run("tf1.LSTMCell", config, weights, {"x": x})
    source = registry().bind("tf1.LSTMCell", config, shapes=dict(shapes))
    module = lt.LSTM(3, 5, batch_first=True, proj_size=proj, peephole=peephole, forget_bias=forget).double()
    there = {"peephole": peephole, "proj_size": proj, "forget_bias": forget, "batch_first": True}
    plan = fit(source, registry().form("torch.layoutx.LSTM"), there)
    arrays = plan(weights, allow={"rounds"})
    if forget == 1.0:  # added when it runs on both sides: bits move
        assert str(plan.exactness) in ("moves", "fills")
    module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    for name, got in zip(("y", "h", "c"), outputs(module, x), strict=True):
        close(wanted[name], got)
    sound(module, x)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("both", [False, True])
def test_what_torch_has_is_the_same(name: str, both: bool) -> None:
    """Time first by default, states in and out, as `torch.nn`."""
    more = {"GRU": {"reset_after": True}}.get(name, {})
    own, real = (
        getattr(lt, name)(7, 3, bidirectional=both, **more).double(),
        getattr(torch.nn, name)(7, 3, bidirectional=both).double(),
    )
    spelled = {
        name.replace("_l0_reverse", "_backward").replace("_l0", "_forward"): w for name, w in real.state_dict().items()
    }
    own.load_state_dict(spelled)
    x, state = torch.from_numpy(data(5, 2, 7)), torch.from_numpy(data(2 if both else 1, 2, 3, seed=4))
    given = (state, 2 * state) if name == "LSTM" else state
    for a, b in zip(outputs_of(real, x, given), outputs_of(own, x, given), strict=True):
        close(a, b)
    for a, b in zip(outputs_of(own, x, given), outputs_of(scripted(own), x, given), strict=True):
        close(a, b)


def outputs_of(module: Any, x: Any, state: Any) -> list[Any]:
    y, after = module(x, state)
    return [t.detach().numpy() for t in (y, *(after if isinstance(after, tuple) else (after,)))]


def test_every_activation_is_that_of_the_reference() -> None:
    from layoutx.torch.activations import activated
    from layoutx.verify.forward.activations import activation

    x = np.linspace(-40.0, 40.0, 321).reshape(3, 107)
    for name in ACTIVATIONS:
        np.testing.assert_allclose(
            activated(name, torch.from_numpy(x)).numpy(), activation(name)(x), rtol=1e-12, atol=1e-15
        )
