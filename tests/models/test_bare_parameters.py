"""A position table that torch or flax keeps as a bare parameter, and Keras as an Embedding or a layer of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_models import precision
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError, VerificationError

VOCAB, STEPS, WIDTH = 13, 7, 11
LN = {"ln": "flax.LayerNorm"}  # whose scale and bias are those of other norms too
WAYS = [("pos", (1, STEPS, WIDTH)), ("pos", (STEPS, WIDTH)), ("where", (1, STEPS, WIDTH)), ("block", (1, STEPS, WIDTH))]


class Block(nn.Module):
    """Holds the parameter beside a layer, as torchvision's Encoder does."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(*shape))
        self.ln = nn.LayerNorm(WIDTH, eps=1e-5)


class Net(nn.Module):
    """Tokens and positions, a norm and a projection; `name` is what the parameter is called."""

    def __init__(self, name: str = "pos", shape: tuple[int, ...] = (1, STEPS, WIDTH)) -> None:
        super().__init__()
        self.tok = nn.Embedding(VOCAB, WIDTH)
        self.name = name
        if name == "block":
            self.block = Block(shape)
        else:
            setattr(self, name, nn.Parameter(torch.randn(*shape)))
            self.ln = nn.LayerNorm(WIDTH, eps=1e-5)
        self.out = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, i: Tensor) -> Tensor:
        """(batch, time) tokens and positions -> (batch, time, 5)."""
        own = self.block if self.name == "block" else self
        table = own.pos_embedding if self.name == "block" else getattr(self, self.name)
        return self.out(own.ln(self.tok(x) + table.reshape(-1, WIDTH)[i]))


def keras_net(seed: int, steps: int = STEPS) -> Any:
    """The same network with an Embedding for the positions, all weights random."""
    import keras

    k = keras.layers
    with precision(keras, "float64"):
        x, i = keras.Input((STEPS,), dtype="int32"), keras.Input((STEPS,), dtype="int32")
        y = k.Embedding(VOCAB, WIDTH, name="tok")(x) + k.Embedding(steps, WIDTH, name="pos")(i)
        model = keras.Model([x, i], k.Dense(5, name="out")(k.LayerNormalization(epsilon=1e-5, name="ln")(y)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def batch() -> list[np.ndarray[Any, Any]]:
    """Tokens, and positions in an order of their own, that a row at the wrong place shows."""
    rng = np.random.default_rng(5)
    return [rng.integers(0, VOCAB, (3, STEPS)), np.stack([rng.permutation(STEPS) for _ in range(3)])]


@pytest.mark.parametrize(("name", "shape"), WAYS)
def test_keras_embedding_into_a_parameter_and_back(name: str, shape: tuple[int, ...]) -> None:
    model, module = keras_net(1), Net(name, shape).double().eval()
    assert layoutx.match(model, module).complete
    assert layoutx.match(module, model).complete
    report = layoutx.port(model, module, batch())
    assert report.end_to_end.agrees is True
    stored = dict(module.named_parameters())["block.pos_embedding" if name == "block" else name]
    np.testing.assert_array_equal(
        stored.detach().numpy().reshape(STEPS, WIDTH), model.get_layer("pos").get_weights()[0]
    )
    assert layoutx.validate(model, module, batch()).ok
    assert layoutx.validate(module, model, batch()).ok
    other = keras_net(2)
    assert not layoutx.validate(module, other, batch()).ok
    assert layoutx.port(module, other, batch()).end_to_end.agrees is True
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_numbers_alone_find_it(tmp_path: Path) -> None:
    """A parameter whose name says nothing, in a state dict beside a second one of its shape: values decide."""
    from safetensors.torch import save_file

    model, module = keras_net(1), Net("pos").double()
    layoutx.port(model, module, batch())
    state = dict(module.state_dict())
    state["zz"] = state.pop("pos")
    state["aa"] = torch.randn(1, STEPS, WIDTH, dtype=torch.float64)
    save_file(state, tmp_path / "t.safetensors")
    found = layoutx.match(model, tmp_path / "t.safetensors")
    assert {p.source.name: p.target.name for p in found.joint.pairs}["pos"] == "zz"
    assert list(found.joint.unused) == ["aa"]


def test_another_length_is_refused_by_name() -> None:
    module = Net("pos").double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(LayoutxError, match="pos"):
        layoutx.port(keras_net(1, STEPS + 4), module, compare=False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_table_read_back_to_front_is_noticed() -> None:
    class Wrong(Net):
        def forward(self, x: Tensor, i: Tensor) -> Tensor:
            return super().forward(x, i.flip(1))

    with pytest.raises(VerificationError):
        layoutx.port(keras_net(1), Wrong().double(), batch())


def test_a_keras_layer_of_ones_own() -> None:
    """One weight (1, positions, width), added to what goes through: a class that no spec knows."""
    import keras

    class AddPositions(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=(1, *shape[1:]), name="table", initializer="normal")

        def call(self, x: Any) -> Any:
            return x + self.table

    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.out = nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, 5)
            self.pos_embed = nn.Parameter(torch.randn(1, STEPS, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.tok(x) + self.pos_embed)

    with precision(keras, "float64"):
        k = keras.layers
        first = [keras.Input((STEPS,), dtype="int32"), k.Embedding(VOCAB, WIDTH, name="tok")]
        model = keras.Sequential([*first, AddPositions(name="add_positions"), k.Dense(5, name="out")])
    module = Adds().double().eval()
    assert layoutx.port(model, module, batch()[0]).end_to_end.agrees is True
    assert layoutx.validate(model, module, batch()[0]).ok
    with torch.no_grad():
        module.pos_embed.mul_(2)
    assert not layoutx.validate(model, module, batch()[0]).ok
    assert layoutx.port(module, model, batch()[0]).end_to_end.agrees is True
    np.testing.assert_array_equal(np.asarray(model.weights[1]), module.pos_embed.detach().numpy())


def flax_variables(bare: bool) -> tuple[Any, dict[str, Any]]:
    """A flax network whose positions are a parameter of its own, or an Embed, and its variables in float64."""
    import jax
    from flax import linen

    class Flax(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any, i: Any) -> Any:
            y = linen.Embed(VOCAB, WIDTH, name="tok")(x)
            if bare:
                pos = self.param("pos", linen.initializers.normal(), (1, STEPS, WIDTH))
                y = y + pos[0][i]
            else:
                y = y + linen.Embed(STEPS, WIDTH, name="pos")(i)
            return linen.Dense(5, name="out")(linen.LayerNorm(name="ln", epsilon=1e-5)(y))

    x, i = batch()
    made = Flax().init(jax.random.key(1), x, i)
    rng = np.random.default_rng(3)
    return Flax(), jax.tree.map(lambda a: rng.normal(size=a.shape), made)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("shape", [(1, STEPS, WIDTH), (STEPS, WIDTH)])
def test_flax_into_torch_and_keras(bare: bool, shape: tuple[int, ...]) -> None:
    flax, variables = flax_variables(bare)
    module, model = Net("pos", shape).double().eval(), keras_net(4)
    layoutx.port(variables, module, compare=False, forms=LN)
    layoutx.port(variables, model, compare=False, forms=LN)
    table = variables["params"]["pos"] if bare else variables["params"]["pos"]["embedding"]
    np.testing.assert_array_equal(module.pos.detach().numpy().reshape(STEPS, WIDTH), table.reshape(STEPS, WIDTH))
    np.testing.assert_array_equal(model.get_layer("pos").get_weights()[0], table.reshape(STEPS, WIDTH))
    assert layoutx.match(module, variables).complete
    x, i = batch()
    expected = np.asarray(flax.apply(variables, x, i))
    with torch.no_grad():
        found = module(torch.from_numpy(x), torch.from_numpy(i)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bare", [True, False])
def test_torch_and_keras_into_flax(bare: bool, tmp_path: Path) -> None:
    """Into a file of flax' names: the target of a conversion."""
    from flax.serialization import from_bytes, to_bytes

    _, variables = flax_variables(bare)
    (tmp_path / "like.msgpack").write_bytes(to_bytes(variables))
    torch.save(Net("pos").double().state_dict(), tmp_path / "t.pt")
    keras_net(1).save(tmp_path / "k.keras")
    for source in ("t.pt", "k.keras"):
        out = tmp_path / f"{source}.msgpack"
        forms = {"tok": "torch.Embedding", "ln": "torch.LayerNorm"} if source == "t.pt" else {}
        layoutx.convert(tmp_path / source, out, to="flax", like=tmp_path / "like.msgpack", forms=forms)
        made = from_bytes(variables, out.read_bytes())["params"]["pos"]
        found = np.asarray(made if bare else made["embedding"])
        state = (
            torch.load(tmp_path / "t.pt")["pos"].numpy()
            if source == "t.pt"
            else keras_net(1).get_layer("pos").get_weights()[0]
        )
        np.testing.assert_array_equal(found.reshape(STEPS, WIDTH), state.reshape(STEPS, WIDTH))


def test_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(sys.modules, "bare_here", sys.modules[__name__])
    keras_net(1).save("k.keras")
    torch.save(Net("pos").double().state_dict(), "like.pt")
    np.savez("batch.npz", *batch())
    assert main(["match", "k.keras", "bare_here:Net"]) == 0
    assert "4 of 4 layers" in capsys.readouterr().out
    assert main(["convert", "k.keras", "-o", "t.pt", "--to", "torch", "--like", "like.pt"]) == 0
    table = torch.load("t.pt")["pos"].numpy()
    np.testing.assert_array_equal(table[0], keras_net(1).get_layer("pos").get_weights()[0])
    assert (
        main(["port", "k.keras", "bare_here:Net", "-o", "ported.pt", "--inputs", "batch.npz", "--allow", "rounds"]) == 0
    )
    capsys.readouterr()
    assert main(["inspect", "ported.pt"]) == 0
    assert "Parameter" in capsys.readouterr().out


class Pooled(nn.Module):
    """Tokens behind a class token, which is a vector or a table of one row, seen by a row that asks."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(*shape))
        self.tok, self.out = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.probe = nn.Parameter(torch.randn(1, 1, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 5) -> (batch, 1, 3)."""
        first = self.class_embedding.reshape(1, 1, -1).expand(len(x), 1, WIDTH)
        y = torch.cat([first, self.tok(x)], 1)
        return self.out(torch.softmax(self.probe @ y.mT, -1) @ y)


def keras_pooled(seed: int, shape: tuple[int, ...]) -> Any:
    """The same model; the row that asks has no name of its own (add_weight without one)."""
    import keras
    from keras import ops

    k = keras.layers

    class Before(k.Layer):
        def __init__(self) -> None:
            super().__init__(name="before")
            self.tok = k.Dense(WIDTH, name="tok")

        def build(self, given: Any) -> None:
            self.class_token = self.add_weight(shape=shape, name="class_token")
            self.tok.build(given)

        def call(self, x: Any) -> Any:
            first = ops.broadcast_to(ops.reshape(self.class_token, (1, 1, WIDTH)), (ops.shape(x)[0], 1, WIDTH))
            return ops.concatenate([first, self.tok(x)], axis=1)

    class Head(k.Layer):
        def __init__(self) -> None:
            super().__init__(name="head")
            self.out = k.Dense(3, name="out")

        def build(self, given: Any) -> None:
            self.asks = self.add_weight(shape=(1, 1, WIDTH))
            self.out.build((*given[:1], 1, WIDTH))

        def call(self, y: Any) -> Any:
            near = ops.softmax(ops.matmul(self.asks, ops.transpose(y, (0, 2, 1))))
            return self.out(ops.matmul(near, y))

    x = keras.Input((STEPS, 5))
    model = keras.Model(x, Head()(Before()(x)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


@pytest.mark.parametrize("there", [(WIDTH,), (1, WIDTH), (1, 1, WIDTH)])
@pytest.mark.parametrize("here", [(WIDTH,), (1, 1, WIDTH)])
def test_a_class_token_is_a_vector_or_a_table_of_one_row(here: tuple[int, ...], there: tuple[int, ...]) -> None:
    model, module, other = keras_pooled(1, here), Pooled(there), keras_pooled(2, here)
    assert layoutx.port(model, module).end_to_end.agrees is True
    x = np.random.default_rng(3).normal(size=(2, STEPS, 5)).astype("float32")
    made = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(made, np.asarray(model(x)), rtol=1e-4, atol=1e-5)
    assert layoutx.port(module, other).end_to_end.agrees is True
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_vector_of_another_name_is_no_table() -> None:
    from layoutx.files.store import tensor_of
    from layoutx.model.bare import called_row, is_row

    assert is_row(tensor_of("v", np.ones(WIDTH, "float32")))
    assert not is_row(tensor_of("v", np.ones(WIDTH, "int64")))
    assert [called_row(name) for name in ("vit.cls_token", "class_embedding", "pos_bias", "gamma", "v")] == [
        True,
        True,
        False,
        False,
        False,
    ]
