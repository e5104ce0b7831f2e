"""An encoder-decoder Transformer of one's own layers in Keras, and torch's nn.Transformer: two tables of positions."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WIDTH, INNER, HEADS, SOURCE, GOAL, LENGTH = 12, 20, 3, 31, 37, 9


class Tokens(L.Layer):
    """Tokens and positions, which are looked up at 0 to n whatever the tokens are."""

    def __init__(self, vocabulary, **more):
        super().__init__(**more)
        self.token_embeddings = L.Embedding(vocabulary, WIDTH)
        self.position_embeddings = L.Embedding(LENGTH, WIDTH)

    def call(self, inputs):
        positions = ops.arange(0, ops.shape(inputs)[-1], 1)
        return self.token_embeddings(inputs) + self.position_embeddings(positions)


def norm():
    return L.LayerNormalization(epsilon=1e-5)


def attention():
    return L.MultiHeadAttention(HEADS, WIDTH // HEADS)


class Encoder(L.Layer):
    def __init__(self, first, **more):
        super().__init__(**more)
        self.attention, self.first = attention(), first
        self.dense_proj = keras.Sequential([L.Dense(INNER, activation="relu"), L.Dense(WIDTH)])
        self.layernorm_1, self.layernorm_2 = norm(), norm()

    def call(self, inputs):
        if self.first:
            calm = self.layernorm_1(inputs)
            seen = inputs + self.attention(calm, calm)
            return seen + self.dense_proj(self.layernorm_2(seen))
        seen = self.layernorm_1(inputs + self.attention(query=inputs, value=inputs, key=inputs))
        return self.layernorm_2(seen + self.dense_proj(seen))


class Decoder(L.Layer):
    def __init__(self, first, **more):
        super().__init__(**more)
        self.attention_1, self.attention_2, self.first = attention(), attention(), first
        self.dense_proj = keras.Sequential([L.Dense(INNER, activation="relu"), L.Dense(WIDTH)])
        self.layernorm_1, self.layernorm_2, self.layernorm_3 = norm(), norm(), norm()

    def call(self, inputs):
        x, memory = inputs
        if self.first:
            calm = self.layernorm_1(x)
            x = x + self.attention_1(calm, calm, use_causal_mask=True)
            x = x + self.attention_2(self.layernorm_2(x), memory)
            return x + self.dense_proj(self.layernorm_3(x))
        x = self.layernorm_1(x + self.attention_1(query=x, value=x, key=x, use_causal_mask=True))
        x = self.layernorm_2(x + self.attention_2(query=x, value=memory, key=memory))
        return self.layernorm_3(x + self.dense_proj(x))


def translator(first, last_norms, length=None):
    """Two layers each; `last_norms` as nn.Transformer has them behind its encoder and its decoder."""
    source, goal = (keras.Input((length,), dtype="int64", name=name) for name in ("encoder_inputs", "decoder_inputs"))
    x = Tokens(SOURCE)(source)
    for _ in range(2):
        x = Encoder(first)(x)
    x = norm()(x) if last_norms else x
    y = Tokens(GOAL)(goal)
    for _ in range(2):
        y = Decoder(first)([y, x])
    y = norm()(y) if last_norms else y
    model = keras.Model([source, goal], L.Dense(GOAL)(L.Dropout(0.5)(y)))
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model


class Embedded(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(LENGTH, WIDTH)

    def forward(self, x):
        return self.tokens(x) + self.positions(torch.arange(x.shape[1]))


class Translator(nn.Module):
    def __init__(self, first, last_norms):
        super().__init__()
        self.source, self.goal, self.head = Embedded(SOURCE), Embedded(GOAL), nn.Linear(WIDTH, GOAL)
        said = {"dim_feedforward": INNER, "dropout": 0.0, "batch_first": True, "norm_first": first}
        self.whole = nn.Transformer(WIDTH, HEADS, 2, 2, **said) if last_norms else None
        own = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer) if not last_norms else ()
        self.layers = nn.ModuleList([nn.ModuleList([kind(WIDTH, HEADS, **said) for _ in range(2)]) for kind in own])

    def forward(self, source, goal):
        mask = nn.Transformer.generate_square_subsequent_mask(goal.shape[1])
        x, y = self.source(source), self.goal(goal)
        if self.whole is not None:
            return self.head(self.whole(x, y, tgt_mask=mask))
        for layer in self.layers[0]:
            x = layer(x)
        for layer in self.layers[1]:
            y = layer(y, x, tgt_mask=mask)
        return self.head(y)


@pytest.mark.parametrize("last_norms", [True, False], ids=["nn.Transformer", "its layers"])
@pytest.mark.parametrize("first", [False, True], ids=["norm after", "norm first"])
def test_an_encoder_decoder_goes_there_and_back(first, last_norms):
    source, target = translator(first, last_norms), Translator(first, last_norms).eval()
    assert lx.port(source, target).end_to_end.agrees
    tables = [layer.position_embeddings for layer in source.layers if isinstance(layer, Tokens)]
    np.testing.assert_array_equal(target.goal.positions.weight.detach().numpy(), tables[1].get_weights()[0])
    back = translator(first, last_norms)
    assert lx.port(target, back).end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_positions_of_a_fixed_length_are_told_apart_too():
    target = Translator(False, True).eval()
    assert lx.port(translator(False, True, LENGTH), target).end_to_end.agrees
