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
