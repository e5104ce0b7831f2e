"""Models that keep equal layers as one tensor with an axis for them, against torch modules that keep a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.open import open_store
from layoutx.files.save import save

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
torch = pytest.importorskip("torch")
nnx, jnp = pytest.importorskip("flax.nnx"), jax.numpy

X = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
NAMES = {"norm": "LayerNorm_0", "up": "Dense_1", "down": "Dense_0"}
NORMS = {"norm": "flax.LayerNorm"}  # one vector of scales, one of biases: no name says its class


def trained(tree: Any) -> Any:
    """A tree with made up numbers of its own shapes."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape).astype(a.dtype) * 0.4), tree)


class Block(linen.Module):
    @linen.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return x + linen.Dense(8)(linen.gelu(linen.Dense(16)(linen.LayerNorm()(x)))), None


class Scanned(linen.Module):
    """As big models of linen are written: the blocks under one name, their axis where the user wants it."""

    axis: int = 0

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Dense(8, name="embed")(x)
        many = linen.scan(
            linen.remat(Block), variable_axes={"params": self.axis}, split_rngs={"params": True}, length=3
        )
        x, _ = many(name="layers")(x, None)
        return linen.Dense(5, name="head")(linen.LayerNorm(name="norm")(x))


class TorchBlock(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8, eps=1e-6)
        self.up, self.down = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x)), approximate="tanh"))


class TorchBlocks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 5)
        self.blocks = torch.nn.ModuleList([TorchBlock() for _ in range(3)])
        self.norm = torch.nn.LayerNorm(8, eps=1e-6)

    def forward(self, x: Any) -> Any:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class NnxBlock(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.down(nnx.gelu(self.up(self.norm(x))))


class NnxScanned(nnx.Module):
    """Blocks made by vmap; called in a loop of jax, or one after the other."""

    def __init__(self, loop: bool) -> None:
        rngs = nnx.Rngs(0)
        self.embed, self.head = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.norm, self.loop = nnx.LayerNorm(8, rngs=rngs), loop
        self.blocks = nnx.split_rngs(splits=3)(nnx.vmap(NnxBlock, in_axes=(0,), out_axes=0))(rngs)

    def __call__(self, x: Any) -> Any:
        x = self.embed(x)
        if self.loop:
            graph, state = nnx.split(self.blocks)
            for at in range(3):
                x = nnx.merge(graph, jax.tree.map(lambda a: a[at], state))(x)  # noqa: B023
        else:
            x = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.blocks)
        return self.head(self.norm(x))


def of_haiku() -> tuple[Any, Any]:
    hk = pytest.importorskip("haiku")

    def norm() -> Any:
        return hk.LayerNorm(-1, True, True, eps=1e-6, name="norm")

    def block(x: Any) -> Any:
        return x + hk.Linear(8, name="down")(jax.nn.gelu(hk.Linear(16, name="up")(norm()(x))))

    def model(x: Any) -> Any:
        x = hk.experimental.layer_stack(3)(block)(hk.Linear(8, name="embed")(x))
        return hk.Linear(5, name="head")(norm()(x))

    made = hk.without_apply_rng(hk.transform(model))
    return made, trained(made.init(jax.random.key(0), X))


def of_equinox() -> Any:
    eqx = pytest.importorskip("equinox")

    class EqxBlock(eqx.Module):
        norm: Any
        up: Any
        down: Any

        def __init__(self, key: Any) -> None:
            self.norm = eqx.nn.LayerNorm(8, eps=1e-6)
            self.up, self.down = eqx.nn.Linear(8, 16, key=key), eqx.nn.Linear(16, 8, key=key)

        def __call__(self, x: Any) -> Any:
            return x + self.down(jax.nn.gelu(self.up(self.norm(x))))

    class Model(eqx.Module):
        embed: Any
        blocks: Any
        norm: Any
        head: Any

        def __init__(self, key: Any) -> None:
            self.embed, self.head = eqx.nn.Linear(4, 8, key=key), eqx.nn.Linear(8, 5, key=key)
            self.blocks, self.norm = eqx.filter_vmap(EqxBlock)(jax.random.split(key, 3)), eqx.nn.LayerNorm(8, eps=1e-6)

        def __call__(self, x: Any) -> Any:
            arrays, rest = eqx.partition(self.blocks, eqx.is_array)
            x, _ = jax.lax.scan(lambda x, own: (eqx.combine(own, rest)(x), None), self.embed(x), arrays)
            return self.head(self.norm(x))

    arrays, rest = eqx.partition(Model(jax.random.key(0)), eqx.is_array)
    return eqx.combine(trained(arrays), rest)


def of_linen(axis: int) -> tuple[Any, Any]:
    module = Scanned(axis)
    return module, trained(module.init(jax.random.key(0), X))


def of_nnx(loop: bool) -> Any:
    model = NnxScanned(loop)
    nnx.update(model, trained(nnx.state(model)))
    return model


MODELS = {
    "linen": lambda: of_linen(0),
    "linen, second axis": lambda: of_linen(1),
    "nnx": lambda: of_nnx(False),
    "nnx, sliced": lambda: of_nnx(True),
    "haiku": of_haiku,
    "equinox": of_equinox,
}


def run(model: Any) -> np.ndarray[Any, Any]:
    if not isinstance(model, tuple):
        return np.asarray(
            jax.vmap(model)(X) if hasattr(model, "embed") and not isinstance(model, nnx.Module) else model(X)
        )
    return np.asarray(model[0].apply(model[1], X))


def torch_run(model: Any) -> np.ndarray[Any, Any]:
    return np.asarray(model(torch.from_numpy(X)).detach())


@pytest.mark.parametrize(
    ("name", "inputs"),
    [*((name, X) for name in MODELS), ("linen", None), ("haiku", None)],
    ids=[*MODELS, "linen, by shapes", "haiku, by shapes"],
)
def test_a_stack_and_a_list_are_the_same_model(name: str, inputs: Any) -> None:
    """Both ways, by the program where there is an input to trace it on, and by shapes where there is none."""
    there = TorchBlocks()
    report = lx.port(MODELS[name](), there, inputs)
    assert np.abs(run(MODELS[name]()) - torch_run(there)).max() < 1e-5
    assert len(report.layers) == 12
    assert inputs is None or not report.alike
    other = TorchBlocks()
    back = lx.port(other, MODELS[name](), inputs)
    assert np.abs(run(back.model) - torch_run(other)).max() < 1e-5


def test_the_way_back_gives_the_same_tree() -> None:
    module, variables = of_linen(1)
    there = TorchBlocks()
    lx.port((module, variables), there, X)
    empty = jax.tree.map(jnp.zeros_like, variables)
    back = lx.port(there, (module, empty), X).model[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), back, variables))


def test_layers_of_a_stack_that_are_left_out_keep_their_numbers() -> None:
    module, variables = of_linen(0)
    pairs = {f"blocks.1.{name}": f"layers.1.{own}" for name, own in NAMES.items()}
    back = lx.port(TorchBlocks(), (module, variables), X, only=["blocks.1.*"], pairs=pairs).model[1]
    old, new = (np.asarray(tree["params"]["layers"]["Dense_0"]["kernel"]) for tree in (variables, back))
    assert (old[[0, 2]] == new[[0, 2]]).all()
    assert not (old[1] == new[1]).any()


def test_validate_sees_one_wrong_layer_of_a_stack() -> None:
    module, variables = of_linen(0)
    there = TorchBlocks()
    lx.port((module, variables), there, X)
    assert lx.validate((module, variables), there, X).ok
    wrong = jax.tree.map(lambda a: a, variables)
    kernel = wrong["params"]["layers"]["Dense_1"]["kernel"]
    wrong["params"]["layers"]["Dense_1"]["kernel"] = kernel.at[2].set(-kernel[2])
    found = lx.validate(there, (module, wrong), X)
    assert [check.layer for check in found.checks if check.verdict == "FAIL"] == ["blocks.2.up"]


def written(tmp_path: Path, axis: int) -> Path:
    """A file of the variables of a linen model."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_linen(axis)[1]):
        arrays["/".join(key.key for key in path)] = np.ascontiguousarray(leaf)
    save(tmp_path / "scanned.msgpack", arrays, {})
    return tmp_path / "scanned.msgpack"


@pytest.mark.parametrize("axis", [0, 1])
def test_files_both_ways(tmp_path: Path, axis: int) -> None:
    """A file tells its layers by shapes; what comes back is the file, and verify knows both."""
    source, there, back = written(tmp_path, axis), tmp_path / "there.safetensors", tmp_path / "back.msgpack"
    lx.convert(source, there, to="torch", like=TorchBlocks(), forms=NORMS)
    lx.convert(there, back, to="flax", like=source, forms={"*norm": "torch.LayerNorm"})
    one, other = (open_store(path).tensors for path in (source, back))
    assert one.keys() == other.keys()
    assert all((one[name].read() == other[name].read()).all() for name in one)
    assert lx.verify_file(there, source=source).ok
    assert lx.verify_file(back, source=there).ok
    live = TorchBlocks()
    live.load_state_dict({n: torch.from_numpy(t.read().copy()) for n, t in open_store(there).tensors.items()})
    assert np.abs(run(of_linen(axis)) - torch_run(live)).max() < 1e-5


def test_names_of_a_stack_as_a_list(tmp_path: Path) -> None:
    """Without a target each layer gets a number behind the path of the stack."""
    out = tmp_path / "there.safetensors"
    lx.convert(written(tmp_path, 0), out, to="torch", forms=NORMS)
    names = set(open_store(out).tensors)
    assert {"layers.0.Dense_0.weight", "layers.2.LayerNorm_0.bias"} <= names
    assert len(names) == 24


def test_one_layer_of_a_stack_is_transferred(tmp_path: Path) -> None:
    source, out = written(tmp_path, 1), tmp_path / "out.msgpack"
    there = TorchBlocks()
    torch.save(there.state_dict(), tmp_path / "torch.pt")
    result = lx.transfer(tmp_path / "torch.pt", source, out, only=["blocks.1"])
    assert not result.dropped
    old, new = (open_store(path).tensors["params/layers/Dense_0/kernel"].read() for path in (source, out))
    assert (old[:, [0, 2]] == new[:, [0, 2]]).all()
    assert (new[:, 1] == there.blocks[1].down.weight.detach().numpy().T).all()


def test_what_is_said_of_a_stack(tmp_path: Path) -> None:
    """The axis is the user's where they say it; that there is none too; a path or an axis that is not there is told."""
    source = written(tmp_path, 1)
    assert len(lx.inspect(source, values={"layers.stacked": 1}).layers) == 12
    assert len(lx.inspect(source, values={"layers.stacked": False}).layers) == 6
    with pytest.raises(UsageError, match="have not one number of layers in axis 0"):
        lx.inspect(source, values={"layers.stacked": 0})
    with pytest.raises(UsageError, match="names no part of a model"):
        lx.inspect(source, values={"layer.stacked": 1})
    lx.convert(source, tmp_path / "there.safetensors", to="torch", forms=NORMS)
    with pytest.raises(UsageError, match="written whole"):
        lx.convert(
            tmp_path / "there.safetensors",
            tmp_path / "o.safetensors",
            to="flax",
            like=source,
            dtype="bf16",
            forms={"norm": "torch.LayerNorm", "*.LayerNorm_0": "torch.LayerNorm"},
        )


def test_as_many_layers_as_features_are_asked_for(tmp_path: Path) -> None:
    """Eight layers of eight features: either axis may count the layers, and both readings fit."""
    norm = {f"params/layers/ln_{i}/{name}": np.zeros((8, 8), "f4") for i in "ab" for name in ("scale", "bias")}
    save(tmp_path / "square.msgpack", norm, {})
    with pytest.raises(UsageError, match="in its first axis or in its second"):
        lx.inspect(tmp_path / "square.msgpack")
    assert len(lx.inspect(tmp_path / "square.msgpack", values={"layers.stacked": 0}).layers) == 16


def test_a_list_of_stacks_is_no_stack_of_lists(tmp_path: Path) -> None:
    """Two stages of two layers: names do not say whether a layer's number comes before the stage's or behind it."""
    arrays = {}
    for stage in range(2):
        for name, shape in {"ln/scale": (2, 8), "ln/bias": (2, 8), "fc/kernel": (2, 8, 8), "fc/bias": (2, 8)}.items():
            arrays[f"params/stages/{stage}/{name}"] = np.zeros(shape, "f4")
    save(tmp_path / "stages.msgpack", arrays, {})
    with pytest.raises(UsageError, match=r"stages\.0\.stacked=0 --set stages\.1\.stacked=0"):
        lx.inspect(tmp_path / "stages.msgpack")
    said = {"stages.0.stacked": 0, "stages.1.stacked": 0}
    names = [layer.name for layer in lx.inspect(tmp_path / "stages.msgpack", values=said).layers]
    assert "stages.0.1.fc" in names
    assert "stages.1.0.ln" in names


def test_a_parameter_of_ones_own_does_not_hide_a_stack(tmp_path: Path) -> None:
    """A factor for each layer has no form, stacked or not; the layers beside it have."""
    arrays = {"params/layers/ln/scale": np.zeros((8, 3), "f4"), "params/layers/ln/bias": np.zeros((8, 3), "f4")}
    arrays |= {"params/layers/fc/kernel": np.zeros((8, 3, 16), "f4"), "params/layers/own/mixed": np.zeros((2, 3), "f4")}
    save(tmp_path / "own.msgpack", {**arrays, "params/norm/scale": np.zeros(8, "f4")}, {})
    names = [layer.name for layer in lx.inspect(tmp_path / "own.msgpack").layers]
    assert set(names[:3]) == {"layers.0.fc", "layers.0.ln", "layers.0.own.mixed"}
    assert names[-1] == "norm"
    assert len(names) == 10


class Experts(linen.Module):
    """Four experts of one shape side by side, of which a router takes a mean: nothing but their Dense layers."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        class Expert(linen.Module):
            @linen.compact
            def __call__(self, x: Any) -> Any:
                return linen.Dense(4, name="down")(linen.relu(linen.Dense(16, name="up")(x)))

        many = linen.vmap(Expert, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=4)
        weights = linen.softmax(linen.Dense(4, name="router")(x))
        return jnp.einsum("be,ebd->bd", weights, many(name="experts")(x))


class TorchExperts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.router = nn.Linear(4, 4)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(4)])

    def forward(self, x: Any) -> Any:
        weights = torch.softmax(self.router(x), -1)
        return sum(weights[:, at, None] * expert(x) for at, expert in enumerate(self.experts))


def test_experts_are_a_stack_that_is_called_at_once() -> None:
    module = Experts()
    variables, there = trained(module.init(jax.random.key(0), X)), TorchExperts()
    lx.port((module, variables), there, X)
    assert np.abs(np.asarray(module.apply(variables, X)) - torch_run(there)).max() < 1e-5
    back = lx.port(TorchExperts(), (module, variables), X).model
    assert back[1]["params"]["experts"]["up"]["kernel"].shape == (4, 4, 16)


class Memory(linen.Module):
    """A block with a loop over time inside the loop over layers."""

    @linen.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return x + linen.RNN(linen.GRUCell(4), name="rnn")(linen.LayerNorm(name="norm")(x)), None


class Memories(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        many = linen.scan(Memory, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return linen.Dense(3, name="head")(many(name="layers")(x, None)[0])


def test_a_loop_over_time_inside_a_stack_is_no_layer() -> None:
    x = np.random.default_rng(5).standard_normal((2, 6, 4)).astype(np.float32)
    module = Memories()
    variables = trained(module.init(jax.random.key(0), x))
    assert len(lx.inspect((module, variables)).layers) == 5
    other = jax.tree.map(lambda a: a, variables)
    found = lx.validate((module, variables), (module, other), x)
    assert found.ok
    assert found.compared == 5
    kernel = other["params"]["layers"]["norm"]["scale"]
    other["params"]["layers"]["norm"]["scale"] = kernel.at[1].set(-kernel[1])
    found = lx.validate((module, variables), (module, other), x)
    assert [check.layer for check in found.checks if check.verdict == "FAIL"] == ["layers.1.norm"]


def test_dense_layers_alone_look_like_another_layer_and_the_error_says_so(tmp_path: Path) -> None:
    rng, sizes = np.random.default_rng(5), {"fc1": (7, 11), "fc2": (11, 7)}
    arrays = {f"params/blocks/{name}/kernel": rng.normal(size=(3, *size)) for name, size in sizes.items()}
    arrays |= {f"params/blocks/{name}/bias": rng.normal(size=(3, size[1])) for name, size in sizes.items()}
    save(tmp_path / "m.msgpack", arrays, {})
    with pytest.raises(LayoutxError, match=r"if these are 3 layers kept as one, --set blocks\.stacked=0"):
        lx.convert(tmp_path / "m.msgpack", to="torch")
    report = lx.convert(tmp_path / "m.msgpack", to="torch", values={"blocks.stacked": 0}, keep_order=True)
    assert {layer.name for layer in report.layers} == {f"blocks.{i}.{name}" for i in range(3) for name in sizes}
