"""Plans and layers by hand, against what the frameworks' own definitions say."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx


def test_a_plan_from_names_of_forms() -> None:
    rng = np.random.default_rng(1)
    plan = lx.plan("keras.LSTM", "torch.LSTM", sizes={"input": 7, "hidden": 5})
    given = {
        "kernel": rng.normal(size=(7, 20)),
        "recurrent_kernel": rng.normal(size=(5, 20)),
        "bias": rng.normal(size=20),
    }
    found = plan(given)
    np.testing.assert_array_equal(found["weight_ih_l0"], given["kernel"].T)
    np.testing.assert_array_equal(found["bias_hh_l0"], np.zeros(20))
    back = plan.inverse()(found)
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)
    space: dict[str, object] = {}
    exec(plan.code(), space)
    np.testing.assert_array_equal(space["convert"](given)["weight_hh_l0"], found["weight_hh_l0"])  # type: ignore[operator]


def test_a_plan_with_refined_axes() -> None:
    sizes = {"h": 2, "w": 3, "c": 5, "output": 7}
    plan = lx.plan(
        "keras.Dense", "torch.Linear", sizes=sizes, refine={"input": "(h w c)"}, target_refine={"input": "(c h w)"}
    )
    kernel = np.arange(30 * 7.0).reshape(30, 7)
    expected = kernel.reshape(2, 3, 5, 7).transpose(3, 2, 0, 1).reshape(7, 30)
    np.testing.assert_array_equal(plan({"kernel": kernel, "bias": np.ones(7)})["weight"], expected)


def test_a_plan_between_kinds_is_refused() -> None:
    with pytest.raises(lx.ConversionError, match="compute different things"):
        lx.plan("keras.Dense", "torch.LSTM", sizes={"input": 3, "output": 2})


def test_a_misspelled_axis_is_refused() -> None:
    with pytest.raises(lx.UsageError, match="dense has no axis 'ouput'"):
        lx.plan("keras.Dense", "torch.Linear", sizes={"input": 3, "ouput": 2})


def test_the_size_of_an_axis_that_this_config_does_not_have_is_refused() -> None:
    """A projection is of torch's alone, and without proj_size there is none: its size would be passed over."""
    sizes = {"input": 3, "hidden": 5, "proj": 2}
    with pytest.raises(lx.UsageError, match=r"neither keras\.LSTM nor torch\.LSTM has an axis 'proj' with this config"):
        lx.plan("keras.LSTM", "torch.LSTM", sizes=sizes)
    with pytest.raises(lx.UsageError, match=r"an axis 'k' with this config(.|\n)*config \{'use_bias': False\}"):
        lx.plan("keras.Dense", "torch.Linear", sizes={"input": 3, "output": 2, "k": 4}, config={"use_bias": False})
    assert lx.plan("torch.LSTM", "paddle.LSTM", sizes=sizes, config={"proj_size": 2}).target.sizes["proj"] == 2


def test_conv1d_by_hand() -> None:
    rng = np.random.default_rng(2)
    kernel, bias, x = rng.normal(size=(3, 5, 7)), rng.normal(size=7), rng.normal(size=(2, 11, 5))
    windows = np.stack([x[:, i : i + 9] for i in range(3)], axis=2)
    expected = np.einsum("btki,kio->bto", windows, kernel) + bias
    found = lx.forward("keras.Conv1D", {"kernel": kernel, "bias": bias}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    weight, first = kernel.transpose(2, 1, 0), x.transpose(0, 2, 1)
    found = lx.forward("torch.Conv1d", {"weight": weight, "bias": bias}, first)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1), rtol=1e-12)


def test_dense_and_lstm_by_hand() -> None:
    rng = np.random.default_rng(4)
    kernel, x = rng.normal(size=(3, 2)), rng.normal(size=(5, 3))
    y = lx.forward("keras.Dense", {"kernel": kernel}, x, {"use_bias": False})
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
    shapes = {"weight_ih_l0": (20, 7), "weight_hh_l0": (20, 5), "bias_ih_l0": (20,), "bias_hh_l0": (20,)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    y = lx.forward("torch.LSTM", tensors, rng.normal(size=(3, 2, 7)))
    assert y.shape == (3, 2, 5)


def test_data_that_a_form_does_not_take() -> None:
    with pytest.raises(lx.UsageError, match=r"keras\.Dense has no data 'z'"):
        lx.forward("keras.Dense", {"kernel": np.ones((3, 2))}, {"z": np.ones((5, 3))}, {"use_bias": False})


def test_the_activation_is_what_a_layer_computes() -> None:
    rng = np.random.default_rng(5)
    kernel, bias, x = rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(7, 3))
    config = {"activation": "relu"}
    y = lx.forward("keras.Dense", {"kernel": kernel, "bias": bias}, x, config)
    assert (x @ kernel + bias < 0).any()
    np.testing.assert_allclose(y, np.maximum(x @ kernel + bias, 0.0), rtol=1e-12)
    strided = {**config, "strides": 2, "padding": "same"}
    y = lx.forward("keras.Conv1D", {"kernel": kernel[None], "bias": bias}, x[None], strided)
    np.testing.assert_allclose(y[0], np.maximum(x[::2] @ kernel + bias, 0.0), rtol=1e-12)


def lstm(rng: np.random.Generator, prefix: str = "") -> dict[str, np.ndarray]:
    """Weights of a keras LSTM, 3 -> 2."""
    shapes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
    return {prefix + name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_the_way_an_lstm_reads_is_what_it_computes() -> None:
    rng = np.random.default_rng(6)
    tensors, x = lstm(rng), rng.normal(size=(5, 7, 3))
    backward = lx.forward("keras.LSTM", tensors, x, {"go_backwards": True})
    np.testing.assert_array_equal(backward, lx.forward("keras.LSTM", tensors, x[:, ::-1]))
    plan = lx.plan("keras.LSTM", "onnx.LSTM", sizes={"input": 3, "hidden": 2})
    given = plan(tensors)
    reverse = lx.forward("onnx.LSTM", given, x.swapaxes(0, 1), {"direction": "reverse"})
    np.testing.assert_allclose(reverse[:, 0].swapaxes(0, 1), backward[:, ::-1], rtol=1e-12)


@pytest.mark.parametrize(("mode", "join"), [("sum", np.add), ("mul", np.multiply), ("ave", lambda a, b: (a + b) / 2)])
def test_merged_directions(mode: str, join) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(7)
    tensors, x = {**lstm(rng, "forward_layer/"), **lstm(rng, "backward_layer/")}, rng.normal(size=(5, 7, 3))
    both = lx.forward("keras.Bidirectional.LSTM", tensors, x)
    assert both.shape == (5, 7, 4)
    merged = lx.forward("keras.Bidirectional.LSTM", tensors, x, {"merge_mode": mode})
    np.testing.assert_allclose(merged, join(both[..., :2], both[..., 2:]), rtol=1e-12)


@pytest.mark.parametrize("value", [False, None, True])
def test_a_misspelt_config_key_is_refused_whatever_it_says(value: object) -> None:
    with pytest.raises(lx.BindError, match="no config use_bais") as error:
        lx.plan("keras.LSTM", "torch.LSTM", sizes={"input": 7, "hidden": 5}, config={"use_bais": value})
    assert "near it is use_bias" in str(error.value)
    with pytest.raises(lx.BindError, match="no config bais"):
        lx.forward("torch.Linear", {"weight": np.ones((2, 3))}, np.ones((1, 3)), {"bais": value})


def test_a_whole_config_may_have_keys_of_a_later_release() -> None:
    config = {"name": "a", "units": 5, "use_bias": False, "of_a_later_release": None}
    found = lx.plan("keras.Dense", "torch.Linear", sizes={"input": 7}, config=config)
    assert [tensor.name for tensor in found.target.tensors] == ["weight"]


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from layoutx import *", names)
    assert set(lx.__all__) <= set(names)
    assert set(lx.__all__) == set(dir(lx))
