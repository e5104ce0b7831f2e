"""Outputs that one model alone gives, and what models make of padding: neither is a difference, and both are said."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import Problems, VerificationError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WORDS, WIDTH, LENGTH, GOAL = 23, 8, 9, 5


class Positions(L.Layer):
    def build(self, shape):
        self.positions = self.add_weight(name="positions", shape=(LENGTH, WIDTH), initializer="normal")

    def call(self, x):
        return x + self.positions[: ops.shape(x)[1]]


def source():
    """Each position's answer, with the mean of those that are not padding."""
    ids, mask = (keras.Input((LENGTH,), dtype="int64", name=name) for name in ("token_ids", "padding_mask"))
    x = Positions(name="position")(L.Embedding(WORDS, WIDTH, name="token")(ids))
    kept = ops.expand_dims(ops.cast(mask, "float32"), -1)
    mean = ops.sum(x * kept, 1, keepdims=True) / ops.sum(kept, 1, keepdims=True)
    model = keras.Model([ids, mask], L.Dense(GOAL, name="head")(x + mean))
    random = np.random.default_rng(3)
    model.set_weights([random.normal(0, 1, w.shape) for w in model.get_weights()])
    return model


class Target(nn.Module):
    """Counts the positions that are not padding; `late` is a mistake: all of them one too far."""

    def __init__(self, more=False, late=False, counts=True):
        super().__init__()
        self.token, self.position, self.head = (
            nn.Embedding(WORDS, WIDTH),
            nn.Embedding(LENGTH, WIDTH),
            nn.Linear(WIDTH, GOAL),
        )
        self.more, self.late, self.counts = more, late, counts

    def forward(self, token_ids, padding_mask):
        at = (padding_mask.cumsum(1) * padding_mask - 1).clamp(min=0) if self.counts else torch.arange(LENGTH)[None]
        x = self.token(token_ids) + self.position((at + self.late).clamp(max=LENGTH - 1))
        mean = (x * padding_mask[..., None]).sum(1) / padding_mask.sum(1, keepdim=True)
        made = self.head(x + mean[:, None])
        return (made, mean) if self.more else made


def first_line(report):
    return str(report).splitlines()[0]


def test_an_output_that_the_target_gives_besides_is_said():
    report = lx.port(source(), Target(more=True, counts=False).eval())
    assert report.end_to_end.agrees
    assert "the models compute the same (1 of 2 outputs: the other model has no more)" in first_line(report)


def test_positions_of_padding_may_differ_and_no_others():
    report = lx.port(source(), Target().eval())
    assert report.end_to_end.agrees
    assert "the models compute the same (where the masks are 1)" in first_line(report)
    with pytest.raises(VerificationError, match="do not compute the same"):
        lx.port(source(), Target(late=True).eval())


def test_models_that_agree_everywhere_say_no_such_thing():
    report = lx.port(source(), Target(counts=False).eval())
    assert report.end_to_end.agrees
    assert report.end_to_end.only == ""


def test_outputs_of_one_shape_are_not_chosen_between():
    class Twice(Target):
        def forward(self, token_ids, padding_mask):
            made = super().forward(token_ids, padding_mask)
            return made, made + 1

    with pytest.raises(VerificationError, match="1 outputs against 2"):
        lx.port(source(), Twice(counts=False).eval())


class Insists(nn.Module):
    """Its numbers and its order of definition contradict each other, and it runs on one length alone."""

    def __init__(self):
        super().__init__()
        self.layer5, self.layer1 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        if x.shape[1] != 30:
            raise ValueError(f"sounds have to be 30 steps long, not {x.shape[1]}")
        return self.layer1(self.layer5(x).tanh())


def test_what_a_model_insists_on_is_said_where_layers_are_ambiguous():
    x = keras.Input((None, WIDTH))
    model = keras.Model(x, L.Dense(WIDTH, name="d2")(L.Dense(WIDTH, activation="tanh", name="d1")(x)))
    with pytest.raises(Problems) as refused:
        lx.port(model, Insists().eval())
    assert "did not run on inputs made up for it: sounds have to be 30 steps long" in str(refused.value)
    assert "inputs=" in str(refused.value)
    sounds = np.random.default_rng(3).normal(size=(2, 30, WIDTH)).astype("float32")
    assert lx.port(model, Insists().eval(), inputs=sounds).end_to_end.agrees
