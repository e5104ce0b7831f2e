"""What a file of names and numbers does not tell: asked for where it moves numbers, named in the report otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import ConversionError, LayoutxError, UsageError
from layoutx.files.open import open_store

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
torch = pytest.importorskip("torch")
from flax import serialization  # noqa: E402


def written(path: Path, module: Any, shape: tuple[int, ...], name: str = "") -> tuple[Path, Any, Any]:
    """A linen layer with no initial number left, as a msgpack file; an input and its output."""

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return (module() if not name else module(name=name))(x)

    rng = np.random.default_rng(3)
    x = rng.normal(size=shape).astype(np.float32)
    with jax.enable_x64(False):
        variables = Model().init(jax.random.key(0), x)
        variables = jax.tree.map(lambda a: np.asarray(a + rng.normal(size=a.shape), np.float32), variables)
        y = np.asarray(Model().apply(variables, x))
    path.write_bytes(serialization.to_bytes(variables))
    return path, x, y


def state(path: Path) -> dict[str, Any]:
    return {name.rpartition(".")[2]: torch.from_numpy(t.read().copy()) for name, t in open_store(path).tensors.items()}


def upward(x: Any, own: dict[str, Any]) -> Any:
    image = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    return np.moveaxis(torch.nn.functional.conv_transpose2d(image, own["weight"], own["bias"]).numpy(), 1, -1)


@pytest.mark.parametrize("turned", [True, False])
def test_a_transposed_kernel_is_asked_for(turned: bool, tmp_path: Path) -> None:
    def layer(**more: Any) -> Any:
        return linen.ConvTranspose(5, (3, 2), padding="VALID", transpose_kernel=turned, **more)

    source, x, y = written(tmp_path / "x.msgpack", layer, (2, 7, 11, 5))
    out = tmp_path / "x.safetensors"
    with pytest.raises(ConversionError, match=r"--set ConvTranspose_0\.transpose_kernel=VALUE"):
        lx.convert(source, out, to="torch")
    with pytest.raises(ConversionError, match="transpose_kernel=False or True"):
        lx.convert(source, out, to="torch", forms={"*": "flax.ConvTranspose"})
    for key in ("ConvTranspose_0.transpose_kernel", "Conv*.transpose_kernel", "transpose_kernel"):
        lx.convert(source, out, to="torch", values={key: turned})
        assert np.abs(upward(x, state(out)) - y).max() < 1e-4
    lx.convert(source, out, to="torch", values={"transpose_kernel": not turned})
    assert np.abs(upward(x, state(out)) - y).max() > 0.1
    with pytest.raises(UsageError, match="names no layer"):
        lx.convert(source, out, to="torch", values={"up.transpose_kernel": turned})


def test_a_transposed_kernel_is_asked_for_beside_a_template_as_well(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    source, x, y = written(
        tmp_path / "x.msgpack",
        lambda **more: linen.ConvTranspose(5, (3, 2), padding="VALID", transpose_kernel=True, **more),
        (2, 7, 11, 5),
        "up",
    )
    model = keras.Sequential([keras.Input((7, 11, 5)), keras.layers.Conv2DTranspose(5, (3, 2), name="up")])
    model.save(tmp_path / "like.keras")
    call: Any = {"to": "keras", "like": tmp_path / "like.keras"}
    with pytest.raises(LayoutxError, match=r"--set up\.transpose_kernel=VALUE"):
        lx.convert(source, tmp_path / "x.keras", **call)
    with pytest.raises(UsageError, match="no config key that a layer of these models reads"):
        lx.convert(source, tmp_path / "x.keras", **call, values={"up.transpose_kernel": True, "up.tied": 1})
    lx.convert(source, tmp_path / "x.keras", **call, values={"up.transpose_kernel": True})
    assert np.abs(np.asarray(keras.models.load_model(tmp_path / "x.keras")(x)) - y).max() < 1e-4


@pytest.mark.parametrize("equation", ["...b,bc->...c", "...b,cb->...c"])
def test_a_square_einsum_is_asked_for_its_equation(equation: str, tmp_path: Path) -> None:
    source, x, y = written(tmp_path / "x.msgpack", lambda **more: linen.Einsum((7, 7), equation, **more), (3, 7))
    out = tmp_path / "x.safetensors"
    with pytest.raises(ConversionError, match=r"--set Einsum_0\.kernel_dims=VALUE; or its equation, --set Einsum_0"):
        lx.convert(source, out, to="torch")
    dims = "input output" if equation.endswith("bc->...c") else "output input"
    for values in ({"Einsum_0.einsum_str": equation}, {"Einsum_0.kernel_dims": dims}):
        lx.convert(source, out, to="torch", values=values)
        own = state(out)
        assert np.abs(x @ own["weight"].numpy().T + own["bias"].numpy() - y).max() < 1e-4


def test_an_einsum_that_is_not_square_is_told_by_its_bias(tmp_path: Path) -> None:
    source, x, y = written(tmp_path / "x.msgpack", lambda **more: linen.Einsum((5, 7), "ab,cb->ac", **more), (3, 7))
    lx.convert(source, tmp_path / "x.safetensors", to="torch")
    own = state(tmp_path / "x.safetensors")
    assert np.abs(x @ own["weight"].numpy().T + own["bias"].numpy() - y).max() < 1e-4


def test_a_square_kernel_whose_name_does_not_speak_is_asked_for(tmp_path: Path) -> None:
    source, _, _ = written(tmp_path / "x.msgpack", lambda **more: linen.Dense(7, **more), (3, 7), "mix")
    with pytest.raises(ConversionError, match=r"fit flax\.Dense, .*flax\.Einsum: say which with --form mix=FORM"):
        lx.convert(source, to="torch")
    assert lx.convert(source, to="torch", forms={"m*": "flax.Dense"}).exactness == "moves"
    source, _, _ = written(tmp_path / "x.msgpack", lambda **more: linen.Dense(5, **more), (3, 7), "mix")
    assert lx.convert(source, to="torch").layers[0].source == "flax.Dense"  # another order would show


def test_the_groups_of_a_norm_are_asked_for(tmp_path: Path) -> None:
    """64 channels, which the default of 32 groups would divide; and 12, which it would not."""
    for channels in (64, 12):
        source, _, _ = written(tmp_path / "x.msgpack", lambda **more: linen.GroupNorm(4, **more), (3, channels))
        with pytest.raises(LayoutxError, match="--set num_groups=VALUE"):
            lx.convert(source, to="torch")
        view = lx.inspect(source)
        assert view.layers[0].form == "flax.GroupNorm"  # the name tells: no InstanceNorm is offered
        report = lx.convert(source, to="torch", values={"GroupNorm_0.num_groups": 4})
        assert "num_groups=4 as given by --set" in str(report)


def assumptions(report: lx.Report) -> str:
    (found,) = [note for note in report.layers[0].notes if note.startswith("assumed, because")]
    return found.partition(": ")[2]


def test_what_is_assumed_is_named(tmp_path: Path) -> None:
    cases = (
        (lambda **more: linen.RNN(linen.GRUCell(5), name="GRUCell_0"), (2, 3, 7), {"activation_fn=tanh", "gate_fn"}),
        (lambda **more: linen.SimpleCell(7), (2, 7), {"residual=False", "activation_fn=tanh"}),
        (lambda **more: linen.LayerNorm(), (2, 7), {"epsilon=1e-06"}),
        (lambda **more: linen.Conv(5, (3,)), (2, 7, 3), {"strides=1", "padding=SAME", "feature_group_count=1", "mask"}),
    )
    for module, shape, wanted in cases:
        if len(shape) == 2 and "residual=False" in wanted:
            params = {
                "SimpleCell_0": {"i": {"kernel": np.ones((5, 7)), "bias": np.ones(7)}, "h": {"kernel": np.ones((7, 7))}}
            }
            source = tmp_path / "c.msgpack"
            source.write_bytes(serialization.to_bytes({"params": params}))
            found = assumptions(lx.convert(source, to="torch"))
        elif "gate_fn" in wanted:
            cell = {k: {"kernel": np.ones((3 if k[0] == "i" else 5, 5))} for k in ("ir", "iz", "in", "hr", "hz", "hn")}
            for name in ("ir", "iz", "in", "hn"):
                cell[name]["bias"] = np.ones(5)
            source = tmp_path / "g.msgpack"
            source.write_bytes(serialization.to_bytes({"params": {"GRUCell_0": cell}}))
            found = assumptions(lx.convert(source, to="torch"))
        else:
            source, _, _ = written(tmp_path / "x.msgpack", module, shape)
            forms = {"LayerNorm_0": "flax.LayerNorm"} if "epsilon=1e-06" in wanted else {}
            found = assumptions(lx.convert(source, to="torch", forms=forms))
        assert all(word in found for word in wanted), found
    told = lx.convert(source, to="torch", values={"Conv_0.strides": 2})
    assert "strides=1" not in assumptions(told)


def test_a_batch_norm_of_statistics_alone_says_so(tmp_path: Path) -> None:
    stats = {"BatchNorm_0": {"mean": np.ones(7, np.float32), "var": np.full(7, 2.0, np.float32)}}
    (tmp_path / "x.msgpack").write_bytes(serialization.to_bytes({"params": {}, "batch_stats": stats}))
    report = lx.convert(tmp_path / "x.msgpack", to="torch", from_="flax")
    assert "use_scale=False" in str(report)
    assert "use_bias=False" in str(report)
    assert "epsilon=1e-05" in assumptions(report)


class One(nnx.Module):
    """A model of one layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer


def test_live_modules_tell_what_their_files_do_not() -> None:
    """The equation of an Einsum, transpose_kernel, and num_groups, which nnx keeps beside group_size."""
    rngs, nn = nnx.Rngs(0), torch.nn
    turned = nnx.Einsum("...b,cb->...c", (7, 7), (7,), rngs=rngs)
    target = nn.Sequential()
    target.add_module("layer", nn.Linear(7, 7))
    lx.port(One(turned), target, compare=False)
    assert np.array_equal(target.layer.weight.detach().numpy(), np.asarray(turned.kernel[...]))
    norm = nn.Sequential()
    norm.add_module("layer", nn.GroupNorm(4, 12))
    assert lx.port(One(nnx.GroupNorm(12, 4, rngs=rngs)), norm, compare=False).layers[0].target == "torch.GroupNorm"
    report = lx.convert(One(nnx.LayerNorm(7, epsilon=0.1, rngs=rngs)), to="torch")
    assert report.layers[0].settings == ("eps=0.1; torch's default is 1e-05",)
    assert "does not tell" not in str(report)
    variables = {"params": {"LayerNorm_0": {"scale": np.ones(7), "bias": np.ones(7)}}}
    report = lx.convert(variables, to="torch", forms={"LayerNorm_0": "flax.LayerNorm"})
    assert "epsilon=1e-06" in assumptions(report)
    assert "does not tell settings" in str(report)


@pytest.mark.parametrize("major", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_whether_time_comes_first_is_a_setting(major: bool, first: bool) -> None:
    target = torch.nn.Sequential()
    target.add_module("layer", torch.nn.LSTM(5, 7, batch_first=first))
    source = One(nnx.RNN(nnx.LSTMCell(5, 7, rngs=nnx.Rngs(0)), time_major=major))
    settings = lx.port(source, target, compare=False).layers[0].settings
    if major != first:
        assert settings == ()
    else:
        (line,) = settings
        assert line.startswith(f"batch_first={not major}: {'time' if major else 'the batch'} is the first axis")
        assert f"(time_major={major})" in line


def test_lora_is_refused_by_name(tmp_path: Path) -> None:
    target = torch.nn.Sequential()
    target.add_module("layer", torch.nn.Linear(3, 5))
    rngs = nnx.Rngs(0)
    base = nnx.Linear(3, 5, rngs=rngs)
    for layer in (nnx.LoRALinear(3, 5, lora_rank=2, rngs=rngs), nnx.LoRA(3, 2, 5, base_module=base, rngs=rngs)):
        with pytest.raises(LayoutxError, match=r"it is LoRA: .*\(kernel \+ lora_a @ lora_b\); merge it first"):
            lx.port(One(layer), target, compare=False)
    tensors = {"l.base_layer.weight": (5, 3), "l.lora_A.default.weight": (2, 3), "l.lora_B.default.weight": (5, 2)}
    np.savez(tmp_path / "x.npz", **{name: np.ones(shape) for name, shape in tensors.items()})
    call: Any = {"to": "flax", "forms": {"*.base_layer": "torch.Linear"}}
    with pytest.raises(LayoutxError, match=r"alpha / rank \* lora_B @ lora_A"):
        lx.convert(tmp_path / "x.npz", **call)
    assert len(lx.convert(tmp_path / "x.npz", **call, skip=["*lora*"]).layers) == 1


def test_lora_beside_a_template_is_refused_by_name_too(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, name="l")]).save(tmp_path / "like.keras")
    shapes = {"l/kernel": (3, 5), "l/bias": (5,), "l/lora/lora_a": (3, 2), "l/lora/lora_b": (2, 5)}
    tree = {"l": {"kernel": np.ones((3, 5)), "bias": np.ones(5)}}
    tree["l"]["lora"] = {"lora_a": np.ones((3, 2)), "lora_b": np.ones((2, 5))}
    (tmp_path / "x.msgpack").write_bytes(serialization.to_bytes(tree))
    assert set(open_store(tmp_path / "x.msgpack").tensors) == set(shapes)
    with pytest.raises(LayoutxError, match=r"(?s)2 tensors of the nnx model have no layer.*it is LoRA: "):
        lx.convert(tmp_path / "x.msgpack", to="keras", from_="nnx", like=tmp_path / "like.keras")


def test_a_checkpoint_is_opened_by_what_its_files_begin_with(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x.ckpt"), tensor_names=["dense/kernel"], shape_and_slices=[""], tensors=[tf.ones((3, 5))]
    )
    assert set(open_store(tmp_path / "x.ckpt").tensors) == set(open_store(tmp_path / "x.ckpt.index").tensors)
    with pytest.raises(UsageError, match=r"there is no file y\.ckpt"):
        open_store(tmp_path / "y.ckpt")


def test_what_is_no_file_and_no_number_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"a.weight": np.ones((3, 5))})
    module = torch.nn.Linear(5, 3)
    with pytest.raises(UsageError, match="output is a Linear, where a name is meant"):
        lx.convert(tmp_path / "x.npz", module, to="flax")
    with pytest.raises(UsageError, match="to is a Linear, where a name is meant"):
        lx.convert(tmp_path / "x.npz", to=module)
    with pytest.raises(UsageError, match=r"the size of input is a whole number, not 7\.0"):
        lx.plan("keras.Dense", "torch.Linear", sizes={"input": 7.0, "output": 3})
    assert lx.plan("keras.Dense", "torch.Linear", sizes={"input": np.int64(7), "output": 3}).source.sizes["input"] == 7
    with pytest.raises(UsageError, match="neither a torch module nor"):
        lx.convert(3, to="torch")


def test_patterns_name_forms_and_values(tmp_path: Path) -> None:
    names = ("block0.mix", "block1.mix", "head")
    np.savez(tmp_path / "x.npz", **{f"{name}.weight": np.ones((7, 7)) for name in names})
    forms = {"block*.mix": "torch.Linear", "head": "torch.Embedding"}
    report = lx.convert(tmp_path / "x.npz", to="flax", forms=forms)
    assert [layer.source for layer in report.layers] == ["torch.Linear", "torch.Linear", "torch.Embedding"]
    with pytest.raises(UsageError, match=r"--form gives block0\.mix several forms"):
        lx.convert(tmp_path / "x.npz", to="flax", forms={**forms, "*0.mix": "torch.Embedding"})
    with pytest.raises(UsageError, match="--form names no layer: tail"):
        lx.convert(tmp_path / "x.npz", to="flax", forms={**forms, "tail*": "torch.Linear"})


def test_a_live_torch_module_becomes_flax_variables(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7, eps=0.1))
    report = lx.convert(module, tmp_path / "x.msgpack", to="flax")
    assert report.layers[1].settings == ("epsilon=0.1; flax's default is 1e-06",)
    found = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert np.array_equal(found["params"]["0"]["kernel"], module[0].weight.detach().numpy().T)
    with pytest.raises(UsageError, match="already holds names of torch"):
        lx.convert(module, to="torch")
