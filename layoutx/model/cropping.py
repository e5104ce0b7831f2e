"""Keras' `same` as numbers that other frameworks take: of a convolution, and what it cuts from a transposed one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FILLED = "the stride is longer than the kernel, and the source fills it up"


def cuts(
    kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], given: Sequence[int] | None = None
) -> list[int]:
    """How much of each axis' (n - 1) * stride + reach positions `same` leaves out; what it adds is negative.

    Without `given`, the output_padding, n * stride positions stay; with it, the length is a matter of the kernel alone.
    Half of it goes from the front, the odd one from the end: no input's length is needed to say it by numbers.
    Source: keras 3.15.1 keras/src/backend/common/backend_utils.py compute_conv_transpose_output_shape.
    """
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if given is None:
        return [r - s for r, s in zip(reach, strides, strict=True)]
    return [2 * (r // 2) - extra for r, extra in zip(reach, given, strict=True)]


def ends(cut: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """What is cut in front, what at the end, and what is added there, an axis each."""
    front = [max(c, 0) // 2 for c in cut]
    return front, [max(c, 0) - f for c, f in zip(cut, front, strict=True)], [max(-c, 0) for c in cut]


def by_numbers(cut: Sequence[int]) -> list[str]:
    """ONNX' attributes: onnxruntime and the text of auto_pad differ where a stride is longer than the kernel."""
    front, end, more = ends(cut)
    lines = [f"pads={front + end}"] if any(front + end) else []
    return lines + ([f"output_padding={more}: {FILLED}"] if any(more) else [])


def by_hand(cut: Sequence[int], option: str, module: str) -> str:
    """A crop of the result without padding, where padding by a number would cut both ends alike."""
    front, end, more = ends(cut)
    filled = f" and {option}={_text(more)}" if option else f", append {_text(more)} positions of the bias alone"
    slices = ", ".join(f"{f}:{-e or ''}" for f, e in zip(front, end, strict=True))
    text = f'padding="same": run without padding{filled if any(more) else ""}, then crop to [{slices}]'
    return f"{text}{module}; padding=int would differ"


def alike(kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], pads: Any) -> bool:
    """Whether a convolution that pads by these numbers pads as `same` does, whatever the length of its input."""
    given = tuple(pads) if isinstance(pads, (tuple, list)) else (pads,) * len(kernel)
    if len(given) != len(kernel) or not all(type(pad) is int for pad in given):
        return False
    axes = zip(kernel, strides, dilation, given, strict=True)
    return all((k - 1) * d == 2 * pad and (s == 1 or k == 1) for k, s, d, pad in axes)


def _text(numbers: Sequence[int]) -> str:
    return str(tuple(numbers)) if len(numbers) > 1 else str(numbers[0])
