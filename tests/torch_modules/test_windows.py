"""Convolutions, transposed ones and pooling with Keras' borders, against the real layers over grids of windows."""

from __future__ import annotations

from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
import torch
from module_pairs import carried, close, data, filled, first, outputs, sound

import layoutx.torch as lt

SPACE = {1: (11,), 2: (11, 8), 3: (6, 5, 4)}
SQUARE = {1: (8,), 2: (8, 8), 3: (4, 4, 4)}


def made(package: Any, name: str, shape: tuple[int, ...], **config: Any) -> Any:
    layer = getattr(package.layers, name)(**config, dtype="float64")
    return filled(package.Sequential([package.layers.Input(shape, dtype="float64"), layer]))


def agree(model: Any, module: Any, x: Any, whole: bool = False) -> None:
    (y,) = outputs(carried(model, module), first(x))
    close(first(model(x)), y)
    if whole:
        sound(module, first(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("space", [SPACE, SQUARE])
def test_same_at_strides_and_even_kernels(rank: int, space: dict[int, tuple[int, ...]]) -> None:
    x = data(2, *space[rank], 3)
    for size, stride in product((2, 3, 4, 5)[: 5 - rank], (1, 2, 3)):
        for name in [f"Conv{rank}D"]:
            model = made(keras, name, (*space[rank], 3), filters=5, kernel_size=size, strides=stride, padding="same")
            agree(model, getattr(lt, f"Conv{rank}dSame")(3, 5, size, stride), x, size == 3)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3])
def test_same_with_dilation_groups_and_uneven_windows(rank: int, size: int) -> None:
    same = getattr(lt, f"Conv{rank}dSame")
    shape, uneven = (*SPACE[rank], 6), (size, size + 1, 2)[:rank]
    x, name = data(2, *shape), f"Conv{rank}D"
    agree(
        made(keras, name, shape, filters=5, kernel_size=size, dilation_rate=2, padding="same"),
        same(6, 5, size, dilation=2),
        x,
    )
    grouped = made(
        keras, name, shape, filters=4, kernel_size=uneven, groups=2, strides=2, padding="same", use_bias=False
    )
    agree(grouped, same(6, 4, uneven, 2, groups=2, bias=False), x, True)
    agree(made(keras, name, shape, filters=5, kernel_size=uneven, strides=2), same(6, 5, uneven, 2, "valid"), x)


@pytest.mark.parametrize("package", [keras, tf_keras])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(package: Any, multiplier: int) -> None:
    shape = (11, 8, 3)
    model = made(
        package, "DepthwiseConv2D", shape, kernel_size=4, strides=2, padding="same", depth_multiplier=multiplier
    )
    agree(model, lt.Conv2dSame(3, 3 * multiplier, 4, 2, groups=3), data(2, *shape), True)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 3)])
def test_causal(stride: int, dilation: int) -> None:
    model = made(
        keras, "Conv1D", (11, 3), filters=5, kernel_size=4, strides=stride, dilation_rate=dilation, padding="causal"
    )
    agree(model, lt.Conv1dSame(3, 5, 4, stride, "causal", dilation), data(2, 11, 3), True)


def test_padding_by_a_number_is_another_function() -> None:
    model = made(keras, "Conv2D", (8, 8, 3), filters=5, kernel_size=3, strides=2, padding="same")
    module, x = carried(model, lt.Conv2dSame(3, 5, 3, 2)), data(2, 8, 8, 3)
    with torch.no_grad():
        other = torch.nn.functional.conv2d(torch.from_numpy(first(x).copy()), module.weight, module.bias, 2, 1)
    assert other.shape == first(model(x)).shape
    assert np.abs(other.numpy() - first(model(x))).max() > 1e-2


def test_a_word_that_is_no_padding() -> None:
    with pytest.raises(ValueError, match="'same' or 'valid'"):
        lt.Conv2dSame(3, 5, 3, padding="causal")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("package", [keras, tf_keras])
def test_transposed(rank: int, padding: str, package: Any) -> None:
    shape = ((5,), (5, 4), (4, 3, 2))[rank - 1]
    x, module = data(2, *shape, 3), getattr(lt, f"ConvTranspose{rank}dSame")
    for size, stride in product((2, 3, 4) if rank < 3 else (2, 3), (1, 2, 3, 5) if rank < 3 else (2, 3)):
        config = {"filters": 5, "kernel_size": size, "strides": stride, "padding": padding}
        agree(
            made(package, f"Conv{rank}DTranspose", (*shape, 3), **config),
            module(3, 5, size, stride, padding),
            x,
            size == 3,
        )


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_transposed_with_output_padding(rank: int, padding: str) -> None:
    shape = ((5,), (5, 4))[rank - 1]
    for size, stride, extra in [(3, 2, 1), (3, 2, 0), (4, 3, 1), (5, 3, 2), (2, 2, 1)]:
        config = {"filters": 5, "kernel_size": size, "strides": stride, "padding": padding, "output_padding": extra}
        try:
            model = made(keras, f"Conv{rank}DTranspose", (*shape, 3), **config)
            model(data(2, *shape, 3))
        except Exception:  # TensorFlow takes only output lengths that lead back to the input's
            continue
        agree(
            model,
            getattr(lt, f"ConvTranspose{rank}dSame")(3, 5, size, stride, padding, extra),
            data(2, *shape, 3),
            True,
        )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Avg"])
@pytest.mark.parametrize("space", [SPACE, SQUARE])
def test_pooling(rank: int, kind: str, space: dict[int, tuple[int, ...]]) -> None:
    name = {"Max": "MaxPooling", "Avg": "AveragePooling"}[kind]
    x = data(2, *space[rank], 3) - 3.0  # negative: a zero at the border would be the largest
    for size, stride in product((2, 3, 4), (None, 1, 2, 3)):
        dtype = "float64" if rank < 3 else "float32"  # TensorFlow pools no volumes of float64
        layer = getattr(keras.layers, f"{name}{rank}D")(size, stride, padding="same", dtype=dtype)
        module = getattr(lt, f"{kind}Pool{rank}dSame")(size, stride)
        close(first(layer(x)), outputs(module, first(x))[0], 1e-12 if rank < 3 else 1e-6)
        if stride == 2:
            sound(module, first(x))
