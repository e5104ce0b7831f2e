"""Two models that do not compute the same: where they part is said after one run of both, with what is known of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch_models
from keras_models import trained
from torch import nn

from layoutx.errors import LayoutxError, VerificationError
from layoutx.job.jobs import options_of
from layoutx.port import port
from layoutx.show.validation_text import reason
from layoutx.spec.registry import registry
from layoutx.validate import compared_models, validate
from layoutx.verify.running.keras_run import KerasRunner
from layoutx.verify.running.torch_run import TorchRunner

L = keras.layers
PICTURE = (9, 8, 3)


def preparing() -> Any:
    """Pictures scaled and standardised by the model itself, then two convolutions and a norm."""
    rng = np.random.default_rng(5)
    norm = L.Normalization(name="standard")
    norm.adapt(rng.uniform(0, 1, (40, *PICTURE)) * (1.0, 0.5, 0.2))
    layers = [L.Rescaling(1 / 255, name="scale"), norm, *body()]
    return stirred(keras.Sequential([keras.Input(PICTURE), *layers]))


def scaling() -> Any:
    """Pictures scaled alone, which needs no weights; zeros are put around what is scaled."""
    layers = [L.Rescaling(1 / 128, offset=-1.0, name="scale"), L.ZeroPadding2D(1, name="border"), *body("valid")]
    return stirred(keras.Sequential([keras.Input(PICTURE), *layers]))


def body(padding: str = "same") -> list[Any]:
    """What torch has too; at the second convolution's stride of two `same` pads one end only."""
    first, second = L.Conv2D(5, 3, padding=padding, name="first"), L.Conv2D(7, 3, 2, padding="same", name="second")
    return [first, second, L.BatchNormalization(name="norm"), L.GlobalAveragePooling2D(), L.Dense(4, name="head")]


def stirred(model: Any) -> Any:
    """Every weight of the convolutions and norms other than at the start."""
    rng = np.random.default_rng(6)
    for layer in model.layers:
        if layer.name in ("first", "second", "norm", "head"):
            layer.set_weights([rng.uniform(0.3, 1.0, w.shape) for w in layer.get_weights()])
    return model


class Body(nn.Module):
    """The same without what prepares the pictures; `right`: with Keras' own padding and eps."""

    def __init__(self, right: bool = True, eps: float = 1e-3) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(7, eps=eps)
        self.second = nn.Conv2d(5, 7, 3, stride=2, padding=0 if right else 1)
        self.head, self.right = nn.Linear(7, 4), right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 9, 8) -> (batch, 4); nine rows take one in front and one behind, eight columns one behind."""
        x = self.first(x)
        x = self.second(nn.functional.pad(x, (0, 1, 1, 1)) if self.right else x)
        return self.head(self.norm(x).mean((2, 3)))


def said(model: Any, module: nn.Module, **given: Any) -> str:
    """The refusal; the module has its own weights again."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(VerificationError, match="do not compute the same") as caught:
        port(model, module.eval(), **given)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    return str(caught.value)


def test_what_stands_before_the_target_is_given_to_it() -> None:
    """Left out, the standardisation is done for the target: the two are compared, and agree."""
    model, module = preparing(), Body().eval()
    with pytest.raises(LayoutxError, match=r"--skip standard\), and the other model is given what it makes"):
        port(model, module)
    end = port(model, module, skip=["standard"]).end_to_end
    assert end.agrees is True
    standard = model.get_layer("standard")
    mean, root = (np.asarray(x, np.float64).ravel() for x in (standard.mean, standard.variance))
    root = np.sqrt(root)
    factors, terms = (", ".join(f"{v:.4g}" for v in x) for x in (1 / 255 / root, -mean / root))
    words = end.note.split("what scale, standard make of the inputs: x * ")[1]
    told = [[float(v) for v in part.split(")")[0].split(", ")] for part in words.replace("(", "").split("+")]
    assert [", ".join(f"{v:.4g}" for v in part) for part in told] == [factors, terms]
    x = np.random.default_rng(8).uniform(0, 255, (2, *PICTURE)).astype(np.float32)
    given = torch.from_numpy(np.moveaxis((x / 255 - mean) / root, -1, 1).astype(np.float32).copy())
    np.testing.assert_allclose(module(given).detach().numpy(), model(x), rtol=1e-5)


@pytest.mark.parametrize("own", [False, True], ids=["made inputs", "given inputs"])
def test_what_stands_before_a_target_from_torch(own: bool) -> None:
    """The way back: the module is given what is prepared, or the Keras model what the module's inputs were made of."""
    module, model = Body().eval(), preparing()
    before = model.get_layer("first").get_weights()
    with pytest.raises(LayoutxError, match=r"--skip standard\), and the other model is given what it makes"):
        port(module, model)
    pictures = np.random.default_rng(8).uniform(0, 255, (2, *PICTURE)).astype(np.float32)
    standard = model.get_layer("standard")
    prepared = np.moveaxis((pictures / 255 - standard.mean) / np.sqrt(standard.variance), -1, 1).astype(np.float32)
    given = prepared if own else None
    end = port(module, model, given, skip=["standard"]).end_to_end
    assert end.agrees is True
    text = "target was given the numbers of which the source's inputs are" if own else "source was given"
    assert f"the {text} what scale, standard make of {'them' if own else 'the inputs'}: x * " in end.note
    expected = module(torch.from_numpy(prepared.copy())).detach().numpy()
    np.testing.assert_allclose(model(pictures), expected, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(before[0], model.get_layer("first").get_weights()[0])
    found = validate(module, model, given, skip=["standard"])
    assert found.ok, str(found)
    model.get_layer("norm").set_weights([w * 1.5 for w in model.get_layer("norm").get_weights()])
    assert [check.layer for check in validate(module, model, given, skip=["standard"]).checks if not check.ok] == [
        "norm"
    ]


def test_what_cannot_be_undone_is_not_bridged() -> None:
    """Layers that do more than scale: the inputs that were given are not to be had back."""
    layers = [L.Rescaling(1 / 128, offset=-1.0, name="scale"), L.ReLU(name="cut"), *body()]
    model, module = stirred(keras.Sequential([keras.Input(PICTURE), *layers])), Body().eval()
    x = np.random.default_rng(8).normal(size=(2, 3, 9, 8)).astype(np.float32)
    with pytest.raises(VerificationError, match="do not compute the same"):
        port(module, model, x, skip=["cut"])
    assert port(module, model, skip=["cut"]).end_to_end.agrees is True


def test_what_else_is_left_out_is_compared_and_need_not_agree() -> None:
    end = port(preparing(), Body().eval(), skip=["standard", "head"]).end_to_end
    assert end.agrees is False
    assert "left out" in end.note


def test_a_mistake_behind_what_is_left_out_is_found_where_it_is() -> None:
    text = said(preparing(), Body(eps=1e-5), skip=["standard"])
    assert "norm differs in its own right" in text.replace(" (norm in the target)", "")
    assert "its settings are not those of the source: eps=0.001; torch's default is 1e-05" in text
    found = validate(preparing(), Body().eval(), skip=["standard"])
    assert any("what scale, standard make of the inputs" in note for note in found.notes)


def test_a_scale_at_the_inputs_is_told_by_its_numbers() -> None:
    """Rescaling has no weights, so that nothing is missing before both are run."""
    text = said(scaling(), Body())
    assert "between the model's inputs and first" in text
    assert "the source's numbers are the target's times 0.0078125, plus -1" in text
    assert "leave scale out (--skip scale)" in text
    assert "in the source: scale (Rescaling)" in text
    end = port(scaling(), Body().eval(), skip=["scale"]).end_to_end
    assert end.agrees is True
    assert "what scale makes of the inputs: x * 0.0078125 - 1" in end.note


def test_what_scales_each_channel_is_told_too() -> None:
    """Of several layers that scale the last is the one to leave out."""
    given = L.Rescaling([0.5, 0.25, 0.125], offset=[-5.0, -5.0, -3.75], name="given")
    model = stirred(keras.Sequential([keras.Input(PICTURE), L.Rescaling(2.0, name="scale"), given, *body()]))
    text = said(model, Body())
    assert "the target's times (1, 0.5, 0.25) by channel, plus (-5, -5, -3.75) by channel" in text
    assert "leave given out (--skip given)" in text
    end = port(model, Body().eval(), skip=["given"]).end_to_end
    assert end.agrees is True
    assert end.note.endswith("x * (1, 0.5, 0.25) + (-5, -5, -3.75) by channel")


def test_padding_and_eps_are_named_that_are_known_to_differ() -> None:
    text = said(preparing(), Body(right=False, eps=1e-4), skip=["standard"])
    assert "second differs in its own right" in text.replace(" (second in the target)", "")
    assert 'padding="same" at stride 2 pads (0, 1) (0, 1)' in text
    assert "the target has padding=1" in text
    assert "not the source's: eps=0.001; the target has 0.0001 (norm)" in text
    assert "momentum" not in text
    assert 'padding="same";' not in text  # the first convolution pads by one at both ends, which is the same


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run: whole models in float64 or in their own precision, and layers alone."""
    seen: list[str] = []

    def watched(home: type, name: str, word: Any) -> None:
        plain = getattr(home, name)

        def call(self: Any, *args: Any, **more: Any) -> Any:
            seen.append(word(*args))
            return plain(self, *args, **more)

        monkeypatch.setattr(home, name, call)

    for home in (KerasRunner, TorchRunner):
        watched(home, "_recorded", lambda inputs, double, *rest: f"{'wide' if double else 'own'} {len(inputs[0])}")
    watched(TorchRunner, "layer", lambda name, *rest: name)
    return seen


def test_the_first_fault_costs_one_run_of_both_and_one_layer(runs: list[str]) -> None:
    """Of many norms that differ only the first is run alone, and nothing in float64."""
    layers = [layer for i in range(6) for layer in (L.Dense(8, name=f"d{i}"), L.BatchNormalization(name=f"n{i}"))]
    model = keras.Sequential([keras.Input((5,)), *layers])
    for layer in layers[1::2]:
        layer.set_weights([np.full(8, 0.5) + i for i in range(4)])
    modules = [m for i in range(6) for m in (nn.Linear(8 if i else 5, 8), nn.BatchNorm1d(8))]
    modules[1].eps = 1e-3  # the first is right
    text = said(model, nn.Sequential(*modules))
    assert "n1 (3 in the target) differs in its own right" in text
    assert "(so in 4 other layers)" in text
    assert runs == ["own 2", "own 2", "3"] or runs == ["own 2", "own 2", "3", "3"]  # once more: how sensitive it is


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bilstm", lambda: torch_models.BiLstmSwapped().double()),
        ("cnn", lambda: eps_of(torch_models.Cnn())),
        ("cnn", lambda: doubled()),
    ],
)
def test_the_short_way_says_what_the_whole_comparison_says(name: str, wrong: Any) -> None:
    module = wrong().eval()
    port(trained(name), module, compare=False)
    short, whole = (
        compared_models(trained(name), module, None, options_of(), registry(()), first_only=first)
        for first in (True, False)
    )
    assert reason(short) == reason(whole) != ""


def eps_of(module: nn.Module) -> nn.Module:
    """A norm with torch's own eps."""
    module.norm.eps = 1e-5
    return module.double()


def doubled() -> nn.Module:
    """What the second convolution is given is doubled on its way."""

    class Doubled(torch_models.Cnn):
        def __init__(self) -> None:
            super().__init__()
            self.second.register_forward_pre_hook(lambda module, given: (given[0] * 2,))

    return Doubled().double()
