"""Borders by name, as Keras sets them: how many zeros an input of this length needs, and a convolution of any rank."""

from torch import Tensor
from torch.nn import functional as F

Size = int | tuple[int, ...]


def padded(
    x: Tensor, padding: str, kernel: list[int], stride: list[int], dilation: list[int], value: float = 0.0
) -> Tensor:
    """x (batch, channels, ...) with what "same" or "causal" adds at its borders; "valid" adds nothing.

    "same": as much as makes ceil(length / stride) positions, half of it in front, the odd element at the end; so it
    depends on the length. "causal": the kernel's whole reach in front. Source: keras 3.15.1 and TensorFlow, conv ops.
    """
    pads: list[int] = []
    for i in range(len(kernel)):  # F.pad takes the last axis first
        axis = len(kernel) - 1 - i
        length = x.shape[axis - len(kernel)]
        reach = (kernel[axis] - 1) * dilation[axis]
        front, end = 0, 0
        if padding == "causal":
            front = reach
        elif padding == "same":
            steps = (length + stride[axis] - 1) // stride[axis]
            total = max((steps - 1) * stride[axis] + reach + 1 - length, 0)
            front, end = total // 2, total - total // 2
        pads += [front, end]
    return F.pad(x, pads, value=value)


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], dilation: list[int], groups: int
) -> Tensor:
    """The convolution of the weight's own rank, without padding."""
    if weight.dim() == 3:
        return F.conv1d(x, weight, bias, stride, 0, dilation, groups)
    if weight.dim() == 4:
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)
    return F.conv3d(x, weight, bias, stride, 0, dilation, groups)


def word(padding: str, *words: str) -> str:
    """The padding's name itself. Raises ValueError where it is none of `words`."""
    if padding not in words:
        raise ValueError(f"padding is {' or '.join(map(repr, words))}, not {padding!r}")
    return padding


def each(value: Size | list[int], rank: int) -> tuple[int, ...]:
    """One number for each spatial axis. Raises ValueError for another count."""
    found = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(found) != rank:
        raise ValueError(f"{rank} numbers are needed, one a spatial axis, not {value}")
    return found
