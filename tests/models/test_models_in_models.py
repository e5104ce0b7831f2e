"""Keras models as people train them: a model that only trains others, a subclass, layers made and never called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx
from layoutx.errors import ConversionError, LayoutxError, Problems
from layoutx.model.graph import graph_of
from layoutx.model.keras_opened import opened
from layoutx.verify import outputs

keras = pytest.importorskip("keras")
L = keras.layers
RNG = np.random.default_rng(41)


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(abs(RNG.normal(0, 0.3, tuple(weight.shape))) + 0.05)
    return model


def generator(latent: int = 10) -> Any:
    return filled(
        keras.Sequential(
            [
                keras.Input((latent,)),
                L.Dense(4 * 4 * 6, use_bias=False),
                L.BatchNormalization(),
                L.Reshape((4, 4, 6)),
                L.Conv2DTranspose(5, 4, strides=2, padding="same", activation="relu"),
                L.Conv2D(3, 3, padding="same"),
            ],
            name="generator",
        )
    )


def judge() -> Any:
    made = [keras.Input((8, 8, 3)), L.Conv2D(7, 3, strides=2), L.Flatten(), L.Dense(1)]
    return filled(keras.Sequential(made, name="judge"))


class Trainer(keras.Model):
    """Trains two models; it has no call of its own."""

    def __init__(self, generator: Any, judge: Any) -> None:
        super().__init__()
        self.generator, self.judge = generator, judge


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(10, 96, bias=False), nn.BatchNorm1d(96, eps=1e-3)
        self.up, self.out = nn.ConvTranspose2d(6, 5, 4, 2, 1), nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.project(noise)).view(-1, 6, 4, 4)
        return self.out(torch.relu(self.up(x)))


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.score = nn.Conv2d(3, 7, 3, 2), nn.Linear(63, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.conv(x).flatten(1))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make, self.tell = Generator(), Judge()

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.tell(self.make(noise))


def test_a_model_without_a_call_holds_models_that_are_followed() -> None:
    model, module = Trainer(generator(), judge()), Both().eval()
    noise = RNG.normal(size=(3, 10)).astype("float32")
    report = lx.port(model, module)
    expected = np.asarray(model.judge(model.generator(noise)))
    found = module(torch.from_numpy(noise)).detach().numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is None
    assert "Trainer has no call" in report.end_to_end.note


def test_units_that_become_a_map_are_in_an_order_that_weights_alone_do_not_tell(tmp_path: Path) -> None:
    model, module = generator(5), Generator()
    module.project = nn.Linear(5, 96, bias=False)
    model.save_weights(tmp_path / "m.weights.h5")
    torch.save(module.state_dict(), tmp_path / "there.pt")
    with pytest.raises(ConversionError, match="the order of the 96 output units of dense is not known"):
        lx.convert(tmp_path / "m.weights.h5", tmp_path / "out.pt", to="torch", like=tmp_path / "there.pt")
    model.save(tmp_path / "m.keras")
    lx.convert(
        tmp_path / "m.weights.h5",
        tmp_path / "out.pt",
        to="torch",
        like=tmp_path / "there.pt",
        config=tmp_path / "m.keras",
    )
    module.load_state_dict(torch.load(tmp_path / "out.pt"))
    noise = RNG.normal(size=(3, 5)).astype("float32")
    expected = np.asarray(model(noise)).transpose(0, 3, 1, 2)
    assert np.abs(module.eval()(torch.from_numpy(noise)).detach().numpy() - expected).max() < 1e-4


class Heads(keras.Model):
    """A subclass that was built by a call; one of its layers never was."""

    def __init__(self) -> None:
        super().__init__()
        self.table = L.Embedding(9, 5)
        self.unused = L.Dense(4)
        self.act, self.value = L.Dense(3), L.Dense(1)

    def call(self, ids: Any) -> Any:
        x = keras.ops.mean(self.table(ids), axis=1)
        return self.act(x), self.value(x)


class TorchHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.v, self.pi = nn.Embedding(9, 5), nn.Linear(5, 1), nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.emb(ids).mean(1)
        return self.v(x), self.pi(x)


def test_a_subclass_is_run_on_the_shapes_that_it_was_built_with() -> None:
    model = Heads()
    model(np.zeros((1, 6), "int32"))
    for source, target in ((filled(model), TorchHeads()), (TorchHeads(), model)):
        report = lx.port(source, target)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees, report.end_to_end.note
    wrong = TorchHeads()
    wrong.forward = lambda ids: (wrong.v(wrong.emb(ids).sum(1)), wrong.pi(wrong.emb(ids).mean(1)))
    with pytest.raises(LayoutxError, match="do not compute the same"):
        lx.port(model, wrong)


def test_positions_of_a_map_are_tokens_that_are_added_to() -> None:
    made = keras.Input((8, 8, 3))
    x = L.Reshape((16, 5))(L.Conv2D(5, 2, strides=2)(made))
    y = L.Permute((2, 1))(L.Dense(16)(L.Dense(7, activation="relu")(L.Permute((2, 1))(x))))
    x = L.Add()([x, y])
    model = filled(keras.Model(made, L.Dense(2)(L.GlobalAveragePooling1D()(L.LayerNormalization(epsilon=1e-5)(x)))))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.head, self.norm = nn.Conv2d(3, 5, 2, 2), nn.Linear(5, 2), nn.LayerNorm(5)
            self.mix = nn.Sequential(nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patch(x).flatten(2)
            return self.head(self.norm((x + self.mix(x)).transpose(1, 2)).mean(1))

    for source, target in ((model, Mixer()), (Mixer(), model)):
        report = lx.port(source, target)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees, report.end_to_end.note


class Sliced(nn.Module):
    """The last step, and a part of a map, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.side = nn.Conv1d(3, 4, 2), nn.Conv2d(2, 5, 2)
        self.head, self.flat = nn.Linear(4, 2), nn.Linear(5 * 2 * 3, 2)

    def forward(self, steps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return self.head(self.steps(steps)[:, :, -1]) + self.flat(self.side(maps)[:, :, 1:].flatten(1))


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_picked_from_a_tensor_is_followed(inside: bool, tmp_path: Path) -> None:
    steps, maps = keras.Input((6, 3)), keras.Input((4, 4, 2))
    x, y = L.Conv1D(4, 2)(steps), L.Conv2D(5, 2)(maps)
    if inside:
        x = L.Lambda(lambda t: t[:, -1, :], output_shape=(4,))(x)
        y = L.Lambda(lambda t: t[:, 1:], output_shape=(2, 3, 5))(y)
    else:
        x, y = x[:, -1], y[:, 1:, ...]
    model = filled(keras.Model([steps, maps], L.Add()([L.Dense(2)(x), L.Dense(2)(L.Flatten()(y))])))
    for source, target in ((model, Sliced()), (Sliced(), model)):
        report = lx.port(source, target)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees, report.end_to_end.note
    if inside:  # a file has no code of it
        return
    model.save(tmp_path / "m.keras")
    module = Sliced()
    lx.convert(tmp_path / "m.keras", tmp_path / "out.pt", to="torch", like=module)
    module.load_state_dict(torch.load(tmp_path / "out.pt"))
    given = [RNG.normal(size=(3, 6, 3)).astype("float32"), RNG.normal(size=(3, 4, 4, 2)).astype("float32")]
    turned = [torch.from_numpy(np.moveaxis(one, -1, 1).copy()) for one in given]
    assert np.abs(module(*turned).detach().numpy() - np.asarray(model(given))).max() < 1e-5


class Frames(nn.Module):
    """One call a frame, where Keras has one on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3)
        self.rnn, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        each = [torch.relu(self.norm(self.conv(x[:, i]))).mean((2, 3)) for i in range(x.shape[1])]
        return self.head(self.rnn(torch.stack(each, 1))[0][:, -1])


def frames() -> Any:
    layers = [L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU(), L.GlobalAveragePooling2D()]
    each = [L.TimeDistributed(layer, name=f"each_{i}") for i, layer in enumerate(layers)]
    return filled(keras.Sequential([keras.Input((4, 6, 6, 3)), *each, L.GRU(5), L.Dense(2)]))


def test_a_call_a_step_is_compared_with_one_on_all_steps() -> None:
    model, module = frames(), Frames().eval()
    lx.port(model, module)
    for found in (lx.validate(model, module), lx.validate(module, model)):
        assert found.ok, str(found)
    module.norm.eps = 0.3
    for found in (lx.validate(model, module), lx.validate(module, model)):
        assert not found.ok
        assert found.first is not None
        assert found.first.layer in ("each_1", "norm"), str(found)


def test_what_float32_rounds_away_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(outputs.RELATIVE, "float32", 1e-12)  # as if the model were so deep
    model = filled(keras.Sequential([keras.Input((6,)), L.Dense(300, activation="tanh"), L.Dense(3)]))
    module = nn.Sequential(nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 3))
    report = lx.port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert "rounding: in float64" in report.end_to_end.note

    class Nearly(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.0005

    with pytest.raises(LayoutxError, match="do not compute the same"):
        lx.port(model, Nearly(nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 3)))


@keras.saving.register_keras_serializable("in_models")
class Feed(L.Layer):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.up, self.down = L.Dense(7), L.Dense(4)

    def call(self, x: Any) -> Any:
        return self.down(self.up(x))


def test_a_class_of_ones_own_in_a_file_is_read_from_the_live_model(tmp_path: Path) -> None:
    made = keras.Input((4,))
    model = filled(keras.Model(made, L.Dense(2)(Feed()(made))))
    model.save(tmp_path / "m.keras")
    module = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 4), nn.Linear(4, 2))
    with pytest.raises((ConversionError, Problems), match="give the live model") as refused:
        lx.convert(tmp_path / "m.keras", tmp_path / "out.pt", to="torch", like=module)
    assert "keras.models.load_model(FILE)" in str(refused.value)
    report = lx.port(keras.models.load_model(tmp_path / "m.keras"), module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees


def test_a_file_of_weights_whose_layers_are_numbered_says_so_too(tmp_path: Path) -> None:
    """As keras_hub's models: a norm inside a layer of another class, of which a file tells two vectors, 0 and 1."""

    class Normed(L.Layer):
        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            self.up, self.norm = L.Dense(7), L.LayerNormalization()

        def call(self, x: Any) -> Any:
            return self.norm(self.up(x))

    made = keras.Input((4,))
    model = filled(keras.Model(made, L.Dense(2)(Normed()(made))))
    model.save_weights(tmp_path / "m.weights.h5")
    module = nn.Sequential(nn.Linear(4, 7), nn.LayerNorm(7, 1e-3), nn.Linear(7, 2))
    with pytest.raises((ConversionError, Problems), match="give the live model"):
        lx.port(tmp_path / "m.weights.h5", module)
    report = lx.port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees


def test_a_file_of_attentions_whose_parts_lie_apart_asks_for_the_live_module(tmp_path: Path) -> None:
    """As BERT's checkpoints: the way back of an attention is no module of it."""
    from safetensors.torch import save_file

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.output = Inner(), nn.Linear(6, 6)

    made = keras.Input((5, 6))
    model = keras.Model(made, L.MultiHeadAttention(2, 3)(made, made))
    save_file(Outer().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(LayoutxError, match="in the file's place give the live module"):
        lx.port(tmp_path / "a.safetensors", model)


class Twice(keras.layers.Layer):
    """A layer of the user's own that holds one: Keras counts its calls from 0 at the model's ends too."""

    def build(self, shape: Any) -> None:
        self.inner = L.Dense(5)
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(self.inner(x))


def nested_ends() -> Any:
    """Nested models of each sort at the model's ends: the last call of one, the first of another, one between two."""
    start, code = keras.Input((5,)), keras.Input((3,))
    encoder = keras.Model(start, [L.Dense(3, name="mean")(start), L.Dense(3, name="spread")(start)], name="encoder")
    decoder = keras.Model(code, L.Dense(5)(code), name="decoder")
    tail, block = keras.Sequential([keras.Input((5,)), L.Dense(5)], name="tail"), Twice(name="block")
    x = keras.Input((5,))
    mean, spread = encoder(x)
    first = decoder(mean)
    held = block(tail(tail(first)))
    second = decoder(encoder(held)[1])
    return filled(keras.Model(x, [second, tail(second), block(second), held, mean, spread]))


def test_calls_of_nested_models_are_counted_as_keras_counts_them() -> None:
    model = nested_ends()
    told = opened(model, json.loads(model.to_json()))
    assert told is not None
    expected = [
        ("decoder", 1, 0),
        ("tail", 2, 0),
        ("block", 1, 0),
        ("block", 0, 0),
        ("encoder", 0, 0),
        ("encoder", 0, 1),
    ]
    for config in (told, json.loads(model.to_json())):
        assert [(ref.layer, ref.call, ref.tensor) for ref in graph_of(config).outputs] == expected


def test_a_model_whose_encoder_is_read_inside_and_outside_is_ported() -> None:
    """The VAE of a tutorial: Keras calls the same call of the encoder 0 between layers and 1 among the outputs."""
    model = nested_ends()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread, self.mean, self.decoder = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(3, 5)
            self.block, self.tail = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> Any:
            mean, spread = self.mean(x), self.spread(x)
            held = torch.tanh(self.block(self.tail(self.tail(self.decoder(mean)))))
            second = self.decoder(self.spread(held))
            return second, self.tail(second), torch.tanh(self.block(second)), held, mean, spread

    x = RNG.normal(size=(3, 5)).astype("float32")
    module = Model()
    report = lx.port(model, module)
    assert "the models compute the same" in str(report)
    for ours, theirs in zip(model(x), module(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
