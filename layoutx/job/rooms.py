"""Where a live variable's numbers go: its own memory where that can be written, else an array that it takes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array

LINE = 64  # bytes: TensorFlow takes an array over without a copy where it begins at such a border


@frozen
class Room:
    """Memory for one tensor.

    Attributes:
        flat: all of it, in one dimension, of the variable's dtype.
        strides: of the tensor in it, in elements; None: row by row.
        done: is called once it is filled.
    """

    flat: Array
    strides: tuple[int, ...] | None
    done: Callable[[], None]


def torch_room(value: Any) -> Room | None:
    """The storage of a torch tensor on the CPU; None of one that NumPy cannot look at (a device, an own class).

    Writing into it counts as a change in place: autograd then refuses to use what it saved before.
    """
    import torch

    from layoutx.files.dtypes import is_extra
    from layoutx.files.torch_file import dtype_of

    plain = value.detach()
    dtype = dtype_of(torch, plain.dtype)
    if dtype is None or plain.device.type != "cpu" or plain.layout != torch.strided or plain.is_quantized:
        return None
    if plain.is_conj() or plain.is_neg() or type(plain) is not torch.Tensor:
        return None
    strides = None if plain.is_contiguous() else tuple(plain.stride())
    if strides is not None and not _apart(tuple(plain.shape), strides):
        return None
    extent = 1 + sum((n - 1) * s for n, s in zip(plain.shape, plain.stride(), strict=True)) if plain.numel() else 0
    flat = plain.view(-1) if strides is None else plain.as_strided((extent,), (1,))
    if is_extra(dtype):
        array = flat.view(torch.int16 if dtype.itemsize == 2 else torch.int8).numpy().view(dtype)
    else:
        array = flat.numpy()

    def changed() -> None:
        if not plain.is_inference():
            torch.autograd.graph.increment_version(value)

    return Room(array, strides, changed)


def _apart(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether every element has a place of its own (an expanded tensor has not)."""
    reach = 0
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride <= reach:
            return False
        reach += stride * (size - 1)
    return True


def new_room(shape: tuple[int, ...], dtype: np.dtype[Any], done: Callable[[Array], None]) -> Room:
    """A new array of a shape and dtype, handed over once it is filled."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + LINE, np.uint8)
    first = -raw.ctypes.data % LINE
    array = raw[first : first + size].view(dtype)
    return Room(array, None, lambda: done(array.reshape(shape)))


def taken_over(variable: Any, array: Array) -> bool:
    """Give a TensorFlow variable a new array as its own memory, which nobody writes to afterwards; whether it took it.

    The array comes as a tensor that shares its memory (tf.experimental.dlpack), and `assign` of a tensor keeps it:
    no byte is copied (tensorflow 2.21 core/kernels/resource_variable_ops.cc AssignVariableOp).
    """
    value = getattr(variable, "_value", variable)
    if not type(value).__module__.startswith("tensorflow.") or type(value).__name__ != "ResourceVariable":
        return False
    if "CPU" not in value.device or value.dtype.name != array.dtype.name or tuple(value.shape) != array.shape:
        return False
    import tensorflow as tf

    try:
        value.assign(tf.experimental.dlpack.from_dlpack(array.__dlpack__()), read_value=False)
    except Exception:  # a dtype that DLPack does not know; the usual way takes all
        return False
    return True
