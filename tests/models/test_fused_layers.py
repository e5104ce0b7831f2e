"""One Linear that is several layers (queries, keys and values; gate and up) against a model that has them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import ops
from torch import nn

import layoutx as lx
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.stacked import rows_of, together
from layoutx.files.store import tensor_of
from layoutx.model.torch_dealt import Share, dealt
from layoutx.verify.running.torch_apart import with_parts
from layoutx.verify.running.torch_seen import seen

L = keras.layers
WIDTH, HEADS, KV, SIZE, INNER, LONG = 19, 6, 3, 10, 17, 7
REP = HEADS // KV
RNG = np.random.default_rng(20261123)


class Turned(nn.Module):
    """A layer of one's own that stores its weight (in, out)."""

    def __init__(self, into: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(into, out) * 0.3), nn.Parameter(torch.randn(out))

    def forward(self, x: Any) -> Any:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class ByHand(nn.Linear):
    """A subclass that multiplies by hand."""

    def forward(self, x: Any) -> Any:
        return x @ self.weight.T + self.bias


class Fused(nn.Module):
    """A block whose queries, keys and values are one layer, and gate and up another."""

    def __init__(self, way: str, linear: Any = nn.Linear) -> None:
        super().__init__()
        self.way = way
        self.norm, self.qkv = nn.LayerNorm(WIDTH), linear(WIDTH, (HEADS + 2 * KV) * SIZE)
        self.out, self.mlp = nn.Linear(HEADS * SIZE, WIDTH), nn.Linear(WIDTH, 2 * INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH)

    def heads(self, y: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values, each (batch, heads, time, size)."""
        b, t, _ = y.shape
        if self.way == "groups":  # the queries of a group, its key, its value
            y = y.view(b, t, KV, REP + 2, SIZE)
            q, k, v = y[..., :-2, :], y[..., [-2], :], y[..., [-1], :]
            return tuple(one.expand(q.shape).flatten(2, 3).transpose(1, 2) for one in (q, k, v))  # type: ignore[return-value]
        q, k, v = y.split((HEADS * SIZE, KV * SIZE, KV * SIZE), -1)
        q, k, v = (one.view(b, t, -1, SIZE).transpose(1, 2) for one in (q, k, v))
        return q, k.repeat_interleave(REP, 1), v.repeat_interleave(REP, 1)

    def forward(self, x: Any) -> Any:
        if len(x) > 1000:  # what torch.fx cannot trace
            return x
        q, k, v = self.heads(self.qkv(self.norm(x)))
        attended = torch.softmax(q @ k.mT / SIZE**0.5, -1) @ v
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        up, gate = self.mlp(x).chunk(2, -1)
        return x + self.down(up * F.silu(gate))


class Attend(L.Layer):
    """What lies between the projections."""

    def call(self, q: Any, k: Any, v: Any) -> Any:
        q, k, v = (
            ops.transpose(ops.reshape(one, (-1, LONG, n, SIZE)), (0, 2, 1, 3))
            for one, n in ((q, HEADS), (k, KV), (v, KV))
        )
        k, v = ops.repeat(k, REP, axis=1), ops.repeat(v, REP, axis=1)
        shares = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / SIZE**0.5)
        return ops.reshape(ops.transpose(ops.matmul(shares, v), (0, 2, 1, 3)), (-1, LONG, HEADS * SIZE))


def apart() -> Any:
    x = start = keras.Input((LONG, WIDTH))
    normed = L.LayerNormalization(epsilon=1e-5, name="norm")(x)
    projected = [L.Dense(n * SIZE, name=name)(normed) for name, n in (("q", HEADS), ("k", KV), ("v", KV))]
    x = x + L.Dense(WIDTH, name="out")(Attend()(*projected))
    gate = L.Dense(INNER, use_bias=False, activation="silu", name="gate")(x)
    up = L.Dense(INNER, use_bias=False, name="up")(x)
    model = keras.Model(start, x + L.Dense(WIDTH, name="down")(up * gate))
    model.set_weights([RNG.normal(size=w.shape) * 0.3 for w in model.get_weights()])
    return model


def same(source: Any, target: Any) -> None:
    """Both frameworks' own outputs on one input."""
    x = RNG.normal(size=(2, LONG, WIDTH)).astype("float32")
    here, there = source(x).numpy(), target(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("linear", [nn.Linear, Turned, ByHand])
@pytest.mark.parametrize("way", ["groups", "parts"])
def test_a_fused_layer_takes_what_the_other_model_has_apart(way: str, linear: Any) -> None:
    source, target = apart(), Fused(way, linear)
    report = lx.port(source, target)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert not report.alike
    same(source, target)
    back = apart()
    assert lx.port(target, back).end_to_end.agrees  # type: ignore[union-attr]
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("linear", [nn.Linear, Turned])
def test_other_commands_have_the_parts_too(linear: Any, tmp_path: Path) -> None:
    source, target = apart(), Fused("groups", linear)
    found = lx.match(source, target)
    assert found.complete
    assert {pair.target.name for pair in found.joint.pairs} > {"query", "key", "value", "gate", "up"}
    found.save(tmp_path / "map.yaml")
    lx.port(source, target, map=tmp_path / "map.yaml")
    same(source, target)
    for one, other in ((source, target), (target, source)):
        x = RNG.normal(size=(2, LONG, WIDTH)).astype("float32")
        seen_ = lx.validate(one, other, x)
        assert seen_.ok
        assert seen_.compared == 8
        assert not seen_.lost
    with torch.no_grad():
        target.qkv.bias[REP * SIZE if target.way == "groups" else 0] += 1.0
    wrong = [check.layer for check in lx.validate(source, target).checks if not check.ok]
    assert wrong == ["k"]
    lx.port(source, target, only=["k"])
    same(source, target)
    with pytest.raises(LayoutxError, match="nowhere"):
        lx.port(source, target, pairs={"q": "nowhere"})


def test_a_failed_port_leaves_a_fused_layer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = apart(), Fused("parts")
    target.mlp.forward = lambda x: -F.linear(x, target.mlp.weight)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(LayoutxError):
        lx.port(source, target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_file_holds_the_fused_layers(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source, target, out = apart(), Fused("groups"), tmp_path / "out.safetensors"
    source.save(tmp_path / "source.keras")
    lx.convert(tmp_path / "source.keras", out, to="torch", like=target)
    target.load_state_dict(load_file(out))
    same(source, target)
    assert lx.verify_file(out).ok


def test_what_is_fused_in_both_models_stays_one_layer() -> None:
    source, target = Fused("groups"), Fused("groups", ByHand)
    report = lx.port(source, target, RNG.normal(size=(2, LONG, WIDTH)).astype("float32"))
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert {"qkv", "mlp"} <= {line.name for line in report.layers}


class Rotated(nn.Module):
    """Queries and keys of which the first numbers of each head are turned, and one layer that only its halves leave."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.pair = nn.Linear(WIDTH, 3 * 2 * 8), nn.Linear(16, WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Any) -> Any:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 2, 24).transpose(1, 2).chunk(3, -1)
        angle = torch.arange(t)[:, None] / 3.0
        turned = []
        for one in (q, k):
            head, rest = one[..., :4], one[..., 4:]
            half = torch.cat((-head[..., 2:], head[..., :2]), -1)
            turned.append(torch.cat((head * angle.cos() + half * angle.sin(), rest), -1))
        y = F.scaled_dot_product_attention(*turned, v)
        low, high = self.pair(x).tensor_split(2, -1)
        return self.out(y.transpose(1, 2).flatten(2)), low, high.exp()


def test_outputs_that_are_computed_with_together_belong_together() -> None:
    """A part of a head that is turned and one that is not are one query; outputs of the model are read as well."""
    program = seen(Rotated(), [RNG.normal(size=(2, 5, WIDTH)).astype("float32")])
    assert program is not None
    found = dealt(program)
    assert found["qkv"] == (Share("query", 2, 0, 8), Share("key", 2, 8, 16), Share("value", 2, 16, 24))
    assert found["pair"] == (Share("0", 1, 0, 2), Share("1", 1, 2, 4))
    assert "out" not in found


@pytest.mark.parametrize(("shape", "axis"), [((30, 7), 0), ((7, 30), 1), ((30,), 0)])
def test_runs_of_rows_are_put_where_they_were(shape: tuple[int, ...], axis: int) -> None:
    array = RNG.normal(size=shape)
    parts = rows_of(tensor_of("w", array), axis, [(3, 0, 5), (3, 5, 7), (3, 7, 10)])
    rows = [r for g in range(3) for r in range(10 * g, 10 * g + 5)]
    np.testing.assert_array_equal(parts[0].read(), array.take(rows, axis))
    made = together({one.name: one.read() for one in parts}, {one.name: one.part for one in parts if one.part})
    np.testing.assert_array_equal(made["w"], array)
    some = {parts[1].name: np.zeros(parts[1].shape)}
    made = together(some, {one.name: one.part for one in parts if one.part})
    assert (made["w"].take([5, 6, 15, 16, 25, 26], axis) == 0).all()
    np.testing.assert_array_equal(made["w"].take(rows, axis), array.take(rows, axis))


GROUP = f"q {REP * SIZE}, k {SIZE}, v {SIZE}"


def test_of_a_file_the_user_says_which_rows_are_whose(tmp_path: Path) -> None:
    """A state dict has no program: the rows of one group after another, as often as they come."""
    from safetensors.torch import load_file, save_file

    source, file, out = Fused("groups"), tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file({name: value.clone() for name, value in source.state_dict().items()}, file, metadata={"format": "pt"})
    said = {"qkv.parts": GROUP, "mlp.parts": f"up {INNER}, gate {INNER}"}
    target = apart()
    lx.port(file, target, values=said)
    same(target, source)
    lx.convert(apart_file := saved(target, tmp_path), out, to="torch", like=file, values=said)
    assert load_file(out).keys() == source.state_dict().keys()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in load_file(out).items())
    assert apart_file.exists()
    turned = Fused("groups", Turned)
    lx.port(file, turned, RNG.normal(size=(2, LONG, WIDTH)).astype("float32"), compare=False, values=said)
    same(target, turned)


def test_a_file_alone_is_told_how_to_say_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "in.safetensors"
    save_file({name: value.clone() for name, value in Fused("groups").state_dict().items()}, file, {"format": "pt"})
    with pytest.raises(LayoutxError) as caught:
        lx.port(file, apart())
    assert "mlp.weight" in str(caught.value) or "qkv.weight" in str(caught.value)
    assert "it may be several layers in one" in str(caught.value)
    assert ".parts=NAME ROWS, NAME ROWS'" in str(caught.value)


def saved(model: Any, folder: Path) -> Path:
    model.save(folder / "apart.keras")
    return folder / "apart.keras"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"qkv.parts": "q 11, k 2"}, "qkv has 120 rows, which 13 do not divide"),
        ({"qkv.parts": "3"}, "qkv.parts does not name parts: '3'"),
        ({"qvk.parts": GROUP}, "names no layer of a model that has several in one: 'qvk'"),
    ],
)
def test_parts_that_cannot_be(said: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        lx.port(apart(), Fused("groups"), values=said)


def test_an_exported_program_tells_its_parts_too(tmp_path: Path) -> None:
    source, back = apart(), apart()
    x = torch.randn(2, LONG, WIDTH)
    program = torch.export.export(Fused("parts"), (x,))
    assert lx.port(source, program).end_to_end.agrees  # type: ignore[union-attr]
    same(source, program.module())
    torch.export.save(program, tmp_path / "fused.pt2")
    lx.port(tmp_path / "fused.pt2", back)
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_layer_with_a_forward_of_its_own_is_not_run_as_its_parts() -> None:
    """Else the copy would be right where the model is not."""
    module = Fused("parts")
    module.mlp.forward = lambda x: -F.linear(x, module.mlp.weight)
    shares = {"mlp": (Share("up", 1, 0, INNER), Share("gate", 1, INNER, 2 * INNER))}
    shares["qkv"] = (Share("0", 3, 0, 2 * SIZE), Share("1", 3, 2 * SIZE, 4 * SIZE))
    copy = with_parts(module, shares)
    assert type(copy.mlp) is nn.Linear
    assert {"qkv.0", "qkv.1"} <= {path for path, _ in copy.named_modules()}
    x = torch.randn(2, LONG, WIDTH)
    torch.testing.assert_close(copy(x), module(x))
    assert not hasattr(module, "gate")
