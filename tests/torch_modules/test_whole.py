"""An old Keras model ported completely into torch; and what is said, or consented to, where torch has no such layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
import torch
from module_pairs import CLOSE, data, filled
from safetensors.torch import load_file
from torch import Tensor, nn

import layoutx as lx
import layoutx.torch as lt
from layoutx.errors import LayoutxError, UsageError
from layoutx.plan.fit import best_of
from layoutx.plan.offer import module_for
from layoutx.spec.registry import registry

HARD = "hard_sigmoid_0.2"


def old(square: bool = False) -> Any:
    """Video frames, as somebody built them in Keras 2.2: every layer is one that torch.nn does not have."""
    many = 4 if square else 5
    layers = tf_keras.layers
    return filled(
        tf_keras.Sequential(
            [
                layers.Input((4, 9, 8, 3)),
                layers.ConvLSTM2D(
                    many, (3, 2), strides=2, padding="same", recurrent_activation="hard_sigmoid", name="film"
                ),
                layers.Conv2D(many, 3, strides=2, padding="same", activation="relu", name="conv"),
                layers.MaxPooling2D(2, padding="same", name="pool"),
                layers.Conv2DTranspose(3 if not square else 4, 4, strides=2, padding="same", name="up"),
                layers.Reshape((-1, 3 if not square else 4), name="rows"),
                layers.GRU(
                    many, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True, name="gru"
                ),
                layers.Bidirectional(
                    layers.LSTM(many, recurrent_activation="hard_sigmoid", return_sequences=True), name="both"
                ),
                layers.SimpleRNN(7, activation="hard_sigmoid", name="rnn"),
                layers.Dense(2, name="head"),
            ]
        )
    )


class Ported(nn.Module):
    """The same, by hand."""

    def __init__(self, square: bool = False) -> None:
        super().__init__()
        many, up = (4, 4) if square else (5, 3)
        self.film = lt.ConvLSTM2d(3, many, (3, 2), 2, "same", batch_first=True, gate_activation=HARD)
        self.conv = lt.Conv2dSame(many, many, 3, 2)
        self.pool = lt.MaxPool2dSame(2)
        self.up = lt.ConvTranspose2dSame(many, up, 4, 2)
        self.gru = lt.GRU(up, many, batch_first=True, gate_activation=HARD)
        self.both = lt.LSTM(many, many, batch_first=True, bidirectional=True, gate_activation=HARD)
        self.rnn = lt.RNN(2 * many, 7, batch_first=True, activation=HARD)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        film, _ = self.film(x)
        maps = self.up(self.pool(torch.relu(self.conv(film[:, -1]))))
        rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
        y, _ = self.rnn(self.both(self.gru(rows)[0])[0])
        return self.head(y[:, -1])


@pytest.mark.parametrize("square", [False, True])
def test_an_old_model_is_ported_completely(square: bool) -> None:
    source, target = old(square), Ported(square).double()
    x = data(2, 4, 9, 8, 3)
    report = lx.port(source, target, x)
    assert report.end_to_end.agrees
    wanted = source(x).numpy()
    got = target(torch.from_numpy(np.moveaxis(x, -1, 2).copy())).detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE * max(1.0, float(np.abs(wanted).max())))
    forms = {layer.name: layer.target for layer in report.layers}
    assert forms == {
        "film": "torch.layoutx.ConvLSTM2d",
        "conv": "torch.layoutx.Conv2dSame",
        "up": "torch.layoutx.ConvTranspose2dSame",
        "gru": "torch.layoutx.GRU",
        "both": "torch.layoutx.LSTM",
        "rnn": "torch.layoutx.RNN",
        "head": "torch.Linear",
    }
    assert not [line for layer in report.layers for line in layer.settings if "padding" in line or "stride" in line]


def test_the_way_back() -> None:
    source, target, again = old(), Ported().double(), old()
    lx.port(source, target, compare=False)
    for weight in again.weights:
        weight.assign(np.zeros(weight.shape))
    lx.port(target, again, compare=False, allow={"rounds"})
    for a, b in zip(source.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_target_of_another_function_is_refused() -> None:
    target = Ported().double()
    target.gru = lt.GRU(3, 5, batch_first=True)  # its gates are sigmoid
    with pytest.raises(LayoutxError, match=r"gate_activation is hard_sigmoid_0\.2, the target's is sigmoid"):
        lx.port(old(), target)


def refused(target: nn.Module) -> str:
    with pytest.raises(LayoutxError) as caught:
        lx.port(old(), target)
    return str(caught.value)


def test_the_refusal_names_the_module() -> None:
    target = Ported()
    target.gru = nn.GRU(3, 5, batch_first=True)
    target.both = nn.LSTM(5, 5, batch_first=True, bidirectional=True)
    text = refused(target)
    assert 'build the target with layoutx.torch.GRU(gate_activation="hard_sigmoid_0.2")' in text
    assert 'layoutx.torch.LSTM(bidirectional=True, gate_activation="hard_sigmoid_0.2")' in text


def test_the_refusal_of_a_layer_without_a_place_names_the_module() -> None:
    target = Ported()
    target.film = nn.Conv2d(3, 5, 3)
    assert 'build the target with layoutx.torch.ConvLSTM2d(gate_activation="hard_sigmoid_0.2")' in refused(target)


def test_keras_on_theano_is_never_offered() -> None:
    """Its forms too are led to by the user's word alone, but nobody can build a layer of it."""
    plan = lx.plan("keras.ConvLSTM2D", "torch.layoutx.ConvLSTM2d", sizes={"kh": 3, "kw": 5, "input": 3, "hidden": 2})
    hard = registry().bind(
        "torch.layoutx.ConvLSTM2d", {**plan.target.config, "gate_activation": HARD}, sizes=plan.target.sizes
    )
    assert module_for(hard, "keras") is None
    assert best_of(hard, registry().form("keras.theano.ConvLSTM2D"))[0] is not None


def saved(folder: Path) -> Path:
    path = folder / "old.h5"
    old().save(path)
    return path


def test_without_a_target_the_refusal_says_how_to_consent(tmp_path: Path) -> None:
    with pytest.raises(LayoutxError) as caught:
        lx.convert(saved(tmp_path), to="torch")
    text = str(caught.value)
    assert text.count("--allow modules (allow={'modules'} in Python)") == 4
    assert 'layoutx.torch.RNN(activation="hard_sigmoid_0.2")' in text
    with pytest.raises(UsageError, match="module cannot be allowed"):
        lx.convert(saved(tmp_path), to="torch", allow=["module"])


def test_with_consent_the_report_says_how_to_build_each(tmp_path: Path) -> None:
    source, out = saved(tmp_path), tmp_path / "new.safetensors"
    report = lx.convert(source, out, to="torch", allow={"modules"})
    settings = {layer.name: layer.settings for layer in report.layers}
    forms = {layer.name: layer.target.removeprefix("torch.") for layer in report.layers}
    own = {name: form for name, form in forms.items() if form.startswith("layoutx.")}
    assert set(own) == {"film", "gru", "both", "rnn"}  # exactly those that torch lacks
    built = {name: eval(settings[name][0].removeprefix("build it as "), {"layoutx": lx}) for name in own}
    state = load_file(out)
    for name, module in built.items():
        start = f"{name}."
        module.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}, strict=True)
        assert module.batch_first
    assert built["film"].stride == [2, 2]
    assert any("use F.pad before it or layoutx.torch.Conv2dSame;" in line for line in settings["conv"])
    assert "padding=1" in settings["up"]  # of the 4 - 2 that `same` cuts, half at each end


def test_what_torch_has_needs_no_module(tmp_path: Path) -> None:
    model = filled(
        tf_keras.Sequential([tf_keras.layers.Input((5, 3)), tf_keras.layers.LSTM(7), tf_keras.layers.Dense(2)])
    )
    model.save(tmp_path / "plain.h5")
    report = lx.convert(tmp_path / "plain.h5", to="torch", allow={"modules"})
    assert [layer.target for layer in report.layers] == ["torch.LSTM", "torch.Linear"]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, 2)
        self.gru = nn.GRUCell(5, 5)


def test_an_ordinary_model_is_never_taken_for_these(tmp_path: Path) -> None:
    """Names and shapes of Conv2dSame are those of Conv2d; a file or a module of torch stays one of torch."""
    from layoutx.model.load import live_model
    from layoutx.spec.guess import guess

    known = registry()
    ours = {name for name, form in known.forms.items() if form.by_class and form.framework == "torch"}
    run = {"torch.PackedAttention", "torch.ShiftedRMSNorm", "torch.TransposedLinear"}  # found by running a class
    assert ours == run | {name for name in known.forms if name.startswith("torch.layoutx.")}
    for form in ours:
        kind = known.kind_of(form)
        assert known.form(form) not in known.forms_of(kind.name, "torch")
    assert [g.form for g in guess(known, "torch", {"weight": (5, 3, 3, 3), "bias": (5,)})] == ["torch.Conv2d"]
    assert {m.form for m in live_model(Plain(), known).modules.values()} == {"", "torch.Conv2d", "torch.GRUCell"}
    recurrent = {name: tuple(w.shape) for name, w in lt.GRU(3, 5).state_dict().items()}
    assert guess(known, "torch", recurrent) == []  # and the other way about: it is no GRU of torch

    keras = filled(
        tf_keras.Sequential([tf_keras.layers.Input((9, 8, 3)), tf_keras.layers.Conv2D(5, 3, strides=2, padding="same")])
    )
    keras.save(tmp_path / "c.h5")
    torch.save({"c.weight": torch.zeros(5, 3, 3, 3), "c.bias": torch.zeros(5)}, tmp_path / "like.pt")
    report = lx.convert(tmp_path / "c.h5", to="torch", like=tmp_path / "like.pt")
    assert [layer.target for layer in report.layers] == ["torch.Conv2d"]


def test_peepholes_are_refused_by_name() -> None:
    from layoutx.spec.registry import registry

    sizes = {"input": 3, "hidden": 5}
    plan = lx.plan("tf1.LSTMCell", "torch.LSTM", sizes=sizes, config={"use_peepholes": True})
    arrays = {t.name: np.ones(t.shape) for t in plan.source.tensors}
    with pytest.raises(LayoutxError, match=r"build the target with layoutx\.torch\.LSTM\(peephole=True\)"):
        plan(arrays, allow={"rounds"})
    assert registry().form("torch.layoutx.LSTM").import_name == "layoutx.torch.LSTM"


def test_another_axis_of_a_batch_norm_is_told(tmp_path: Path) -> None:
    for axis, told in ((2, True), (3, False), (-1, False)):
        layer = tf_keras.layers.BatchNormalization(axis=axis)
        filled(tf_keras.Sequential([tf_keras.layers.Input((6, 5, 3)), layer])).save(tmp_path / "n.h5")
        (line,) = lx.convert(tmp_path / "n.h5", to="torch").layers
        assert any("layoutx.torch.BatchNorm(5, axis=3)" in text for text in line.settings) == told


@pytest.mark.parametrize(
    ("order", "shape", "axis", "told"),
    [
        ("channels_last", (5, 11, 2), 1, "BatchNorm(5, axis=2)"),
        ("channels_last", (5, 11, 2), -2, "BatchNorm(11, axis=3)"),
        ("channels_last", (5, 11, 2), 3, ""),
        ("channels_first", (2, 5, 11), -1, "BatchNorm(11, axis=3)"),
        ("channels_first", (2, 5, 11), 2, "BatchNorm(5, axis=2)"),
        ("channels_first", (2, 5, 11), 1, ""),
    ],
)
def test_a_norm_over_the_positions_of_a_map_is_told(
    order: str, shape: tuple[int, ...], axis: int, told: str, tmp_path: Path
) -> None:
    """The axis that Keras takes for the channels may be the first or the last of a map that has them elsewhere."""
    layers = [
        tf_keras.layers.Input(shape),
        tf_keras.layers.Conv2D(7, 3, padding="same", data_format=order),
        tf_keras.layers.BatchNormalization(axis=axis),
    ]
    filled(tf_keras.Sequential(layers)).save(tmp_path / "n.h5")
    line = lx.convert(tmp_path / "n.h5", to="torch").layers[1]
    assert any(f"layoutx.torch.{told}" in text for text in line.settings) if told else "BatchNorm(" not in str(line)
