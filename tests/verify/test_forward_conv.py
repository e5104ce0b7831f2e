"""The NumPy convolutions against torch and Keras in float64, from native tensors to roles by hand."""

import numpy as np
import pytest

from layoutx.errors import SizeError, UsageError
from layoutx.verify import live
from layoutx.verify.forward import forward

SPACE = (11, 13, 7)  # spatial sizes of x
SIZE = (3, 5, 2)  # of the kernel


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def agree(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def torch_conv(rank: int, config: dict, settings: dict, transpose: bool = False) -> None:
    groups, into, out = config.get("groups", 1), 2, 3
    size = SIZE[:rank]
    x = rand(1, 2, groups * into, *SPACE[:rank])
    bias = rand(3, groups * out)
    if transpose:
        weight = rand(2, groups * into, out, *size)
        kernel = weight.reshape(groups, into, out, *size)
    else:
        weight = rand(2, groups * out, into, *size)
        kernel = weight.reshape(groups, out, into, *size)
    name = f"torch.Conv{'Transpose' if transpose else ''}{rank}d"
    whole = {"in_channels": groups * into, "out_channels": groups * out, "kernel_size": size, **config}
    wanted = live.run(name, whole, {"weight": weight, "bias": bias}, {"x": x})["y"]
    roles = {"kernel": kernel, "bias": bias.reshape(groups, out)}
    kind = "conv_transpose" if transpose else "conv"
    agree(forward(kind, roles, {"x": last(x)}, {}, settings)["y"], last(wanted))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, {}),
        ({"groups": 3}, {"padding": "valid"}),
        ({"stride": 2, "padding": 1}, {"strides": 2, "padding": 1}),
        ({"dilation": 2, "padding": "same", "groups": 2}, {"dilation": 2, "padding": "same"}),
    ],
)
def test_conv_is_torch(rank: int, config: dict, settings: dict) -> None:
    pytest.importorskip("torch")
    torch_conv(rank, config, settings)


def test_every_spelling_of_padding_is_the_same_one() -> None:
    pytest.importorskip("torch")
    for padding in ((2, 1), ((2, 2), (1, 1)), (2, 1, 2, 1)):
        config = {"stride": (3, 2), "padding": (2, 1), "dilation": (1, 2)}
        torch_conv(2, config, {"strides": (3, 2), "padding": padding, "dilation": (1, 2)})


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, {}),
        ({"groups": 3, "stride": 2}, {"strides": 2}),
        ({"stride": 3, "padding": 1, "output_padding": 2}, {"strides": 3, "padding": 1, "output_padding": 2}),
        (
            {"stride": 2, "dilation": 3, "output_padding": 1},
            {"strides": 2, "dilation": 3, "padding": 0, "output_padding": 1},
        ),
    ],
)
def test_conv_transpose_is_torch(rank: int, config: dict, settings: dict) -> None:
    pytest.importorskip("torch")
    torch_conv(rank, config, settings, transpose=True)


def keras_conv(version: int, rank: int, config: dict, settings: dict, space: tuple = SPACE) -> None:
    groups, into, out = config.get("groups", 1), 2, 3
    size = SIZE[:rank]
    x, kernel, bias = (
        rand(1, 2, *space[:rank], groups * into),
        rand(2, *size, into, groups * out),
        rand(3, groups * out),
    )
    whole = {"version": version, "filters": groups * out, "kernel_size": size, **config}
    wanted = live.run(f"keras.Conv{rank}D", whole, {"kernel": kernel, "bias": bias}, {"x": x})["y"]
    # (k..., in, group, out) -> (group, out, in, k...)
    split = kernel.reshape(*size, into, groups, out)
    roles = {"kernel": split.transpose(rank + 1, rank + 2, rank, *range(rank)), "bias": bias.reshape(groups, out)}
    agree(forward("conv", roles, {"x": x}, {}, settings)["y"], wanted)


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"groups": 2}, {}),
        ({"strides": 2, "padding": "same"}, {"strides": 2, "padding": "same"}),
        ({"dilation_rate": 2, "padding": "same"}, {"dilation": 2, "padding": "same"}),
    ],
)
def test_conv_is_keras(version: int, rank: int, config: dict, settings: dict) -> None:
    pytest.importorskip("tensorflow")
    keras_conv(version, rank, config, settings)


def test_same_puts_the_odd_element_at_the_end_and_causal_in_front() -> None:
    pytest.importorskip("tensorflow")
    for space in ((7,), (8,), (9,), (10,)):
        keras_conv(3, 1, {"strides": 2, "padding": "same"}, {"strides": 2, "padding": "same"}, space)
    keras_conv(3, 1, {"dilation_rate": 2, "padding": "causal"}, {"dilation": 2, "padding": "causal"})
    with pytest.raises(AssertionError):  # and the comparison can fail
        keras_conv(3, 1, {"padding": "same"}, {"padding": "causal"})


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_is_a_conv_of_one_channel_a_group(version: int, rank: int) -> None:
    pytest.importorskip("tensorflow")
    channels, mult, size = 5, 3, SIZE[:rank]
    x, kernel, bias = rand(1, 2, *SPACE[:rank], channels), rand(2, *size, channels, mult), rand(3, channels * mult)
    config = {"version": version, "kernel_size": size, "depth_multiplier": mult, "strides": 2, "padding": "same"}
    name = "kernel" if version == 3 else "depthwise_kernel"
    wanted = live.run(f"keras.DepthwiseConv{rank}D", config, {name: kernel, "bias": bias}, {"x": x})["y"]
    roles = {"kernel": kernel.transpose(rank, rank + 1, *range(rank))[:, :, None], "bias": bias.reshape(channels, mult)}
    agree(forward("conv", roles, {"x": x}, {}, {"strides": (2,) * rank, "padding": "same"})["y"], wanted)


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_separable_is_keras(version: int, rank: int) -> None:
    pytest.importorskip("tensorflow")
    channels, mult, out, size = 5, 3, 7, SIZE[:rank]
    x, deep = rand(1, 2, *SPACE[:rank], channels), rand(2, *size, channels, mult)
    point, bias = rand(4, *[1] * rank, channels * mult, out), rand(3, out)
    config = {"version": version, "filters": out, "kernel_size": size, "depth_multiplier": mult, "strides": 2}
    tensors = {"depthwise_kernel": deep, "pointwise_kernel": point, "bias": bias}
    wanted = live.run(f"keras.SeparableConv{rank}D", config, tensors, {"x": x})["y"]
    matrix = point.reshape(channels, mult, out).transpose(2, 0, 1)
    roles = {"depthwise": deep.transpose(rank, rank + 1, *range(rank)), "pointwise": matrix, "bias": bias}
    agree(forward("separable_conv", roles, {"x": x}, {}, {"strides": 2})["y"], wanted)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_separable_is_two_torch_convs(rank: int) -> None:
    pytest.importorskip("torch")
    channels, mult, out, size = 5, 3, 7, SIZE[:rank]
    x, deep = rand(1, 2, channels, *SPACE[:rank]), rand(2, channels * mult, 1, *size)
    point, bias = rand(4, out, channels * mult, *[1] * rank), rand(3, out)
    tensors = {"depthwise.weight": deep, "pointwise.weight": point, "pointwise.bias": bias}
    wanted = live.run(f"torch.SeparableConv{rank}d", {"stride": 2, "padding": 1}, tensors, {"x": x})["y"]
    matrix = point.reshape(out, channels, mult)
    roles = {"depthwise": deep.reshape(channels, mult, *size), "pointwise": matrix, "bias": bias}
    agree(forward("separable_conv", roles, {"x": last(x)}, {}, {"strides": 2, "padding": 1})["y"], last(wanted))


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize(
    ("rank", "config"),
    [
        (1, {"strides": 2, "padding": "same"}),
        (1, {"strides": 5, "padding": "valid"}),  # longer than the kernel: Keras leaves zeros at the end
        (2, {"strides": 2, "padding": "same"}),
        (2, {"strides": 3, "padding": "valid"}),
        (2, {"strides": 4, "padding": "same"}),
        (2, {"strides": 3, "padding": "same", "output_padding": 1}),
        (2, {"strides": 3, "padding": "same", "output_padding": 2}),
        (2, {"strides": 3, "padding": "valid", "output_padding": 2}),
        (3, {"strides": 2, "padding": "same"}),
        (3, {"strides": 1, "padding": "valid"}),
        (3, {"strides": 3, "padding": "same", "output_padding": 2}),  # the third size of the kernel is even
    ],
)
def test_conv_transpose_is_keras(version: int, rank: int, config: dict) -> None:
    pytest.importorskip("tensorflow")
    keras_transpose(version, rank, config, config)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_dilated_conv_transpose_is_keras(padding: str) -> None:
    # TensorFlow has no other dilated one on the CPU; tf_keras Conv3DTranspose ignores dilation_rate
    pytest.importorskip("tensorflow")
    keras_transpose(2, 2, {"dilation_rate": 2, "padding": padding}, {"dilation": 2, "padding": padding})


def keras_transpose(version: int, rank: int, config: dict, settings: dict) -> None:
    into, out, size = 2, 3, SIZE[:rank]
    x, kernel, bias = rand(1, 2, *SPACE[:rank], into), rand(2, *size, out, into), rand(3, out)
    whole = {"version": version, "filters": out, "kernel_size": size, **config}
    wanted = live.run(f"keras.Conv{rank}DTranspose", whole, {"kernel": kernel, "bias": bias}, {"x": x})["y"]
    # (k..., out, in) -> (in, out, k...), one group
    roles = {"kernel": kernel.transpose(rank + 1, rank, *range(rank))[None], "bias": bias[None]}
    agree(forward("conv_transpose", roles, {"x": x}, {}, settings)["y"], wanted)


def test_what_does_not_fit_is_named() -> None:
    kernel, bias, x = rand(1, 2, 3, 5, 7), rand(2, 2, 5), rand(3, 2, 11, 4)
    with pytest.raises(Exception, match="do not fit together") as caught:
        forward("conv", {"kernel": kernel, "bias": bias}, {"x": x})
    assert "conv: out is 5 in bias and 3 in kernel" in str(caught.value)
    assert "group*in is 4 in x and 10 in the weights" in str(caught.value)
    assert "kernel (group=2, out=3, in=5, k0=7)" in str(caught.value)
    with pytest.raises(SizeError, match="1 spatial axes and x has 2"):
        forward("conv", {"kernel": kernel}, {"x": rand(3, 2, 11, 11, 10)})
    with pytest.raises(SizeError, match="shorter than the kernel's reach"):
        forward("conv", {"kernel": kernel}, {"x": rand(3, 2, 5, 10)})
    for padding in ("full", ((1, 2, 3),), (1, 2, 3), 1.5):
        with pytest.raises(UsageError, match="is unknown") as caught_padding:
            forward("conv", {"kernel": kernel}, {"x": rand(3, 2, 11, 10)}, {}, {"padding": padding})
        assert "known: valid, same, causal" in str(caught_padding.value)
    with pytest.raises(UsageError, match="strides"):
        forward("conv", {"kernel": kernel}, {"x": rand(3, 2, 11, 10)}, {}, {"strides": (1, 2)})
