"""What decoders of today are made of, compared layer by layer: heads of an einsum, and norms computed in float32."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WORDS, WIDTH, HEADS, EACH = 23, 12, 3, 4


class Norm(L.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        y = ops.cast(x, "float32")
        y = y * ops.rsqrt(ops.mean(ops.square(y), -1, keepdims=True) + 1e-6)
        return ops.cast(y, x.dtype) * self.scale


class Mixed(L.Layer):
    def __init__(self, **more):
        super().__init__(**more)
        self.query, self.gate = (L.EinsumDense("abc,cde->abde", (None, HEADS, EACH), name=n) for n in ("query", "gate"))
        self.out, self.norm = L.EinsumDense("abde,dec->abc", (None, WIDTH), name="out"), Norm(name="norm")

    def call(self, x):
        y = self.norm(x)
        return x + self.out(self.query(y) * ops.sigmoid(self.gate(y)))


def source():
    ids = keras.Input((None,), dtype="int64")
    model = keras.Model(ids, Mixed(name="mixed")(L.Embedding(WORDS, WIDTH, name="token")(ids)))
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


class TorchNorm(nn.Module):
    def __init__(self, eps, width=WIDTH):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Target(nn.Module):
    def __init__(self, eps=1e-6):
        super().__init__()
        self.token, self.norm = nn.Embedding(WORDS, WIDTH), TorchNorm(eps)
        self.query, self.gate, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, ids):
        x = self.token(ids)
        y = self.norm(x)
        return x + self.out(self.query(y) * self.gate(y).sigmoid())


def test_heads_of_an_einsum_and_a_norm_in_float32_are_compared():
    here, there = source(), Target().eval()
    assert lx.port(here, there).end_to_end.agrees
    found = lx.validate(here, there)
    assert found.ok, str(found)
    assert {check.verdict for check in found.checks} == {"OK"}
    assert not any("axes" in check.note for check in found.checks)
    assert lx.validate(there, here).ok


def test_mistakes_in_them_are_found():
    here, there = source(), Target().eval()
    lx.port(here, there)
    there.norm.eps = 1e-5
    found = lx.validate(here, there)
    assert not found.ok
    assert found.first.layer == "mixed/norm"
    there.norm.eps = 1e-6
    with torch.no_grad():
        there.query.weight[[0, 1]] = there.query.weight[[1, 0]]
    found = lx.validate(here, there)
    assert not found.ok
    assert found.first.layer == "mixed/query"


class Turned(L.Layer):
    def call(self, x):
        return ops.flip(x, -1)


class Queries(L.Layer):
    """A norm for each head, between layers that are given four axes: no maps, in a model of tokens."""

    def __init__(self, **more):
        super().__init__(**more)
        self.query, self.out = L.EinsumDense("abc,cde->abde", (None, HEADS, EACH)), L.Dense(WIDTH, name="out")
        self.norm, self.turned = Norm(name="norm"), Turned()

    def call(self, x):
        return x + self.out(ops.reshape(self.turned(self.norm(self.query(x))), (-1, ops.shape(x)[1], WIDTH)))


class TorchQueries(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.query = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm, self.out = TorchNorm(1e-6, EACH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids):
        x = self.token(ids)
        return x + self.out(self.norm(self.query(x).unflatten(-1, (HEADS, EACH))).flip(-1).flatten(2))


def test_a_norm_of_each_head_is_none_of_a_flattened_map():
    ids = keras.Input((None,), dtype="int64")
    model = keras.Model(ids, Queries(name="queries")(L.Embedding(WORDS, WIDTH, name="token")(ids)))
    target = TorchQueries().eval()
    assert lx.port(model, target).end_to_end.agrees
    assert lx.validate(model, target).ok
