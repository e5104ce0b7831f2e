"""What a layer is given in the target's own run: one position of many (CLIP's class token), and a mask beside it."""

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
from layoutx.verify.compare.places import in_both  # noqa: E402

STEPS, WIDTH, HEADS = 5, 6, 2
X = np.random.default_rng(3).normal(size=(3, STEPS, WIDTH)).astype("float32")


def source(at: int = 0):
    """Attention that looks back, a norm of every position, and what is read from one of them."""
    layers = keras.layers
    given = keras.Input((STEPS, WIDTH))
    x = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="att")(given, given, use_causal_mask=True)
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    made = keras.Model(given, layers.Dense(7, name="out")(x[:, at]))
    rng = np.random.default_rng(5)
    for variable in made.weights:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return made


class Attention(nn.Module):
    """Four projections in a class of one's own, as Hugging Face writes it."""

    def __init__(self, causal: bool):
        super().__init__()
        self.causal = causal
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            one(x).view(len(x), -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for one in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(found.transpose(1, 2).reshape(x.shape))


class Net(nn.Module):
    """The same, with the position taken before the norm."""

    def __init__(self, at: int = 0, causal: bool = True):
        super().__init__()
        self.at, self.self_attn = at, Attention(causal)
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 7)

    def forward(self, x):
        return self.out(self.norm(self.self_attn(x)[:, self.at]))


def compared(at: int = 0, **how):
    one, other = source(), Net(at, **how).eval()
    port(one, other, X, compare=False, live=False)
    return validate(one, other, X)


def test_a_norm_of_every_position_and_of_one_compute_the_same():
    found = compared()
    assert found.ok, str(found)
    assert {check.layer: check.verdict for check in found.checks}["norm"] == "OK"
    assert "a mask" in str(found)  # the attention was computed anew without the one that its model's call has


def test_another_position_is_no_agreement():
    found = compared(at=1)
    assert not found.ok
    assert "BETWEEN" in str(found)


def test_a_mask_that_is_missing_is_no_agreement():
    found = compared(causal=False)
    assert not found.ok


def test_of_two_arrays_the_longer_one_is_taken_where_the_shorter_one_is_the_same():
    whole = X.reshape(-1, WIDTH)
    for at in range(STEPS):
        for there, one in (((3,), X[:, at]), ((3, 1), X[:, at])):
            left, right = in_both(whole, one, (3, STEPS), there)
            assert np.array_equal(left, one)
            assert right is one
        right, left = in_both(X[:, at], whole, (3,), (3, STEPS))
        assert np.array_equal(left, X[:, at])
        assert right.shape == left.shape
    left, right = in_both(whole, X[:, 1] + 1, (3, STEPS), (3,))
    assert left is whole
    assert right.shape == (3, WIDTH)
