"""Masks that Keras hands on by itself (mask_zero): each layer alone gets its own, what they leave out is no fault."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

from torch import nn  # noqa: E402

from layoutx.port import port  # noqa: E402
from layoutx.validate import validate  # noqa: E402

IDS = np.array([[3, 4, 5, 6, 0, 0], [2, 0, 0, 0, 0, 0], [7, 6, 5, 4, 3, 2]])


def model(kind: str):
    rng = np.random.default_rng(5)
    layers = keras.layers
    given = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 6, mask_zero=True, name="emb")(given)
    if kind == "causal":
        x = layers.MultiHeadAttention(2, 3, name="att")(x, x, use_causal_mask=True)
    elif kind == "attention":
        x = layers.MultiHeadAttention(2, 3, name="att")(x, x)
    elif kind == "dot":
        x = layers.Attention(use_scale=True, name="att")([x, x])
    elif kind == "additive":
        x = layers.AdditiveAttention(name="att")([x, x])
    else:
        x = layers.TimeDistributed(layers.Dense(6), name="each")(x)
        x = layers.LSTM(5, return_sequences=True, name="att")(x)
    made = keras.Model(given, layers.Dense(3, name="out")(x))
    for variable in made.weights:
        if variable.dtype.startswith("float"):
            variable.assign(rng.normal(size=variable.shape) * 0.5)
    return made


class Net(nn.Module):
    def __init__(self, padding: bool = True, causal: bool = False):
        super().__init__()
        self.padding, self.causal = padding, causal
        self.emb, self.att, self.out = (
            nn.Embedding(11, 6),
            nn.MultiheadAttention(6, 2, batch_first=True),
            nn.Linear(6, 3),
        )

    def forward(self, tokens):
        x = self.emb(tokens.long())
        hidden = (tokens == 0) if self.padding else None
        later = torch.ones(6, 6, dtype=torch.bool).triu(1) if self.causal else None
        return self.out(self.att(x, x, x, key_padding_mask=hidden, attn_mask=later)[0])


def ported(kind: str, **how):
    source, target = model(kind), Net(**how).eval()
    port(source, target, IDS, compare=False, live=False)
    return source, target


def verdicts(found):
    return {check.layer: check.verdict for check in found.checks}


@pytest.mark.parametrize("kind", ["attention", "causal", "dot", "additive", "lstm"])
def test_a_keras_copy_is_the_same(kind):
    first, second = model(kind), model(kind)
    found = validate(first, second, IDS)
    assert found.ok, str(found)


@pytest.mark.parametrize("kind", ["attention", "causal", "dot", "lstm"])
def test_a_wrong_keras_copy_fails_in_its_own_layer(kind):
    first, second = model(kind), model(kind)
    variable = second.get_layer("att").weights[0]
    variable.assign(np.asarray(variable) + 0.3)
    found = validate(first, second, IDS)
    assert not found.ok
    assert {layer for layer, verdict in verdicts(found).items() if verdict != "OK"} == {"att"}


@pytest.mark.parametrize("kind", ["attention", "causal"])
def test_a_right_port_of_masked_attention(kind):
    found = validate(*ported(kind, causal=kind == "causal"), IDS)
    assert found.ok, str(found)
    assert "steps that the source's mask leaves out" in found.end_to_end[0].note


def test_a_port_that_forgot_the_mask():
    found = validate(*ported("attention", padding=False), IDS)
    assert not found.ok
    assert found.first.layer == "att"
    assert "key_padding_mask" in found.first.note


def test_a_port_with_wrong_weights_is_told_with_its_mask():
    source, target = ported("attention")
    with torch.no_grad():
        target.att.in_proj_weight[4, 2] += 0.5
    found = validate(source, target, IDS)
    assert verdicts(found) == {"emb": "OK", "att": "FAIL", "out": "OK"}


def test_a_fault_at_a_step_that_counts_is_none_of_the_mask():
    source, target = ported("attention")
    plain = target.forward
    shift = torch.zeros(3, 6, 3)
    shift[0, 3] = 0.5  # the last step of the first sample that counts
    target.forward = lambda tokens: plain(tokens) + shift.double()
    found = validate(source, target, IDS)
    assert not found.ok
