"""Torch classes of the user's own: what they do with their weights is found by running them, not told by names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, VerificationError
from layoutx.model.load import live_model
from layoutx.spec.registry import registry

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L, F = torch.nn, keras.layers, torch.nn.functional
WIDTH, HEADS, LONG = 12, 3, 5
RNG = np.random.default_rng(20261122)


class Turned(nn.Module):
    """x @ weight + bias, as GPT-2's Conv1D; `nn.Linear` in all but the side from which it multiplies."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(into, out) * 0.3), nn.Parameter(torch.randn(out))

    def forward(self, x: Any) -> Any:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


class Packed(nn.Module):
    """Attention with one layer for queries, keys and values; `way` says how its numbers are read."""

    def __init__(self, way: str = "kinds", linear: Any = nn.Linear, heads: int = HEADS, causal: bool = True) -> None:
        super().__init__()
        self.way, self.heads, self.causal = way, heads, causal
        self.qkv, self.proj = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        if way == "mask":
            self.register_buffer("mask", torch.tril(torch.ones(LONG, LONG)))

    def forward(self, x: Any, mask: Any) -> Any:
        made = self.qkv(x)
        if self.way == "heads":
            q, k, v = made.unflatten(-1, (self.heads, 3, -1)).unbind(-2)
        else:
            q, k, v = made.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (one.transpose(1, 2) for one in ((k, q, v) if self.way == "keys first" else (q, k, v)))
        if self.way == "turned by place":
            q, k = (one * torch.cos(torch.arange(x.shape[1]))[:, None] for one in (q, k))
        size = 1.0 if self.way == "unscaled" else q.shape[-1] ** 0.5
        scores = q @ k.transpose(-1, -2) / size
        if self.causal:
            scores = scores.masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -torch.inf)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """Two attentions, a norm and a head, which may lie the other way round too."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Packed(**more), Packed(**more)])
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-3), more.get("linear", nn.Linear)(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = x + block(x, None)
        return self.head(self.norm(x))


def decoder() -> Any:
    x = start = keras.Input((LONG, WIDTH))
    for n in range(2):
        x = x + L.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attend_{n}")(x, x, use_causal_mask=True)
    return filled(keras.Model(start, L.Dense(WIDTH, name="head")(L.LayerNormalization(name="norm")(x))))


def filled(model: Any) -> Any:
    model.set_weights([RNG.normal(size=w.shape) * 0.3 for w in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "more", [{}, {"linear": Turned}, {"way": "heads"}, {"way": "heads", "linear": Turned}, {"way": "mask"}], ids=str
)
def test_packed_attention_is_one_layer_both_ways(more: dict[str, Any]) -> None:
    source, target, back = decoder(), Decoder(**more), decoder()
    report = lx.port(source, target)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    forms = {line.name: line.plan.target.form.name for line in report.layers if line.plan is not None}
    assert forms["attend_0"] == forms["attend_1"] == "torch.PackedAttention"
    assert forms["head"] == ("torch.TransposedLinear" if "linear" in more else "torch.Linear")
    again = lx.port(target, back)
    assert again.end_to_end is not None
    assert again.end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lx.match(source, target).complete


def test_what_attends_otherwise_is_no_place_for_attention() -> None:
    """Without a comparison of outputs too: nothing but a run of the class tells these apart."""
    for way in ("keys first", "turned by place", "unscaled"):
        with pytest.raises(LayoutxError):
            lx.port(decoder(), Decoder(way=way), compare=False)
    with pytest.raises(LayoutxError, match=r"kv is 3 in keras\.MultiHeadAttention and 4 in torch\.PackedAttention"):
        lx.port(decoder(), Decoder(heads=4), compare=False)
    with pytest.raises(VerificationError, match="do not compute the same"):
        lx.port(decoder(), Decoder(causal=False))


class Apart(nn.Module):
    """Four layers of one attention."""

    def __init__(self) -> None:
        super().__init__()
        for name in "qkvo":
            setattr(self, f"{name}_proj", nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Any, mask: Any) -> Any:
        q, k, v = (getattr(self, f"{n}_proj")(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for n in "qkv")
        return self.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class OfTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Any, mask: Any) -> Any:
        later = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.attend(x, x, x, attn_mask=later, need_weights=False)[0]


@pytest.mark.parametrize("kind", [Apart, OfTorch])
def test_between_torch_modules_too(kind: Any) -> None:
    x = RNG.normal(size=(2, LONG, WIDTH)).astype("float32")
    for way in ("kinds", "heads"):
        packed, other = Decoder(way=way), Decoder()
        other.blocks = nn.ModuleList([kind(), kind()])
        assert lx.port(packed, other, x).end_to_end.agrees
        assert lx.port(other, Decoder(way=way, linear=Turned), x).end_to_end.agrees


def test_a_square_weight_that_lies_the_other_way_round() -> None:
    """Its shape is that of a Linear; without a comparison of outputs the numbers are right all the same."""
    x = keras.Input((7,))
    source = filled(keras.Model(x, L.Dense(7, name="b")(L.Dense(7, activation="relu", name="a")(x))))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Turned(7, 7), nn.Linear(7, 7)

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x).relu())

    for compare in (True, False):
        target = Two()
        lx.port(source, target, compare=compare)
        np.testing.assert_array_equal(target.a.weight.detach().numpy(), source.get_layer("a").get_weights()[0])
        np.testing.assert_array_equal(target.b.weight.detach().numpy(), source.get_layer("b").get_weights()[0].T)


class Shifted(nn.Module):
    """Scales by one plus its weight, where `one` is 1."""

    def __init__(self, size: int, one: int = 1) -> None:
        super().__init__()
        self.weight, self.eps, self.one = nn.Parameter(torch.randn(size) * 0.2), 1e-6, one

    def forward(self, x: Any) -> Any:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (self.one + self.weight.float())


class KerasShifted(L.Layer):
    """The same in Keras, under a name that Keras has for another function."""

    def __init__(self, one: int = 1, **more: Any) -> None:
        super().__init__(**more)
        self.one = one

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))

    def call(self, x: Any) -> Any:
        return x / keras.ops.sqrt(keras.ops.mean(x * x, axis=-1, keepdims=True) + 1e-6) * (self.scale + self.one)


def normed(norm: Any) -> Any:
    x = keras.Input((LONG, 7))
    return filled(keras.Model(x, L.Dense(7, name="head")(norm(x))))


class Normed(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.head = norm, nn.Linear(7, 7)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(x))


def test_a_scale_of_one_plus_the_weight() -> None:
    source, target, back = normed(KerasShifted(name="norm")), Normed(Shifted(7)), normed(KerasShifted(name="norm"))
    assert lx.port(source, target).end_to_end.agrees
    assert lx.port(target, back).end_to_end.agrees
    np.testing.assert_array_equal(source.get_weights()[0], target.norm.weight.detach().numpy())
    np.testing.assert_array_equal(source.get_weights()[0], back.get_weights()[0])
    assert lx.port(normed(KerasShifted(0, name="norm")), Normed(Shifted(7, 0))).end_to_end.agrees  # a plain one
    plain = normed(L.RMSNormalization(name="norm"))
    with pytest.raises(LayoutxError, match="rounds"):  # one less is another number
        lx.port(plain, Normed(Shifted(7)), compare=False)
    other = Normed(Shifted(7))
    assert lx.port(plain, other, allow=["rounds"]).end_to_end.agrees
    np.testing.assert_allclose(other.norm.weight.detach().numpy(), plain.get_weights()[0] - 1, atol=1e-7)


class Cached(L.MultiHeadAttention):
    """Keras' own attention with a cache among its arguments, unknown to its shapes; `sharp`: other scores."""

    def __init__(self, *args: Any, sharp: float = 1.0, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sharp = sharp

    def call(self, query: Any, value: Any, key: Any = None, attention_mask: Any = None, cache: Any = None) -> Any:
        q = self._query_dense(query) * self.sharp
        k, v = self._key_dense(value if key is None else key), self._value_dense(value)
        mixed, _ = self._compute_attention(query=q, key=k, value=v, attention_mask=attention_mask)
        return self._output_dense(mixed)


class Layer(L.Layer):
    """A block as decoders have it: a mask of its own, and the norm before the attention."""

    def __init__(self, sharp: float = 1.0, **more: Any) -> None:
        super().__init__(**more)
        self.norm = L.LayerNormalization(name="norm")
        self.attend = Cached(HEADS, WIDTH // HEADS, sharp=sharp, name="attend")

    def build(self, shape: Any) -> None:
        self.norm.build(shape)
        self.attend.build(shape, shape)

    def call(self, x: Any) -> Any:
        steps = keras.ops.arange(keras.ops.shape(x)[1])
        y = self.norm(x)
        return x + self.attend(query=y, value=y, attention_mask=(steps[:, None] >= steps)[None], cache=None)


class Blocks(nn.Module):
    """The same twice over a packed attention, the first defined last."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH, eps=1e-3), nn.LayerNorm(WIDTH, eps=1e-3)])
        self.second, self.first = Packed(linear=Turned), Packed(linear=Turned)

    def forward(self, x: Any) -> Any:
        x = x + self.first(self.norms[1](x), None)
        return x + self.second(self.norms[0](x), None)


@pytest.mark.parametrize("sharp", [1.0, 3.0])
def test_a_subclass_of_keras_attention_is_one_where_it_computes_the_same(sharp: float) -> None:
    x = keras.Input((None, WIDTH))
    source = filled(keras.Model(x, Layer(sharp, name="b")(Layer(sharp, name="a")(x))))
    records = {record.name: record.form for record in live_model(source, registry()).layers if record.tensors}
    if sharp == 1.0:
        assert records["a/attend"] == "keras.MultiHeadAttention"
        data = RNG.normal(size=(2, LONG, WIDTH)).astype("float32")
        assert lx.port(source, Blocks(), data).end_to_end.agrees
        pairs = {pair.source.name: pair.target.name for pair in lx.match(source, Blocks()).joint.pairs}
        assert pairs["a/attend"] == "first"
        assert pairs["b/attend"] == "second"
    else:
        assert "a/attend" not in records
        assert records["a/attend/query"] == "keras.EinsumDense"


def test_a_class_is_run_as_its_options_say() -> None:
    """One class, two functions: what was seen of one instance counts for those that are made alike."""

    class Either(nn.Module):
        def __init__(self, turned: bool) -> None:
            super().__init__()
            self.weight, self.turned = nn.Parameter(torch.randn(6, 6)), turned

        def forward(self, x: Any) -> Any:
            return x @ (self.weight if self.turned else self.weight.T)

    model = nn.ModuleDict(
        {"a": Either(True), "b": Either(False), "c": Either(True), "d": Shifted(5), "e": Shifted(5, 0)}
    )
    modules = live_model(model, registry()).modules
    turned, shifted = "torch.TransposedLinear", "torch.ShiftedRMSNorm"
    assert [modules[name].form for name in "abcde"] == [turned, "", turned, shifted, "torch.RMSNorm"]


def test_blocks_that_share_their_weights_and_weights_in_parts() -> None:
    class Shared(Decoder):
        def __init__(self, whole: bool) -> None:
            super().__init__()
            if whole:
                self.blocks[1] = self.blocks[0]
            else:
                self.blocks[1].qkv.weight = self.blocks[0].qkv.weight

    x = RNG.normal(size=(2, LONG, WIDTH)).astype("float32")
    for whole in (True, False):
        source, target = Shared(whole), Shared(whole)
        assert lx.port(source, target, x).end_to_end.agrees
    parted = Decoder()
    torch.nn.utils.parametrizations.weight_norm(parted.blocks[0].qkv)
    modules = live_model(parted, registry()).modules
    assert [modules[f"blocks.{n}"].form for n in (0, 1)] == ["", "torch.PackedAttention"]
    with pytest.raises(LayoutxError):
        lx.port(decoder(), parted)


def test_the_other_commands_take_them_too() -> None:
    source, target = decoder(), Decoder(way="mask", linear=Turned)
    lx.port(source, target)
    assert lx.validate(source, target).ok
    assert lx.validate(target, source).ok
    assert "PackedAttention" in str(lx.inspect(target))


def test_nothing_of_the_model_changes_when_it_is_looked_at() -> None:
    class Counting(Turned):
        def forward(self, x: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x)

    model = Decoder(linear=Counting)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert [m.form for m in live_model(model, registry()).modules.values()].count("torch.PackedAttention") == 2
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not any(hasattr(one, "calls") for one in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.device("meta"):
        empty = Decoder(linear=Turned)
    assert [m.form for m in live_model(empty, registry()).modules.values()].count("torch.PackedAttention") == 2
