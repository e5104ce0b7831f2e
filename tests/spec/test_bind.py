"""Binding: sizes from every side must agree; what is conditional follows the config."""

from __future__ import annotations

import pytest

from layoutx.errors import BindError, LayoutxError, SizeError
from layoutx.lang.show import show_dims
from layoutx.spec.registry import registry
from layoutx.spec.sizing import UndeterminedError


def test_spatial_axes_are_counted_from_the_sizes_that_are_given() -> None:
    sizes = {"kh": 3, "kw": 5, "group": 1, "in": 7, "out": 11}
    assert registry().bind("onnx.Conv", {}, sizes=sizes).tensors[0].shape == (11, 7, 3, 5)


def test_a_pinned_axis_of_another_size_is_refused() -> None:
    sizes = {"kv": 2, "rep": 3, "head": 5, "embed_q": 7, "embed_k": 7, "embed_v": 7, "out": 11, "value": 5}
    with pytest.raises(SizeError, match="rep is 3, not 1") as caught:
        registry().bind("keras.MultiHeadAttention", {}, sizes=sizes)
    assert "keras.MultiHeadAttention has rep=1 only" in str(caught.value)


def test_minus_one_group_means_one_a_channel() -> None:
    bound = registry().bind("keras.GroupNormalization", {"groups": -1}, shapes={"gamma": (7,), "beta": (7,)})
    assert (bound.sizes["group"], bound.sizes["channel"]) == (7, 1)


def test_data_order_follows_the_config() -> None:
    sizes = {"hidden": 5, "input": 7}
    first = registry().bind("torch.LSTM", {"batch_first": True}, sizes=sizes)
    assert show_dims(first.data["x"]) == "batch time input"
    assert show_dims(registry().bind("torch.LSTM", {}, sizes=sizes).data["x"]) == "time batch input"


def test_settings_follow_the_config() -> None:
    sizes = {"kh": 3, "kw": 5, "group": 1, "in": 7, "out": 11}
    same = registry().bind("onnx.Conv", {"auto_pad": "SAME_UPPER"}, sizes=sizes)
    assert same.settings["padding"] == "same"
    assert registry().bind("onnx.Conv", {"pads": [1, 2, 3, 4]}, sizes=sizes).settings["padding"] == [1, 2, 3, 4]


def test_statistics_of_the_batch_are_a_fact() -> None:
    bound = registry().bind("torch.BatchNorm1d", {"track_running_stats": False}, sizes={"channel": 7})
    assert bound.facts["statistics"] == "batch"
    assert [t.name for t in bound.tensors] == ["weight", "bias"]


def test_a_missing_tensor_and_an_unknown_one_are_named() -> None:
    with pytest.raises(BindError) as caught:
        registry().bind("keras.Dense", {}, shapes={"kernel": (7, 5), "alpha": (5,)})
    assert "missing: bias" in str(caught.value)
    assert "not in this form: alpha" in str(caught.value)


def test_sizes_that_contradict_each_other_are_shown_together() -> None:
    with pytest.raises(LayoutxError) as caught:
        registry().bind(
            "keras.LSTM", {"units": 6}, shapes={"kernel": (7, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
        )
    assert "(gate[i f g o] hidden) is 24, not 20" in str(caught.value)
    assert "hidden=6 (units=6)" in str(caught.value)


def test_an_axis_that_nothing_determines() -> None:
    with pytest.raises(UndeterminedError, match="nothing determines the size of input"):
        registry().bind("keras.LSTM", {"units": 5})


def test_keras_2_without_reset_after_is_older_than_the_option() -> None:
    sizes = {"hidden": 5, "input": 7}
    assert registry().bind("keras.GRU", {"version": 2}, sizes=sizes).facts["reset"] == "before"
    assert registry().bind("keras.GRU", {"version": 2, "reset_after": True}, sizes=sizes).facts["reset"] == "after"
    assert registry().bind("keras.GRU", {}, sizes=sizes).facts["reset"] == "after"


def test_keras_1_lstm_keeps_the_order_of_its_files() -> None:
    bound = registry().bind("keras1.LSTM", {"output_dim": 5, "input_dim": 7})
    assert [t.name for t in bound.tensors] == [f"{w}_{g}" for g in "icfo" for w in ("W", "U", "b")]
    assert bound.facts["gate_activation"] == "hard_sigmoid_0.2"
    both = registry().bind("keras1.Bidirectional.LSTM", {"output_dim": 5, "input_dim": 7, "consume_less": "gpu"})
    assert [t.name for t in both.tensors] == [f"{d}_layer/{w}" for d in ("forward", "backward") for w in "WUb"]


def test_theano_kernels_are_back_to_front() -> None:
    shapes = {"W": (11, 7, 3, 5), "b": (11,)}
    bound = registry().bind("keras1.Convolution2D", {"dim_ordering": "th", "backend": "theano"}, shapes=shapes)
    block = bound.tensor("W").blocks[0]
    assert (block.strides["kh"], block.strides["kw"], block.offset) == (-5, -1, 14)


def test_a_size_that_a_form_gives_two_axes_must_be_the_same() -> None:
    sizes = {"kv": 2, "rep": 3, "head": 5, "value": 7, "embed_q": 7, "embed_k": 7, "embed_v": 7, "out": 7}
    with pytest.raises(SizeError, match="head is 5, not 7") as caught:
        registry().bind("keras.GroupQueryAttention", {}, sizes=sizes)
    assert "keras.GroupQueryAttention gives value the size of head" in str(caught.value)


def test_a_one_before_the_spatial_axes_is_one_dimension() -> None:
    """`1 ...` is a one and then the spatial axes; `1...` is a one for each of them."""
    shapes = {"depthwise.weight": (14, 1, 3, 5), "pointwise.weight": (11, 14, 1, 1), "pointwise.bias": (11,)}
    bound = registry().bind("torch.SeparableConv2d", {"in_channels": 7}, shapes=shapes)
    assert (bound.sizes["kh"], bound.sizes["kw"]) == (3, 5)
