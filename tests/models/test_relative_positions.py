"""Encoder-decoders of one's own layers: positions as a table of distances, masks made of lengths, caches of None."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import VerificationError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WIDTH, INNER, HEADS, WORDS, FAR, BANDS = 12, 20, 3, 31, 3, 5
EACH = WIDTH // HEADS


def tanh_gelu(x):
    return keras.activations.gelu(x, approximate=True)


class Norm(L.Layer):
    def build(self, shape):
        self.weight = self.add_weight(name="weight", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.weight * x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6)


class Attention(L.Layer):
    """Not scaled; keys have no bias; the first of a stack owns the table of distances, and hands its bias on."""

    def __init__(self, first=False, bias=False, **more):
        super().__init__(**more)
        self.query, self.value, self.output_projection = (L.Dense(WIDTH, use_bias=bias, name=n) for n in "qvo")
        self.key, self.first = L.Dense(WIDTH, use_bias=False, name="k"), first
        if first:
            self.table = self.add_weight(name="embeddings", shape=(2 * FAR + 1, HEADS), initializer="normal")

    def call(self, x, memory=None, later=None, bias=None, cache=None):
        def heads(y):
            return ops.reshape(y, (ops.shape(x)[0], -1, HEADS, EACH))

        memory = x if memory is None else memory
        scores = ops.einsum("bqnd,bknd->bnqk", heads(self.query(x)), heads(self.key(memory)))
        if bias is None and self.first:
            far = ops.arange(ops.shape(memory)[1])[None] - ops.arange(ops.shape(x)[1])[:, None]
            found = ops.take(self.table, ops.clip(far, -FAR, FAR) + FAR, axis=0)
            bias = ops.expand_dims(ops.transpose(found, (2, 0, 1)), 0)
        scores = scores if bias is None else scores + bias
        scores = scores if later is None else scores + (1.0 - ops.cast(later, "float32")) * -1e9
        seen = ops.einsum("bnqk,bknd->bqnd", ops.softmax(scores), heads(self.value(memory)))
        return self.output_projection(ops.reshape(seen, (ops.shape(x)[0], -1, WIDTH))), bias, cache


class Block(L.Layer):
    """One Dropout stands at four places."""

    def __init__(self, decoder, first, gated, norm=Norm, bias=False, **more):
        super().__init__(**more)
        self.attention, self.norm = Attention(first, bias), norm()
        self.crossing = (Attention(bias=bias), norm()) if decoder else ()
        self.last_norm, self.dropout, self.decoder = norm(), L.Dropout(0.1), decoder
        self.inner = L.Dense(INNER, use_bias=False, activation=tanh_gelu)
        self.gate = L.Dense(INNER, use_bias=False) if gated else None
        self.output_projection = L.Dense(WIDTH, use_bias=False, name="o")

    def call(self, x, memory=None, bias=None):
        later = None
        if self.decoder:
            steps = ops.arange(ops.shape(x)[1])
            later = steps[:, None] >= steps[None]
        y, bias, _ = self.attention(self.norm(x), later=later, bias=bias)
        x = x + self.dropout(y)
        if self.decoder:
            cross, norm = self.crossing
            x = x + self.dropout(cross(norm(x), memory)[0])
        calm = self.last_norm(x)
        y = self.inner(calm) * self.gate(calm) if self.gate else self.inner(calm)
        return x + self.dropout(self.output_projection(self.dropout(y))), bias


def scrambled(model):
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model


def of_distances(gated):
    """Tokens of one table for both, two blocks each, and a norm behind them."""
    source, goal = (keras.Input((None,), dtype="int64", name=name) for name in ("source", "goal"))
    words = L.Embedding(WORDS, WIDTH)
    x, y, bias = words(source), words(goal), None
    for i in range(2):
        x, bias = Block(False, not i, gated)(x, bias=bias)
    x, bias = Norm()(x), None
    for i in range(2):
        y, bias = Block(True, not i, gated)(y, memory=x, bias=bias)
    return scrambled(keras.Model([source, goal], Norm()(y)))


class TorchNorm(nn.Module):
    def __init__(self, epsilon):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(WIDTH)), epsilon

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class TorchAttention(nn.Module):
    def __init__(self, first=False, bias=False):
        super().__init__()
        self.k, self.q, self.v = (
            nn.Linear(WIDTH, WIDTH, False),
            nn.Linear(WIDTH, WIDTH, bias),
            nn.Linear(WIDTH, WIDTH, bias),
        )
        self.o, self.distance_bias = nn.Linear(WIDTH, WIDTH, bias), nn.Embedding(2 * FAR + 1, HEADS) if first else None

    def forward(self, x, memory, mask, bias):
        q, k, v = (
            layer(y).unflatten(-1, (HEADS, EACH)).transpose(1, 2)
            for layer, y in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        if self.distance_bias is not None:
            far = torch.arange(memory.shape[1])[None] - torch.arange(x.shape[1])[:, None]
            bias = self.distance_bias(far.clamp(-FAR, FAR) + FAR).permute(2, 0, 1)
        scores = q @ k.transpose(2, 3) + (0 if bias is None else bias)
        scores = scores if mask is None else scores.masked_fill(~mask, -1e9)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)), bias


class TorchBlock(nn.Module):
    def __init__(self, decoder, first, gated, norm, bias=False):
        super().__init__()
        self.layer_norm, self.attention = norm(), TorchAttention(first, bias)
        self.cross_norm, self.cross = (norm(), TorchAttention(bias=bias)) if decoder else (None, None)
        self.ff_norm, self.wi_0 = norm(), nn.Linear(WIDTH, INNER, False)
        self.wi_1 = nn.Linear(WIDTH, INNER, False) if gated else None
        self.wo, self.act = nn.Linear(INNER, WIDTH, False), nn.GELU(approximate="tanh")

    def forward(self, x, memory, bias):
        calm = self.layer_norm(x)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril() if self.cross is not None else None
        y, bias = self.attention(calm, calm, mask, bias)
        x = x + y
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), memory, None, None)[0]
        calm = self.ff_norm(x)
        y = self.act(self.wi_0(calm))
        return x + self.wo(y if self.wi_1 is None else y * self.wi_1(calm)), bias


class OfDistances(nn.Module):
    def __init__(self, gated, epsilon=1e-6):
        super().__init__()

        def norm():
            return TorchNorm(epsilon)

        self.shared = nn.Embedding(WORDS, WIDTH)
        self.encoder = nn.ModuleList([TorchBlock(False, not i, gated, norm) for i in range(2)])
        self.decoder = nn.ModuleList([TorchBlock(True, not i, gated, norm) for i in range(2)])
        self.encoder_norm, self.decoder_norm = norm(), norm()

    def forward(self, source, goal):
        x, y, bias = self.shared(source), self.shared(goal), None
        for block in self.encoder:
            x, bias = block(x, None, bias)
        x, bias = self.encoder_norm(x), None
        for block in self.decoder:
            y, bias = block(y, x, bias)
        return self.decoder_norm(y)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_tables_of_distances_go_there_and_back(gated):
    source, target = of_distances(gated), OfDistances(gated).eval()
    assert lx.port(source, target).end_to_end.agrees
    tables = [w.numpy() for w in source.weights if w.name == "embeddings" and w.shape[0] == 2 * FAR + 1]
    for table, stack in zip(tables, (target.encoder, target.decoder), strict=True):
        np.testing.assert_array_equal(stack[0].attention.distance_bias.weight.detach().numpy(), table)
    back = of_distances(gated)
    assert lx.port(target, back).end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_eps_of_a_norm_of_ones_own_is_found_by_running_it():
    with pytest.raises(VerificationError, match=r"eps=1e-06; the target has 0\.05"):
        lx.port(of_distances(False), OfDistances(False, 0.05).eval())


def speech():
    """Two convolutions and a block; a decoder of words, whose mask its call makes of lengths."""
    sound, goal = keras.Input((None, BANDS), name="sound"), keras.Input((None,), dtype="int64", name="goal")
    x = L.Conv1D(WIDTH, 3, padding="same", activation="relu")(sound)
    x = L.Conv1D(WIDTH, 3, strides=2, activation="relu")(L.ZeroPadding1D(1)(x))
    said = {"gated": False, "norm": lambda: L.LayerNormalization(epsilon=1e-5), "bias": True}
    x = L.LayerNormalization(epsilon=1e-5, name="after")(Block(False, True, **said)(x)[0])
    y = L.Embedding(WORDS, WIDTH)(goal)
    for _ in range(2):
        y = Block(True, True, **said)(y, memory=x)[0]
    return scrambled(keras.Model([sound, goal], L.LayerNormalization(epsilon=1e-5, name="last")(y)))


class Speech(nn.Module):
    def __init__(self):
        super().__init__()

        def norm():
            return nn.LayerNorm(WIDTH)

        self.conv1, self.conv2 = nn.Conv1d(BANDS, WIDTH, 3, padding=1), nn.Conv1d(WIDTH, WIDTH, 3, 2, padding=1)
        self.encoder, self.encoder_norm = TorchBlock(False, True, False, norm, True), norm()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.decoder = nn.ModuleList([TorchBlock(True, True, False, norm, True) for _ in range(2)])
        self.decoder_norm = norm()

    def forward(self, sound, goal):
        x = self.conv2(self.conv1(sound).relu()).relu().transpose(1, 2)
        x, y = self.encoder_norm(self.encoder(x, None, None)[0]), self.words(goal)
        for block in self.decoder:
            y = block(y, x, None)[0]
        return self.decoder_norm(y)


def test_a_decoder_whose_call_needs_lengths_is_followed_in_a_model_with_convolutions():
    source, target = speech(), Speech().eval()
    assert lx.port(source, target).end_to_end.agrees
    random = np.random.default_rng(5)
    sound, goal = random.normal(size=(2, 8, BANDS)).astype("float32"), random.integers(0, WORDS, (2, 5))
    with torch.no_grad():
        made = target(torch.tensor(sound).transpose(1, 2), torch.tensor(goal)).numpy()
    np.testing.assert_allclose(made, source.predict([sound, goal], verbose=0), atol=1e-5)
