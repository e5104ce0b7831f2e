"""Targets that do not fit: refused with layer and shapes by name; nothing is changed and no file appears."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_models
from keras_models import MODELS, precision, trained
from torch import nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.port import port


def refused(name: str, module: nn.Module, saved: Callable[..., Path], folder: Path, **given: Any) -> str:
    """The text of the refusal, the same live and for a file; the module keeps its weights, no file is written."""
    module = module.double()
    before = {key: value.detach().clone() for key, value in module.state_dict().items()}
    with pytest.raises(LayoutxError) as live:
        port(trained(name), module, **given)
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(value.detach().numpy(), before[key].numpy())
    out = folder / "out.safetensors"
    with pytest.raises(LayoutxError) as filed:
        convert(saved(name), out, to="torch", like=module, **given)
    assert list(folder.iterdir()) == []
    assert str(filed.value) == str(live.value)
    return str(live.value)


def test_another_hidden_size(saved, tmp_path: Path) -> None:
    text = refused("stacked_gru", torch_models.GruStack(hidden=11), saved, tmp_path)
    assert "gru_a (GRU)" in text
    assert "gru_a: kernel (input 3, gate×hidden 21)" in text
    assert "rnn.weight_ih_l0 is (gate×hidden 33, input 3) there, it would have to be (gate×hidden 21, input 3)" in text


def test_another_width_of_a_layer_that_has_the_same_name(saved, tmp_path: Path) -> None:
    module = torch_models.TwoInputs()
    module.hidden = nn.Linear(22, 17)
    text = refused("two_inputs", module, saved, tmp_path)
    assert "hidden (Dense)" in text
    assert "hidden: kernel (input 22, output 13), bias (output 13)" in text
    assert "hidden.weight is (output 17, input 22) there, it would have to be (output 13, input 22)" in text


def test_a_missing_layer(saved, tmp_path: Path) -> None:
    module = torch_models.Cnn()
    del module.norm
    text = refused("cnn", module, saved, tmp_path)
    assert "no place in the torch model fits bn (BatchNormalization)" in text
    assert "channel 5" in text


def test_an_extra_layer(saved, tmp_path: Path) -> None:
    module = torch_models.Cnn()
    module.extra = nn.Linear(10, 3)
    text = refused("cnn", module, saved, tmp_path)
    assert "2 tensors of the torch model have no layer" in text
    assert "extra.weight, extra.bias" in text


def test_an_extra_bias(saved, tmp_path: Path) -> None:
    """A bias that the source does not have can be filled with zeros; one that only the source has cannot be dropped."""
    module = torch_models.Cnn()
    module.second = nn.Conv2d(5, 7, (3, 2), bias=False)
    text = refused("cnn", module, saved, tmp_path)
    assert "conv2 (Conv2D)" in text
    assert "bias" in text


def test_another_class(saved, tmp_path: Path) -> None:
    module = torch_models.GruPair()
    module.lower = nn.LSTM(3, 7, batch_first=True)
    text = refused("stacked_gru", module, saved, tmp_path)
    assert "gru_a (GRU)" in text
    assert "it would have to be (gate×hidden 21, input 3)" in text


def test_another_number_of_heads(saved, tmp_path: Path) -> None:
    """The packed projections have one shape for any number of heads: only the live module's config tells."""
    module = torch_models.Transformer()
    module.mix = nn.MultiheadAttention(12, 4, batch_first=True)
    text = refused("transformer", module, saved, tmp_path)
    assert "layer attention (MultiHeadAttention)" in text
    assert "kv is 3 in keras.MultiHeadAttention and 4 in torch.MultiheadAttention" in text


def test_group_norm_is_no_batch_norm(saved, tmp_path: Path) -> None:
    module = torch_models.Cnn()
    module.norm = nn.GroupNorm(1, 5)
    text = refused("cnn", module, saved, tmp_path)
    assert "bn (BatchNormalization)" in text
    assert "norm is a GroupNorm there" in text


def test_a_mistake_of_the_flatten_order_in_the_module_is_seen_only_by_running_it(saved, tmp_path: Path) -> None:
    """What a module does in numpy nobody can follow: its rows are taken for those of torch's habit."""

    class Untraced(torch_models.CnnLast):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(nn.functional.relu(self.first(nn.functional.pad(x, (0, 1, 0, 1)))))
            return self.head(hidden(torch.tanh(self.second(x)).permute(0, 2, 3, 1).flatten(1)))

    out = tmp_path / "out.safetensors"
    convert(saved("cnn"), out, to="torch", like=Untraced().double())
    assert out.exists()
    with pytest.raises(LayoutxError, match="do not compute the same"):
        port(trained("cnn"), Untraced().double())


def hidden(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, by a way that neither a trace nor a run shows."""
    return torch.from_numpy(x.detach().numpy().copy())


def alike(order: str, traced: bool = True) -> tuple[Any, nn.Module]:
    """Three layers of one size in Keras, and the same three in torch, defined in another order.

    A forward that goes through numpy hides who feeds whom.
    """
    import keras

    with precision(keras, "float64"):
        layers = [keras.layers.Dense(5, bias_initializer="normal", name=f"k{i}") for i in range(3)]
        model = keras.Sequential([keras.Input((5,)), layers[0], layers[1], keras.layers.ReLU(), layers[2]])

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in order:
                setattr(self, name, nn.Linear(5, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            on = (lambda y: y) if traced else hidden
            return self.c(on(torch.relu(self.b(on(self.a(on(x)))))))

    return model, Module().double()


def test_alike_layers_in_another_order_are_found_by_their_wiring() -> None:
    model, module = alike("cba")
    assert port(model, module).end_to_end.agrees is True
    np.testing.assert_array_equal(module.a.weight.detach().numpy(), model.get_layer("k0").get_weights()[0].T)


def test_alike_layers_in_another_order_are_caught_by_running_them() -> None:
    model, module = alike("cba", traced=False)
    before = module.a.weight.detach().clone()
    with pytest.raises(LayoutxError, match="do not compute the same"):
        port(model, module)
    np.testing.assert_array_equal(module.a.weight.detach().numpy(), before.numpy())
    assert port(model, module, pairs={"k0": "a", "k1": "b", "k2": "c"}).end_to_end.agrees is True
    model, module = alike("abc", traced=False)
    assert port(model, module).end_to_end.agrees is True


def test_alike_layers_with_a_place_too_many_are_ambiguous(saved, tmp_path: Path) -> None:
    model, module = alike("abc")
    module.d = nn.Linear(5, 5)
    with pytest.raises(LayoutxError, match="2 tensors of the torch model have no layer") as caught:
        port(model, module)
    assert "d.weight, d.bias" in str(caught.value)
    model, module = alike("abc", traced=False)
    module.d = nn.Linear(5, 5)
    with pytest.raises(LayoutxError, match="fits several places") as caught:
        port(model, module)
    assert "--pair k0=a" in str(caught.value)
    assert "candidates: a, b, c, d" in str(caught.value)


def test_all_problems_are_told_together(saved, tmp_path: Path) -> None:
    module = torch_models.Transformer()
    module.wide, module.out = nn.Linear(12, 29), nn.Linear(13, 2)
    text = refused("transformer", module, saved, tmp_path)
    for name in ("ff1", "scores"):
        assert f"{name} (Dense)" in text


@pytest.mark.parametrize("name", MODELS)
def test_the_wrong_model_is_refused(name: str, saved, tmp_path: Path) -> None:
    other = "cnn" if name != "cnn" else "bilstm"
    assert refused(name, torch_models.MODELS[other](), saved, tmp_path)


def test_a_pair_that_names_no_module(saved, tmp_path: Path) -> None:
    text = refused("cnn", torch_models.Cnn(), saved, tmp_path, pairs={"conv1": "nowhere"})
    assert "conv1" in text
    assert "there is no module nowhere" in text


def test_a_pair_that_names_no_layer(saved, tmp_path: Path) -> None:
    text = refused("cnn", torch_models.Cnn(), saved, tmp_path, pairs={"conv_1": "first"})
    assert "--pair names no layer: conv_1" in text


def test_skip_leaves_the_rest_and_says_so(saved, tmp_path: Path) -> None:
    module = torch_models.Cnn().double()
    before = module.head[2].weight.detach().clone()
    report = port(trained("cnn"), module, skip=["scores"])
    assert report.skipped == {"scores": "left out by --skip"}
    assert report.unwritten == ("head.2.weight", "head.2.bias")
    assert (report.keys_written, report.keys_total) == (11, 13)
    assert report.end_to_end.agrees is False  # compared all the same: a head of its own gives other numbers
    assert "the whole models do not (scores left out)" in str(report).replace("\n", " ")
    np.testing.assert_array_equal(module.head[2].weight.detach().numpy(), before.numpy())
    kernel = trained("cnn").get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(module.first.weight.detach().numpy(), kernel.transpose(3, 2, 0, 1))
