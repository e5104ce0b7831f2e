"""A layer that is called twice, of whose weights torch's older exporter made a constant for each call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutx.files.dtypes import bits
from layoutx.files.store import Tensor
from layoutx.model.onnx_forms import Reading
from layoutx.model.onnx_names import MADE, scope

_CALL = re.compile(r"_\d+(?=\.|$)")  # `fc_1` is the second call of `fc`, `block_1.fc` one in the second call of `block`


@dataclass
class Again:
    """The layers met so far, by what all calls of one have in common.

    Attributes:
        calls: what they have in common -> each layer's name and tensors.
        copies: stored tensor -> the one of the first call that holds the same numbers.
    """

    calls: dict[tuple[object, ...], list[tuple[str, Mapping[str, Tensor]]]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def earlier(self, node: Any, reading: Reading, stored: Mapping[str, Tensor]) -> str:
        """The record of an earlier call of the same module with the same numbers, "" where there is none.

        Args:
            stored: the file's tensors; an Identity of one is none of them.
        """
        for name, first in self.calls.get(_key(node, reading), ()):
            pairs = [(first[slot], tensor) for slot, tensor in reading.tensors.items() if slot in first]
            if len(pairs) == len(first) == len(reading.tensors) and all(_alike(one, other) for one, other in pairs):
                found = {other.name: one.name for one, other in pairs if other.name != one.name}
                self.copies |= {copy: kept for copy, kept in found.items() if copy in stored}
                return name
        return ""

    def add(self, name: str, node: Any, reading: Reading) -> None:
        """Remember a layer."""
        self.calls.setdefault(_key(node, reading), []).append((name, reading.tensors))


def _key(node: Any, reading: Reading) -> tuple[object, ...]:
    shapes = tuple((slot, tensor.shape) for slot, tensor in reading.tensors.items())
    return (reading.form, repr(sorted(reading.config.items())), _CALL.sub("", scope(node)), shapes)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one parameter: of one name, or both made by the exporter and bit for bit the same."""
    if one.name == other.name:
        return True
    if one.dtype != other.dtype or not (MADE.match(one.name) and MADE.match(other.name)):
        return False
    return one.read is other.read or bits(one.read()).tobytes() == bits(other.read()).tobytes()
