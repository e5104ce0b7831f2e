"""What the report says about padding is what makes the two real layers agree."""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.model.differing import differing, together
from layoutx.model.settings import carry
from layoutx.plan.run import run
from layoutx.spec.bound import BoundForm
from layoutx.verify import live

SIZES = {"kh": 2, "kw": 3, "in": 5, "out": 7, "group": 1}


def said(source: str, target: str, config: dict[str, Any]) -> list[str]:
    found = lx.plan(source, target, sizes=SIZES, config=config)
    return carry(found.source, found.target)


@pytest.mark.parametrize("framework", ["torch.ConvTranspose2d", "onnx.ConvTranspose", "paddle.Conv2DTranspose"])
def test_a_stride_longer_than_the_kernel_needs_output_padding(framework: str) -> None:
    lines = said("keras.Conv2DTranspose", framework, {"strides": 5})
    assert lines[1].startswith("output_padding=(3, 2): ")
    assert said("keras.Conv2DTranspose", framework, {"strides": 2})[1:] == []


def test_output_padding_is_what_keras_and_torch_agree_with() -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 4, 5))
    for strides in (5, 2):
        config = {"filters": 7, "kernel_size": (2, 3), "strides": strides}
        layer = keras.layers.Conv2DTranspose(**config, dtype="float64")
        y = np.asarray(layer(x))
        plan = lx.plan("keras.Conv2DTranspose", "torch.ConvTranspose2d", sizes=SIZES, config={"strides": strides})
        weights = {"kernel": np.asarray(layer.kernel), "bias": rng.normal(size=7)}
        layer.bias.assign(weights["bias"])
        y = np.asarray(layer(x))
        extra = (
            (3, 2) if any(line.startswith("output_padding=(3, 2)") for line in carry(plan.source, plan.target)) else 0
        )
        twin = torch.nn.ConvTranspose2d(5, 7, (2, 3), strides, output_padding=extra, dtype=torch.float64)
        moved = run(plan, weights).tensors
        twin.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in moved.items()})
        found = twin(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
        np.testing.assert_allclose(np.moveaxis(found, 1, -1), y, atol=1e-12)


def test_and_back() -> None:
    """Keras with output_padding=0 has the positions that torch has."""
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    assert "output_padding=0: else Conv2DTranspose appends (3, 2)" in said(
        "torch.ConvTranspose2d", "keras.Conv2DTranspose", {"stride": 5}
    )
    layer = keras.layers.Conv2DTranspose(7, (2, 3), strides=5, output_padding=0)
    plain = keras.layers.Conv2DTranspose(7, (2, 3), strides=5)
    twin = torch.nn.ConvTranspose2d(5, 7, (2, 3), 5)
    x = np.ones((1, 3, 4, 5), np.float32)
    shape = tuple(twin(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).shape)[2:]
    assert tuple(layer(x).shape)[1:3] == shape == (12, 18)
    assert tuple(plain(x).shape)[1:3] == (15, 20)


@pytest.mark.parametrize("target", ["haiku.Conv2D", "flax.Conv", "nnx.Conv"])
def test_no_padding_is_said_where_same_is_the_default(target: str) -> None:
    framework = target.partition(".")[0]
    assert said("keras.Conv2D", target, {}) == [f'padding="VALID"; {framework}\'s default is "SAME"']
    assert said("torch.Conv2d", target, {"padding": 0}) == [f'padding="VALID"; {framework}\'s default is "SAME"']
    assert said("keras.Conv2D", target, {"padding": "same"}) == []


def test_options_that_the_class_does_not_have_are_said() -> None:
    lines = said("keras.Conv2DTranspose", "haiku.Conv2DTranspose", {"dilation_rate": 2})
    assert lines[0] == "dilation_rate=2: distance between kernel positions; Conv2DTranspose has no such option"
    lines = said("torch.ConvTranspose2d", "haiku.Conv2DTranspose", {"stride": 2, "output_padding": 1, "padding": 1})
    assert any(line.startswith("output_padding=1: ") and line.endswith("has no such option") for line in lines)
    lines = said("torch.Conv2d", "keras.Conv2D", {"padding": (1, 2)})
    assert lines == ["padding=(1, 2): Conv2D takes no numbers, pad the input by them before it"]


def test_same_padding_in_the_words_of_each_target() -> None:
    config = {"padding": "same", "strides": 2}
    assert said("keras.Conv2D", "onnx.Conv", config)[1] == 'auto_pad="SAME_UPPER"'
    assert said("keras.Conv2D", "equinox.Conv2d", config)[1] == 'padding="SAME"; equinox\'s default is 0'
    torch = said("keras.Conv2D", "torch.Conv2d", config)[1]
    assert torch.startswith('padding="same" at stride 2 pads (0, 0) (0, 1) ')
    assert "use F.pad before it" in torch
    assert "F.pad" not in said("keras.Conv2D", "mlx.Conv2d", config)[1]


@pytest.mark.parametrize("extra", [None, 0, 1])
@pytest.mark.parametrize("strides", [(2, 3), (3, 2), (1, 1), (2, 2), (5, 4)])
@pytest.mark.parametrize("framework", ["onnx", "torch"])
def test_same_of_a_transposed_convolution_is_told_in_numbers(
    framework: str, strides: tuple[int, int], extra: Any
) -> None:
    """Also where a stride is longer than the kernel: there auto_pad of ONNX means another length."""
    keras = pytest.importorskip("keras")
    pytest.importorskip(framework)
    form = {"onnx": "onnx.ConvTranspose", "torch": "torch.ConvTranspose2d"}[framework]
    if extra is not None and extra >= min(strides):
        pytest.skip("Keras wants output_padding below the strides")
    rng = np.random.default_rng(3)
    size = (2, 3) if extra is None else (3, 5)  # TensorFlow refuses output_padding with an even kernel
    x, kernel = rng.normal(size=(2, 4, 5, 5)), rng.normal(size=(*size, 7, 5))
    config = {"strides": strides, "padding": "same", "output_padding": extra}
    layer = keras.layers.Conv2DTranspose(7, size, **config, use_bias=False, dtype="float64")
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    plan = lx.plan("keras.Conv2DTranspose", form, sizes={**SIZES, "kh": size[0], "kw": size[1]}, config=config)
    lines = carry(plan.source, plan.target)
    crop = next((line for line in lines if "then crop to [" in line), "")
    text = crop.replace(" and ", "\n").replace(", then", "\n") if crop else "\n".join(lines)
    given = {
        key: literal_eval(value)
        for key, value in re.findall(r"^(pads|padding|output_padding)=(.+?)(?:: .*)?$", text, re.MULTILINE)
        if not value.startswith('"')
    }
    assert "auto_pad" not in text
    if framework == "onnx":
        given["strides"] = list(strides)
    else:
        given |= {"in_channels": 5, "out_channels": 7, "kernel_size": size, "stride": strides, "bias": False}
    weights = {{"onnx": "W", "torch": "weight"}[framework]: kernel.transpose(3, 2, 0, 1)}
    found = live.run(form, given, weights, {"x": np.moveaxis(x, -1, 1)}, "float64")["y"]
    if crop:
        rows, columns = re.search(r"\[(.*), (.*)\]", crop).groups()
        ends = [tuple(int(n) if n else None for n in part.split(":")) for part in (rows, columns)]
        found = found[(..., *(slice(*end) for end in ends))]
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), np.asarray(layer(x)), atol=1e-12)


def test_output_padding_that_belongs_to_the_rule_is_told() -> None:
    config = {"padding": "same", "strides": 2, "output_padding": 0}
    target = "torch.layoutx.ConvTranspose2dSame"
    assert said("keras.Conv2DTranspose", target, config)[1:] == ["output_padding=0; torch's default is None"]
    assert said("keras.Conv2DTranspose", target, {"padding": "same", "strides": 2})[1:] == []
    assert said("torch.layoutx.ConvTranspose2dSame", "keras.Conv2DTranspose", {"output_padding": 0}) == [
        'padding="same"; keras\'s default is "valid"',
        "output_padding=0; keras's default is None",
    ]


def test_a_same_that_engines_read_differently_is_told() -> None:
    config = {"auto_pad": "SAME_UPPER", "strides": [2, 5], "rank": 2}
    assert any("engines differ" in line for line in said("onnx.ConvTranspose", "torch.ConvTranspose2d", config))
    config["strides"] = [2, 2]
    assert not any("engines differ" in line for line in said("onnx.ConvTranspose", "torch.ConvTranspose2d", config))


def test_an_eps_of_none_is_a_number_in_the_other_framework() -> None:
    found = lx.plan("torch.RMSNorm", "keras.RMSNormalization", sizes={"features": 7})
    assert carry(found.source, found.target) == [
        "epsilon=1.1920928955078125e-07 (torch's None is the machine epsilon of float32); keras's default is 1e-06"
    ]
    same = lx.plan(
        "torch.RMSNorm", "keras.RMSNormalization", sizes={"features": 7}, target_config={"epsilon": 2.0**-23}
    )
    assert carry(same.source, same.target) == []
    own = lx.plan("torch.RMSNorm", "flax.RMSNorm", sizes={"features": 7}, config={"eps": 1e-6})
    assert carry(own.source, own.target) == []


def bound(form: str, sizes: dict[str, int], config: dict[str, Any]) -> BoundForm:
    """A form as a layer of one's own has it, with its own config."""
    return lx.plan(form, form, sizes=sizes, config=config).source


@pytest.mark.parametrize(
    ("kernel", "strides", "pads"), [(3, 1, 1), (5, 1, 2), (1, 2, 0), (3, 2, 1), (2, 1, 0), (3, 1, 0)]
)
def test_padding_by_numbers_is_no_setting_to_carry_where_it_is_what_same_pads(
    kernel: int, strides: int, pads: int
) -> None:
    """Judged by running both on maps of several lengths."""
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(kernel, kernel, 5, 7))
    twin = torch.nn.Conv2d(5, 7, kernel, strides, pads, bias=False, dtype=torch.float64)
    twin.weight.data = torch.from_numpy(np.transpose(weights, (3, 2, 0, 1)).copy())
    same = True
    for lengths in ((6, 7), (8, 5)):
        x = rng.normal(size=(2, *lengths, 5))
        layer = keras.layers.Conv2D(7, kernel, strides, padding="same", use_bias=False, dtype="float64")
        layer.build(x.shape)
        layer.kernel.assign(weights)
        y = np.moveaxis(twin(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy(), 1, -1)
        expected = np.asarray(layer(x))
        same = same and y.shape == expected.shape and bool(np.allclose(y, expected, atol=1e-12))
    sizes = {**SIZES, "kh": kernel, "kw": kernel}
    source = bound("keras.Conv2D", sizes, {"padding": "same", "strides": strides})
    target = bound("torch.Conv2d", sizes, {"padding": pads, "stride": strides})
    lines = [line for line in carry(source, target) if "padding" in line]
    assert (lines == []) is same


def test_settings_that_differ_are_those_that_a_run_would_show() -> None:
    source = bound("keras.BatchNormalization", {"channel": 3}, {})
    target = bound("torch.BatchNorm2d", {"channel": 3}, {})
    assert [line.partition("=")[0] for line in carry(source, target)] == ["eps", "momentum"]
    assert differing(source, target) == ["eps=0.001; torch's default is 1e-05"]
    sizes = {"input": 3, "output": 2}
    dense = bound("keras.Dense", sizes, {"activation": "relu"}), bound("torch.Linear", sizes, {})
    assert differing(*dense) == []  # it may stand behind the layer
    valid = bound("keras.Conv2D", SIZES, {})
    one = bound("torch.Conv2d", SIZES, {"padding": 1})
    assert differing(valid, one) == ['padding="valid", behind whatever is padded before it; the target has padding=1']
    lines = together([("norm", source, target), ("conv", valid, one), ("again", source, target)])
    assert list(lines.values()) == [["norm", "again"]]
    assert list(together([("conv", valid, one), ("more", valid, one)], "conv").values()) == [["conv", "more"]]
