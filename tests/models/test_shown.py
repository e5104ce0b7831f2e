"""What a run of two models shows, and what it cannot show: every output by its own size, larger numbers, silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx
from layoutx.errors import VerificationError
from layoutx.verify.outputs import untelling

keras = pytest.importorskip("keras")
L = keras.layers
NOTHING = "every layer computes the same, of the whole models nothing is known"


class Module(nn.Module):
    """Two layers and what the test computes of them."""

    def __init__(self, compute: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.compute(self, x)


def filled(inputs: Any, outputs: Any) -> Any:
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(7)
    for weight in model.weights:
        shape = tuple(weight.shape)
        positive = "variance" in weight.path or "gamma" in weight.path
        weight.assign(rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, 0.5, shape))
    return model


def chain(between: str = "tanh", last: str = "linear") -> Any:
    made = keras.Input((6,))
    x = L.Dense(6, name="a")(made)
    return filled(made, L.Dense(3, name="b", activation=last)(L.Activation(between)(x)))


def twin(between: Callable[[torch.Tensor], torch.Tensor]) -> Module:
    return Module(lambda own, x: own.b(between(own.a(x))), a=nn.Linear(6, 6), b=nn.Linear(6, 3))


def first_line(report: Any) -> str:
    return " ".join(str(report).split("\n\n")[0].split())


def test_a_small_output_is_not_the_rounding_of_a_large_one() -> None:
    made = keras.Input((6,))
    outputs = [L.Rescaling(1e6)(L.Dense(4, name="a")(made)), L.Activation("tanh")(L.Dense(4, name="b")(made))]
    source = filled(made, outputs)
    layers = {"a": nn.Linear(6, 4), "b": nn.Linear(6, 4)}
    wrong = Module(lambda own, x: (own.a(x) * 1e6, torch.sigmoid(own.b(x))), **layers)
    with pytest.raises(VerificationError, match="do not compute the same"):
        lx.port(source, wrong)
    right = Module(lambda own, x: (own.a(x) * 1e6, torch.tanh(own.b(x))), **layers)
    end = lx.port(source, right).end_to_end
    assert end is not None
    assert end.agrees


def test_small_outputs_are_compared_too() -> None:
    source = chain()
    last = source.get_layer("b")
    last.kernel.assign(np.asarray(last.kernel) * 1e-13)
    last.bias.assign(np.zeros(3))
    with pytest.raises(VerificationError):
        lx.port(source, twin(torch.sigmoid))
    assert "the models compute the same;" in first_line(lx.port(source, twin(torch.tanh)))


def test_what_cuts_off_large_numbers_shows_on_larger_inputs() -> None:
    source = chain("relu6")
    with pytest.raises(VerificationError, match="not on 16 times as large") as caught:
        lx.port(source, twin(torch.relu))
    assert "between a and b" in str(caught.value)
    lx.port(source, target := twin(torch.relu), compare=False)
    found = lx.validate(source, target)
    assert not found.ok
    assert "not on 16 times as large ones: they differ, first between a and b" in first_line(found)
    good = twin(nn.functional.relu6)
    assert "the models compute the same;" in first_line(lx.port(source, good))
    assert lx.validate(source, good).ok
    given = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    assert lx.validate(source, target, given).ok  # on what the user gave, and on nothing else


@pytest.mark.parametrize("silent", ["constant", "saturated"])
def test_outputs_that_tell_nothing_prove_nothing(silent: str) -> None:
    """The target computes something else; no output of these models could show it."""
    source = chain(last="softmax" if silent == "saturated" else "linear")
    last = source.get_layer("b")
    last.kernel.assign(np.zeros((6, 3)) if silent == "constant" else np.asarray(last.kernel) * 1e-3)
    last.bias.assign([1.0, 2.0, 3.0] if silent == "constant" else [300.0, 0.0, -300.0])
    end = (lambda y: torch.softmax(y, -1)) if silent == "saturated" else lambda y: y
    target = Module(lambda own, x: end(own.b(torch.sigmoid(own.a(x)))), a=nn.Linear(6, 6), b=nn.Linear(6, 3))
    report = lx.port(source, target)
    assert NOTHING in first_line(report)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is None
    assert "tell nothing of the layers before" in " ".join(str(report).split())


def test_what_tells_something() -> None:
    rng = np.random.default_rng(0)
    wide = "float64"
    assert untelling([rng.normal(size=(3, 4))], wide) == ""
    assert untelling([np.ones((3, 4)), rng.normal(size=(3, 4))], wide) == ""  # one output that tells is enough
    assert untelling([np.ones((1, 4))], wide) == ""  # of one sample nobody can say
    assert untelling([np.eye(3)[[0, 1]] + 1e-3], wide) == ""
    assert untelling([np.eye(3)[[0, 1]]], wide) != ""
    assert untelling([np.array([[1], [0]])], wide) == ""  # whole numbers are meant so
    nearly = np.ones((3, 4)) + 1e-7 * rng.normal(size=(3, 4))
    assert untelling([nearly], wide) == ""
    assert untelling([nearly], "float32") != ""


def test_one_sample_again_and_again() -> None:
    """Outputs that are the same because the inputs are tell as much as one sample does."""
    end = lx.port(chain(), twin(torch.tanh), np.ones((3, 6), np.float32)).end_to_end
    assert end is not None
    assert end.agrees


def test_what_is_lost_in_biases_shows_on_larger_inputs() -> None:
    """Between plain inputs the outputs vary by less than float32 keeps; images are read so without their Rescaling."""
    source = chain()
    first = source.get_layer("a")
    first.kernel.assign(np.asarray(first.kernel) * 1e-7)
    end = lx.port(source, twin(torch.tanh)).end_to_end
    assert end is not None
    assert end.agrees


def test_time_before_batch_is_no_rounding() -> None:
    made = keras.Input((5, 6))
    source = filled(made, L.Dense(3, name="o")(L.LSTM(6, return_sequences=True, name="l")(made)))

    def module(**options: bool) -> Module:
        layers = {"l": nn.LSTM(6, 6, **options), "o": nn.Linear(6, 3)}
        return Module(lambda own, x: own.o(own.l(x)[0]), **layers)

    report = lx.port(source, module())
    assert "compute the same if the target is given time before batch" in first_line(report)
    assert "rounding" not in str(report)
    assert "the models compute the same;" in first_line(lx.port(source, module(batch_first=True)))


def test_an_epsilon_that_hardly_shows_is_said_first() -> None:
    made = keras.Input((6,))
    source = filled(made, L.Dense(3, name="o")(L.LayerNormalization(epsilon=1e-12, name="n")(made)))

    def module(eps: float) -> Module:
        return Module(lambda own, x: own.o(own.n(x)), n=nn.LayerNorm(6, eps=eps), o=nn.Linear(6, 3))

    assert "the models compute the same, settings of n apart;" in first_line(lx.port(source, module(1e-5)))
    assert "the models compute the same;" in first_line(lx.port(source, module(1e-12)))


def test_inputs_in_another_order_are_said_first() -> None:
    one, two = keras.Input((6,), name="one"), keras.Input((6,), name="two")
    both = [L.Dense(4, activation="tanh", name="a")(one), L.Dense(4, activation="tanh", name="b")(two)]
    source = filled([one, two], L.Dense(2, name="o")(L.Concatenate()(both)))

    class Exchanged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 2)

        def forward(self, two: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
            return self.o(torch.cat([torch.tanh(self.a(one)), torch.tanh(self.b(two))], -1))

    lx.port(source, target := Exchanged())
    assert "they compute the same, the target given inputs 2, 1 in this order." in first_line(
        lx.validate(source, target)
    )


def test_a_model_of_one_batch_size_is_run_on_it() -> None:
    """A stateful layer takes no other, and goes on where it stopped: its states are afterwards what they were."""
    made = keras.Input(batch_shape=(2, 5, 6))
    source = filled(made, L.Dense(3, name="o")(L.LSTM(6, stateful=True, name="l")(made)))
    layers = {"l": nn.LSTM(6, 6, batch_first=True), "o": nn.Linear(6, 3)}
    target = Module(lambda own, x: own.o(own.l(x)[0][:, -1]), **layers)
    before = [np.asarray(state) for state in source.get_layer("l").states]
    end = lx.port(source, target).end_to_end
    assert end is not None
    assert end.agrees
    for state, old in zip(source.get_layer("l").states, before, strict=True):
        np.testing.assert_array_equal(np.asarray(state), old)
