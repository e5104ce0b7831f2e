"""Guessing a form: all that fit are given, with their reason; sizes that coincide decide nothing."""

from __future__ import annotations

from typing import Any

import pytest

from layoutx.spec import guess as guessing
from layoutx.spec.bound import BoundForm
from layoutx.spec.guess import Guess, guess
from layoutx.spec.registry import registry
from layoutx.spec.schema import Form, Kind


def _forms(found: list[Guess]) -> list[tuple[str, dict[str, Any]]]:
    return [(g.form.split(".", 1)[1], dict(g.config)) for g in found]


@pytest.mark.parametrize(
    ("shapes", "forms"),
    [
        ([(3, 3, 7, 11), (11,)], [("Conv2D", {})]),
        ([(3, 3, 7, 11), (7,)], [("Conv2DTranspose", {})]),
        ([(3, 3, 7, 7), (7,)], [("Conv2D", {}), ("Conv2DTranspose", {})]),
        ([(3, 5, 7, 2), (14,)], [("DepthwiseConv2D", {})]),
        ([(3, 7, 1), (7,)], [("DepthwiseConv1D", {}), ("Conv1DTranspose", {})]),
        ([(7, 20), (5, 20), (20,)], [("LSTM", {})]),
        ([(7, 15), (5, 15), (2, 15)], [("GRU", {})]),
        ([(7, 15), (5, 15), (15,)], [("GRU", {"reset_after": False})]),
        ([(7, 15), (5, 15)], [("GRU", {"use_bias": False}), ("GRU", {"use_bias": False, "reset_after": False})]),
        ([(7,)] * 4, [("BatchNormalization", {})]),
        ([(7,)] * 3, [("BatchNormalization", {"scale": False}), ("BatchNormalization", {"center": False})]),
        ([(7, 5), (5, 5), (5,)], [("SimpleRNN", {})]),
        ([(2, 3), (5, 7), (11, 13), (17,)], []),
    ],
)
def test_forms_by_position(shapes: list[tuple[int, ...]], forms: list[tuple[str, dict[str, Any]]]) -> None:
    found = _forms(guess(registry(), "keras", shapes))
    assert sorted(found, key=repr) == sorted(forms, key=repr)


def test_a_conv_without_bias_is_not_oriented() -> None:
    names = {g.form for g in guess(registry(), "keras", [(3, 3, 7, 7)])}
    assert {"keras.Conv2D", "keras.Conv2DTranspose", "keras.DepthwiseConv2D"} <= names


def test_names_decide_where_they_are_known() -> None:
    reg = registry()
    assert _forms(guess(reg, "keras", {"depthwise_kernel": (3, 5, 7, 2), "bias": (14,)})) == [
        ("DepthwiseConv2D", {"version": 2})
    ]
    assert _forms(guess(reg, "keras", {"embeddings": (11, 5)})) == [("Embedding", {}), ("ReversibleEmbedding", {})]
    assert _forms(guess(reg, "torch", {"weight_ih": (20, 7), "weight_hh": (20, 5)})) == [("LSTMCell", {"bias": False})]
    assert [g.form for g in guess(reg, "torch", {"weight": (5, 7)})] == [
        "torch.Linear",
        "torch.Embedding",
        "torch.EmbeddingBag",
    ]


def test_a_size_that_must_be_told_does_not_exclude() -> None:
    shapes = {"in_proj_weight": (30, 10), "in_proj_bias": (30,), "out_proj.weight": (10, 10), "out_proj.bias": (10,)}
    assert _forms(guess(registry(), "torch", shapes)) == [("MultiheadAttention", {})]
    wrong = {**shapes, "in_proj_weight": (31, 10)}
    assert guess(registry(), "torch", wrong) == []


def test_a_hint_narrows_and_is_the_reason() -> None:
    shapes = [(3, 3, 7, 7), (7,)]
    (found,) = guess(registry(), "keras", shapes, hint="model/conv2d_1")
    assert found.form == "keras.Conv2D"
    assert found.why == "the name 'model/conv2d_1'; kernel (3, 3, 7, 7), bias (7,) fit keras.Conv2D"
    assert len(guess(registry(), "keras", shapes, hint="stem")) == 2
    assert len(guess(registry(), "keras", shapes, hint="dense_3")) == 2  # a name that the shapes contradict


def test_what_is_known_of_the_config_counts() -> None:
    shapes = [(7, 15), (5, 15)]
    (found,) = guess(registry(), "keras", shapes, known={"reset_after": False, "version": 2})
    assert found.config == {"use_bias": False, "reset_after": False, "version": 2}


def test_optional_tensors_may_be_missing() -> None:
    found = guess(registry(), "onnx", [(10, 7, 3, 5)], hint="")
    assert ("onnx.Conv", ("W",)) in [(g.form, g.names) for g in found]


def test_a_projection_is_told_by_its_names_and_shapes() -> None:
    """proj_size is not 0 where weight_hr is there, and its size is that of the recurrent kernel's columns."""
    shapes = {"weight_ih_l0": (20, 7), "weight_hh_l0": (20, 3), "bias_ih_l0": (20,), "bias_hh_l0": (20,)}
    found = guess(registry(), "torch", {**shapes, "weight_hr_l0": (3, 5)})
    assert [(g.form, g.config) for g in found] == [("torch.LSTM", {"proj_size": 3})]
    assert guess(registry(), "torch", shapes) == []
    cell = {"kernel": (10, 24), "bias": (24,), "projection/kernel": (6, 4)}
    assert ("tf1.LSTMCell", {"num_proj": 4}) in [(g.form, g.config) for g in guess(registry(), "tf1", cell)]


def test_a_form_of_another_rank_is_not_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, bound = guessing.bind, set[str]()

    def noting(kind: Kind, form: Form, *given: Any, **more: Any) -> BoundForm:
        bound.add(form.name)
        return plain(kind, form, *given, **more)

    monkeypatch.setattr(guessing, "bind", noting)
    found = guess(registry(), "torch", {"weight": (17, 11, 3, 2), "bias": (17,)})
    assert [g.form for g in found] == ["torch.Conv2d"]
    assert "torch.Conv2d" in bound
    assert not {"torch.Conv1d", "torch.Conv3d", "torch.ConvTranspose1d", "torch.ConvTranspose3d"} & bound
