"""Trained numbers and vectors that no layer holds (logit scales, temperatures, gates): torch, Keras, jax, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, MatchError
from layoutx.model.load import live_source
from layoutx.spec.registry import registry

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
INPUTS, WIDTH, OUTPUTS, STEPS = 5, 7, 3, 11
Shapes = dict[str, tuple[int, ...]]
# what each holds in torch and in Keras, and what is made of it
HELD: dict[str, tuple[Shapes, Shapes, Any]] = {
    "temperature": ({"temperature": (1,)}, {"temperature": ()}, lambda y, p: y / p["temperature"]),
    "gate": ({"gate": (1, 1, 1)}, {"gate": (1,)}, lambda y, p: y + y * p["gate"]),
    "logits": ({"logit_scale": (), "logit_bias": ()},) * 2 + (lambda y, p: y * p["logit_scale"] + p["logit_bias"],),
    "shift": ({"shift": (WIDTH,)}, {"shift": (1, 1, WIDTH)}, lambda y, p: y + p["shift"]),
    "bias": ({"bias": (WIDTH,)}, {"bias": (WIDTH,)}, lambda y, p: y + p["bias"]),
    "affine": (
        {"alpha": (1, 1, WIDTH), "beta": (1, 1, WIDTH)},
        {"alpha": (WIDTH,), "beta": (WIDTH,)},
        lambda y, p: y * p["alpha"] + p["beta"],
    ),
}


class Uses(nn.Module):
    def __init__(self, held: str) -> None:
        super().__init__()
        shapes, _, self.use = HELD[held]
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, y: Any) -> Any:
        return self.use(y, dict(self.named_parameters()))


class Net(nn.Module):
    """Two linear layers with the numbers between them, in a module of their own or in this one."""

    def __init__(self, held: str, nested: bool) -> None:
        super().__init__()
        shapes, _, self.use = HELD[held]
        self.first, self.last, self.names = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, OUTPUTS), tuple(shapes)
        if nested:
            self.own = Uses(held)
        for name, shape in {} if nested else shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        own = {name: getattr(self, name) for name in self.names} if not hasattr(self, "own") else {}
        return self.last(self.own(y) if hasattr(self, "own") else self.use(y, own))


def keras_net(held: str, nested: bool, seed: int = 1) -> Any:
    """The same model."""
    _, shapes, use = HELD[held]

    class Own(L.Layer):
        def build(self, shape: Any) -> None:
            self.held = {name: self.add_weight(shape=own, name=name) for name, own in shapes.items()}

        def call(self, y: Any) -> Any:
            return use(y, self.held)

    class Whole(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = L.Dense(WIDTH, name="first"), L.Dense(OUTPUTS, name="last")
            self.held = {name: self.add_weight(shape=own, name=name) for name, own in shapes.items()}

        def call(self, x: Any) -> Any:
            return self.last(use(self.first(x), self.held))

    if nested:
        x = keras.Input((STEPS, INPUTS))
        model = keras.Model(x, L.Dense(OUTPUTS, name="last")(Own(name="own")(L.Dense(WIDTH, name="first")(x))))
    else:
        model = Whole()
        model(np.ones((2, STEPS, INPUTS), "float32"))
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def numbers(model: Any) -> list[np.ndarray[Any, Any]]:
    """What is held beside the linear layers, by name."""
    if isinstance(model, nn.Module):
        named = {name: value.detach().numpy() for name, value in model.named_parameters()}
    else:
        named = {weight.path: np.asarray(weight) for weight in model.weights}
    last = {name.replace(".", "/").rpartition("/"): value for name, value in named.items()}
    own = {name: value for (path, _, name), value in last.items() if path.rpartition("/")[2] not in ("first", "last")}
    return [own[name].ravel() for name in sorted(own)]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("held", HELD)
def test_torch_and_keras_there_and_back(held: str, nested: bool) -> None:
    model, module, other = keras_net(held, nested), Net(held, nested), keras_net(held, nested, seed=2)
    assert lx.match(module, model).complete
    assert lx.port(model, module).end_to_end.agrees is True
    np.testing.assert_equal(numbers(module), numbers(model))
    assert lx.validate(model, module).ok
    assert not lx.validate(module, other).ok
    assert lx.port(module, other).end_to_end.agrees is True
    np.testing.assert_equal(numbers(other), numbers(model))


@pytest.mark.parametrize("held", ["logits", "shift"])
def test_other_numbers_are_named_with_both(held: str) -> None:
    model, module = keras_net(held, nested=True), Net(held, nested=True)
    lx.port(model, module)
    with torch.no_grad():
        dict(module.named_parameters())["own.shift" if held == "shift" else "own.logit_bias"].add_(0.5)
    found = lx.validate(model, module)
    assert not found.ok
    assert "its numbers are not the source's" in str(found)
    assert "the model's own code uses them" in " ".join(str(found).split())
    assert "The fault lies between first and last" in str(found)


def test_numbers_that_the_two_use_in_other_ways_are_found_by_the_run() -> None:
    """One keeps a factor as its logarithm: moved as it is it would be wrong, and no layer shows it."""

    class Other(Net):
        def forward(self, x: Any) -> Any:
            return self.last(self.first(x) / self.temperature.exp())

    with pytest.raises(LayoutxError, match="do not compute the same"):
        lx.port(keras_net("temperature", False), Other("temperature", False))


@pytest.mark.parametrize("held", HELD)
def test_a_keras_file_into_names_and_back(held: str, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    model, module = keras_net(held, nested=True), Net(held, nested=True)
    model.save(tmp_path / "k.h5")
    save_file(module.state_dict(), tmp_path / "like.safetensors")
    lx.convert(tmp_path / "k.h5", tmp_path / "t.safetensors", to="torch", like=tmp_path / "like.safetensors")
    module.load_state_dict(load_file(tmp_path / "t.safetensors"))
    np.testing.assert_equal(numbers(module), numbers(model))
    other = keras_net(held, nested=True, seed=2)
    other.save(tmp_path / "o.h5")
    lx.convert(tmp_path / "t.safetensors", tmp_path / "back.h5", to="keras", like=tmp_path / "o.h5")
    other.load_weights(tmp_path / "back.h5")
    np.testing.assert_equal(numbers(other), numbers(model))


def test_without_a_target_each_has_its_path(tmp_path: Any) -> None:
    from safetensors.numpy import load_file

    model = keras_net("temperature", nested=True)
    lx.convert(model, tmp_path / "t.safetensors", to="torch")
    assert load_file(tmp_path / "t.safetensors")["own.temperature"] == numbers(model)[0]


def test_a_factor_that_an_exporter_has_computed_with_is_not_taken_for_the_parameter(tmp_path: Any) -> None:
    """The exporter stores exp(logit_scale), under the name of the operation."""

    class Exponential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, OUTPUTS)
            self.logit_scale = nn.Parameter(torch.tensor(0.7))

        def forward(self, x: Any) -> Any:
            return self.last(self.first(x) * self.logit_scale.exp())

    pytest.importorskip("onnxscript")
    path = tmp_path / "m.onnx"
    torch.onnx.export(Exponential().eval(), (torch.randn(2, STEPS, INPUTS),), path, dynamo=True, verbose=False)
    with pytest.raises(LayoutxError, match="logit_scale"):
        lx.port(path, Exponential(), compare=False)
    with pytest.raises(LayoutxError, match="logit_scale"):
        lx.convert(Exponential(), tmp_path / "o.onnx", to="onnx", like=path)


def test_two_numbers_that_nothing_tells_apart_are_asked_for(tmp_path: Any) -> None:
    """A Keras 3 file numbers the variables of a layer, and names none."""
    from safetensors.torch import save_file

    keras_net("logits", nested=True).save(tmp_path / "k.keras")
    save_file(Net("logits", nested=True).state_dict(), tmp_path / "like.safetensors")
    asked: dict[str, Any] = {"to": "torch", "like": tmp_path / "like.safetensors"}
    with pytest.raises(LayoutxError, match=r"--pair own/0=own.logit_bias"):
        lx.convert(tmp_path / "k.keras", tmp_path / "t.safetensors", **asked)
    pairs = {"own/0": "own.logit_scale", "own/1": "own.logit_bias"}
    assert lx.convert(tmp_path / "k.keras", tmp_path / "t.safetensors", **asked, pairs=pairs).exactness == "moves"


@pytest.mark.parametrize("nnx_model", [False, True])
def test_jax_models(nnx_model: bool) -> None:
    jax = pytest.importorskip("jax")
    from flax import linen, nnx

    class Linen(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            scale = self.param("logit_scale", linen.initializers.normal(), ())
            shift = self.param("shift", linen.initializers.normal(), (WIDTH,))
            return linen.Dense(OUTPUTS, name="last")(linen.Dense(WIDTH, name="first")(x) * scale + shift)

    class Nnx(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            rngs = nnx.Rngs(3)
            self.first, self.last = nnx.Linear(INPUTS, WIDTH, rngs=rngs), nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)
            self.logit_scale, self.shift = (nnx.Param(jax.random.normal(rngs(), own)) for own in ((), (WIDTH,)))

        def __call__(self, x: Any) -> Any:
            return self.last(self.first(x) * self.logit_scale[...] + self.shift[...])

    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, OUTPUTS)
            self.logit_scale, self.shift = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(1, 1, WIDTH))

        def forward(self, x: Any) -> Any:
            return self.last(self.first(x) * self.logit_scale + self.shift)

    x = np.random.default_rng(5).normal(size=(2, STEPS, INPUTS)).astype("float32")
    model: Any = Nnx() if nnx_model else (Linen(), Linen().init(jax.random.key(1), x))
    module = Torch()
    assert lx.port(model, module, x).end_to_end.agrees is True
    held = model.shift[...] if nnx_model else model[1]["params"]["shift"]
    np.testing.assert_array_equal(module.shift.detach().numpy().ravel(), held)
    assert lx.port(Torch(), model, x).end_to_end.agrees is True


def test_what_is_no_number_stays_with_its_layer() -> None:
    """A norm under names of its own, an integer, a matrix: nothing says that they may be moved one by one."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(INPUTS, WIDTH)
            self.norm = nn.ParameterDict({"gamma": torch.ones(WIDTH), "beta": torch.ones(WIDTH)})
            self.register_buffer("steps", torch.tensor(3))
            self.mixing = nn.Parameter(torch.randn(WIDTH, OUTPUTS))

    found = {layer.name: layer.form for layer in live_source(Odd(), registry(), {}).layers}
    assert "torch.Number" not in found.values()


def test_a_class_of_ones_own_whose_numbers_have_no_place_is_named_as_a_whole() -> None:
    with pytest.raises(MatchError, match="no form is known for the class Own") as refused:
        lx.port(keras_net("shift", nested=True), nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, OUTPUTS)))
    assert "--form own=FORM" in str(refused.value)


def test_a_class_that_was_taken_apart_is_left_out_by_its_name() -> None:
    model, module = keras_net("logits", nested=True), Net("logits", nested=True)
    report = lx.port(model, module, skip=["own"], compare=False)
    assert {"own/logit_scale", "own/logit_bias"} <= set(report.skipped)


VOCABULARY, SIDE, PROJECTED = 29, 12, 13


class Patches(L.Layer):
    """An image as a sequence of features."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.patches = L.Conv2D(WIDTH, 4, 4, name="patches")

    def build(self, shape: Any) -> None:
        self.patches.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return keras.ops.reshape(self.patches(x), (keras.ops.shape(x)[0], -1, WIDTH))


class AtTheEnd(L.Layer):
    """The features at the token with the highest number, as CLIP takes them."""

    def call(self, x: Any, tokens: Any) -> Any:
        at = keras.ops.expand_dims(keras.ops.expand_dims(keras.ops.argmax(tokens, axis=-1), -1), -1)
        return keras.ops.squeeze(keras.ops.take_along_axis(x, at, axis=1), axis=1)


class Head(L.Layer):
    """Cosines times the exponential of a trained number, as CLIP's head in keras_hub."""

    def build(self, shape: Any) -> None:
        self.logit_scale = self.add_weight(shape=(), name="logit_scale", initializer="ones")

    def call(self, image: Any, text: Any) -> Any:
        image, text = (one / keras.ops.norm(one, axis=-1, keepdims=True) for one in (image, text))
        made = keras.ops.matmul(text, keras.ops.transpose(image)) * keras.ops.exp(self.logit_scale)
        return {"vision_logits": keras.ops.transpose(made), "text_logits": made}


def two_towers() -> Any:
    image, tokens = keras.Input((SIDE, SIDE, 3), name="images"), keras.Input((None,), dtype="int32", name="token_ids")
    seen = L.GlobalAveragePooling1D()(L.LayerNormalization(epsilon=1e-5, name="seen")(Patches(name="see")(image)))
    read = L.LayerNormalization(epsilon=1e-5, name="read")(L.Embedding(VOCABULARY, WIDTH, name="words")(tokens))
    one = L.Dense(PROJECTED, use_bias=False, name="image_projection")(seen)
    other = L.Dense(PROJECTED, use_bias=False, name="text_projection")(AtTheEnd(name="end")(read, tokens))
    return keras.Model([image, tokens], Head(name="head")(one, other))


class Towers(nn.Module):
    """The same in torch, which gives the projections as well."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(0.5))
        self.patches, self.seen = nn.Conv2d(3, WIDTH, 4, 4), nn.LayerNorm(WIDTH)
        self.words, self.read = nn.Embedding(VOCABULARY, WIDTH), nn.LayerNorm(WIDTH)
        self.image_projection, self.text_projection = (nn.Linear(WIDTH, PROJECTED, bias=False) for _ in range(2))

    def forward(self, images: Any, token_ids: Any) -> Any:
        image = self.image_projection(self.seen(self.patches(images).flatten(2).mT).mean(1))
        read = self.read(self.words(token_ids))
        text = self.text_projection(read[torch.arange(len(read)), token_ids.argmax(-1)])
        there, here = (one / one.norm(dim=-1, keepdim=True) for one in (image, text))
        made = here @ there.T * self.logit_scale.exp()
        return {"logits_per_image": made.T, "logits_per_text": made, "text_embeds": text, "image_embeds": image}


def test_a_model_of_two_towers_with_a_trained_scale() -> None:
    model, module = two_towers(), Towers().eval()
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.3)
    report = lx.port(model, module)
    assert report.end_to_end.agrees is True
    assert report.end_to_end.only.startswith("2 of 4 outputs")
    assert module.logit_scale.item() == float(model.get_layer("head").logit_scale)
    assert lx.validate(model, module).ok
    assert lx.validate(module, model).ok  # two outputs of its four
    assert lx.port(Towers().eval(), model).end_to_end.agrees is True
    with torch.no_grad():
        module.logit_scale.add_(0.5)
    assert not lx.validate(two_towers(), module).ok
