"""Calls by name: the same data from frameworks of other axis orders becomes the same arrays."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.spec.registry import registry
from layoutx.verify.compare.named import axis_words, named, native, roles_of
from layoutx.verify.compare.states import directions, stack_place
from layoutx.verify.recording import Call

KNOWN = registry()
RNG = np.random.default_rng(20261121)


def bound(form, config, sizes, **more):
    return KNOWN.bind(form, config, sizes=sizes, **more)


def call(inputs, outputs, names=()):
    return Call("x", "X", tuple(inputs), tuple(outputs), names)


def test_a_convolution_channels_first_and_last():
    sizes = {"group": 1, "in": 3, "out": 5, "kh": 2, "kw": 3}
    x, y = RNG.normal(size=(2, 7, 11, 3)), RNG.normal(size=(2, 6, 9, 5))
    first = tuple(np.moveaxis(a, -1, 1) for a in (x, y))
    here = named(bound("keras.Conv2D", {}, sizes), call([x], [y]))
    there = named(bound("torch.Conv2d", {}, sizes), call(first[:1], first[1:]))
    np.testing.assert_array_equal(here.inputs["x"], there.inputs["x"])
    np.testing.assert_array_equal(here.outputs["y"], there.outputs["y"])
    assert axis_words(bound("keras.Conv2D", {}, sizes), "y", y) == ("sample", "row", "column", "channel")


def test_square_maps_are_told_by_names_not_by_lengths():
    sizes = {"group": 1, "in": 4, "out": 4, "kh": 1, "kw": 1}
    x = RNG.normal(size=(4, 4, 4, 4))
    there = named(bound("torch.Conv2d", {}, sizes), call([x], [x]))
    np.testing.assert_array_equal(there.inputs["x"], np.moveaxis(x, 1, -1))
    assert not np.array_equal(there.inputs["x"], x)


def test_dense_over_time():
    dense = bound("torch.Linear", {}, {"input": 5, "output": 7})
    x, y = RNG.normal(size=(2, 3, 5)), RNG.normal(size=(2, 3, 7))
    found = named(dense, call([x], [y]))
    assert found.lead == (2, 3)
    assert found.inputs["x"].shape == (6, 5)
    np.testing.assert_array_equal(native(dense, "x", found.inputs["x"], found.lead), x)


def test_a_flattened_map():
    sizes = {"h": 2, "w": 3, "c": 5, "output": 7}
    keras = bound("keras.Dense", {}, sizes, refine={"input": "(h w c)"})
    torch = bound("torch.Linear", {}, sizes, refine={"input": "(c h w)"})
    x = RNG.normal(size=(4, 2, 3, 5))
    here = named(keras, call([x.reshape(4, -1)], []), {"input": "(h w c)"}, {"input": "(h w c)"})
    flat = np.moveaxis(x, -1, 1).reshape(4, -1)
    there = named(torch, call([flat], []), {"input": "(c h w)"}, {"input": "(h w c)"})
    np.testing.assert_array_equal(here.inputs["x"], there.inputs["x"])
    np.testing.assert_array_equal(
        native(torch, "x", here.inputs["x"], (4,), {"input": "(c h w)"}, {"input": "(h w c)"}), flat
    )


def lstm(form, config=None, input_=3):
    return bound(form, config or {}, {"input": input_, "hidden": 5})


def test_recurrent_outputs_by_framework():
    """Keras gives y, h, c with (batch, hidden) states; torch (direction, batch, hidden); a last step alone is h."""
    x, y = RNG.normal(size=(2, 7, 3)), RNG.normal(size=(2, 7, 5))
    h, c = y[:, -1], RNG.normal(size=(2, 5))
    keras = named(lstm("keras.LSTM"), call([x], [y, h, c])).outputs
    torch = named(lstm("torch.LSTM"), call([x.swapaxes(0, 1)], [y.swapaxes(0, 1), h[None], c[None]])).outputs
    first = named(lstm("torch.LSTM", {"batch_first": True}), call([x], [y, h[None], c[None]])).outputs
    last = named(lstm("keras.LSTM"), call([x], [h])).outputs
    for found in (torch, first):
        assert set(found) == {"y", "h", "c"}
        for name, array in found.items():
            np.testing.assert_array_equal(array, keras[name])
    np.testing.assert_array_equal(last["h"], keras["h"])
    assert "y" not in last


def test_two_directions():
    both = lstm("keras.Bidirectional.LSTM")
    assert directions(both) == ("forward", "backward")
    assert directions(lstm("torch.LSTM", {"bidirectional": True})) == ("forward", "backward")
    x, y = RNG.normal(size=(2, 7, 3)), RNG.normal(size=(2, 7, 10))
    end = np.concatenate([y[:, -1, :5], y[:, 0, 5:]], axis=1)
    whole = named(both, call([x], [y])).outputs
    last = named(both, call([x], [end])).outputs
    np.testing.assert_array_equal(whole["h"], last["h"])
    np.testing.assert_array_equal(whole["h"][1], y[:, 0, 5:])


def test_directions_that_are_added_stay_one():
    both = lstm("keras.Bidirectional.LSTM", {"merge_mode": "sum"})
    added = named(both, call([RNG.normal(size=(2, 7, 3))], [RNG.normal(size=(2, 7, 5))]))
    assert set(added.outputs) == {"merged"}


def test_one_layer_of_a_stack():
    upper = KNOWN.bind("torch.GRU", {"num_layers": 3}, sizes={"input": 5, "hidden": 5}, instance={"layer": 1})
    assert stack_place(upper) == (1, 3)
    h = RNG.normal(size=(3, 2, 5))
    found = named(upper, call([RNG.normal(size=(7, 2, 5))], [RNG.normal(size=(7, 2, 5)), h])).outputs
    np.testing.assert_array_equal(found["h"], h[1:2])
    assert "y" not in found, "the module shows the last layer's steps only"


def test_inputs_of_attention():
    query, key, value = (RNG.normal(size=(2, n, 6)) for n in (3, 5, 5))
    torch = Bare("torch.MultiheadAttention")
    assert roles_of(torch, call([query, key, value], [])) == ("query", "key", "value")
    assert roles_of(torch, call([query, value, key], [], ("", "value", "key"))) == ("query", "value", "key")
    assert roles_of(torch, call([query, query, key], [], ("", "", "attn_mask"))) == ("query", "key", "")


class Bare:
    """As much of a bound attention as the order of inputs needs."""

    def __init__(self, form):
        self.form, self.kind = KNOWN.form(form), KNOWN.kinds["attention"]


def test_keras_gives_attention_query_value_key():
    assert roles_of(Bare("keras.MultiHeadAttention"), call([1, 2, 3], [])) == ("query", "value", "key")


def test_arrays_of_other_axes_are_refused():
    conv = bound("torch.Conv2d", {}, {"group": 1, "in": 3, "out": 5, "kh": 2, "kw": 3})
    with pytest.raises(LayoutxError):
        named(conv, call([RNG.normal(size=(2, 4, 7, 7))], []))


def test_tokens_are_whole():
    table = bound("torch.Embedding", {}, {"vocab": 11, "dim": 5})
    found = named(table, call([np.array([[1.0, 3.0]])], [RNG.normal(size=(1, 2, 5))]))
    assert found.inputs["x"].dtype == np.int64
