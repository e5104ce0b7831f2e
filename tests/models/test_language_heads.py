"""Language models as keras_hub and transformers write them: a table that is the head as well, masks, scaled tables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layoutx as lx
from layoutx.errors import VerificationError

L = keras.layers
VOCAB, WIDTH, HEADS, LONG = 31, 15, 3, 13
FACTOR = 3.5


@keras.saving.register_keras_serializable("language_heads")
class Positions(L.Layer):
    """Learned positions for every sample, as keras_hub's PositionEmbedding gives them."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(LONG, shape[-1]), name="table")

    def call(self, x: Any) -> Any:
        return keras.ops.broadcast_to(self.table[: keras.ops.shape(x)[1]], keras.ops.shape(x))


def backbone(cap: float | None = None) -> Any:
    ids, mask = (keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask"))
    tokens = L.ReversibleEmbedding(VOCAB, WIDTH, logit_soft_cap=cap, name="tokens")(ids) * FACTOR
    x = L.Add()([tokens, Positions(name="positions")(tokens)])
    seen = L.Reshape((1, -1))(mask)
    x = x + L.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attend")(x, x, attention_mask=seen)
    return keras.Model({"token_ids": ids, "padding_mask": mask}, L.LayerNormalization(epsilon=1e-5, name="norm")(x))


def language_model(cap: float | None = None) -> Any:
    """The backbone as one layer, and its own table once more behind it."""
    inner = backbone(cap)
    hidden = inner(inner.input)
    model = keras.Model(inner.input, inner.get_layer("tokens")(hidden, reverse=True))
    rng = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.4)
    return model


class Scaled(nn.Embedding):
    """Gemma's table: what it gives is multiplied in its own class."""

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, time) -> (batch, time, width)."""
        return super().forward(ids) * FACTOR


class Language(nn.Module):
    """The arguments of GPT-2's forward, DeBERTa's zeros at padding, BERT's positions of one sample."""

    def __init__(self, factor: float | None = None) -> None:
        super().__init__()
        self.tokens = Scaled(VOCAB, WIDTH) if factor is None else nn.Embedding(VOCAB, WIDTH)
        self.factor = factor or 1.0
        self.positions = nn.Embedding(LONG, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids: Tensor, past: Any = None, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, time) -> (batch, time, vocab)."""
        start = past.length() if past is not None else 0
        x = self.tokens(input_ids) * self.factor
        x = x + self.positions(torch.arange(start, start + input_ids.shape[1])[None])
        if attention_mask is not None:
            x = x * attention_mask[..., None].to(x.dtype)
        hidden = None if attention_mask is None else attention_mask == 0
        x = x + self.attend(x, x, x, key_padding_mask=hidden, need_weights=False)[0]
        return self.head(self.norm(x))


def test_a_language_model_whose_table_is_its_head() -> None:
    """One layer of the model and of the model in it is one record; it was ambiguous with itself."""
    model, module = language_model(), Language().eval()
    end = lx.port(model, module).end_to_end
    assert end.agrees is True
    np.testing.assert_array_equal(module.head.weight.detach(), model.layers[-1].embeddings)


def test_a_right_port_has_no_fault() -> None:
    """Padding, positions of one sample, a factor inside a class and arguments out of order are no differences."""
    model, module = language_model(), Language().eval()
    lx.port(model, module, compare=False)
    found = lx.validate(model, module)
    assert found.ok, str(found)
    assert all(check.verdict == "OK" for check in found.checks), str(found)
    assert "multiplies" in next(check.note for check in found.checks if check.layer.endswith("tokens"))


class Capped(Language):
    """Gemma 2's scores."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, input_ids: Tensor, past: Any = None, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, time) -> (batch, time, vocab)."""
        return self.cap * torch.tanh(super().forward(input_ids, past, attention_mask) / self.cap)


def test_scores_with_a_soft_cap() -> None:
    """Gemma 2 was refused for an option that moves no number: it is said, and another cap is a difference."""
    model, module = language_model(cap=3.0), Capped(3.0).eval()
    report = lx.port(model, module)
    assert report.end_to_end.agrees is True
    assert "logit_soft_cap=3.0" in str(report)
    with pytest.raises(VerificationError):
        lx.port(model, Capped(2.0).eval())


def test_there_and_back() -> None:
    model, module, other = language_model(), Language().eval(), language_model()
    for weight in other.weights:
        weight.assign(weight * 0.0 + 0.1)
    lx.port(model, module)
    assert lx.port(module, other).end_to_end.agrees is True
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["positions", "tokens", "attend.in_proj", "norm"])
def test_a_fault_is_found_all_the_same(name: str) -> None:
    model, module = language_model(), Language(FACTOR).eval()
    lx.port(model, module, compare=False)
    weight = dict(module.named_parameters()).get(f"{name}.weight", module.attend.in_proj_weight)
    with torch.no_grad():
        weight[1:3] = weight[1:3].flip(0)
    found = lx.validate(model, module)
    assert not found.ok
    assert [check.layer.rpartition("/")[2] for check in found.checks if not check.ok] == [name.split(".")[0]]


def test_a_factor_that_is_missing_is_a_difference() -> None:
    with pytest.raises(VerificationError):
        lx.port(language_model(), Language(1.0).eval())
