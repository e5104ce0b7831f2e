"""Which layers stand between an input and the last layer that is left out: one way, nothing with weights on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layoutx.files.store import Store, tensor_of
from layoutx.model.beginning import beginning
from layoutx.model.record import LayerRecord, ModelRecord


def model(*layers: tuple[str, str]) -> ModelRecord:
    """Layers as `name` or `name*` (with a weight), and the names of those that feed them."""
    weight = tensor_of("w", np.ones(1, np.float32))
    records = [
        LayerRecord(
            name.rstrip("*"), "Layer", tensors={"w": weight} if name.endswith("*") else {}, inputs=tuple(before.split())
        )
        for name, before in layers
    ]
    return ModelRecord("keras", "3", tuple(records), Store(Path(), "live", {}))


CHAIN = (("in", ""), ("scale", "in"), ("norm*", "scale"), ("pad", "norm"), ("conv*", "pad"))


@pytest.mark.parametrize(
    ("layers", "left_out", "expected"),
    [
        (CHAIN, ["norm"], {"in": ("scale", "norm")}),
        (CHAIN, ["scale"], {"in": ("scale",)}),
        (CHAIN, ["pa?"], {}),  # norm has weights, and stays
        (CHAIN, ["norm", "pa?"], {"in": ("scale", "norm", "pad")}),
        (CHAIN, ["conv"], {}),
        (CHAIN, [], {}),
        ((*CHAIN, ("beside", "scale")), ["norm"], {}),  # something else reads what lies on the way
        ((*CHAIN, ("beside", "scale")), ["scale"], {"in": ("scale",)}),
        ((*CHAIN, ("other", ""), ("join", "other conv")), ["norm"], {"in": ("scale", "norm")}),
        ((("a", ""), ("b", ""), ("sum", "a b"), ("d*", "sum")), ["sum"], {}),
    ],
)
def test_the_way_from_an_input(
    layers: tuple[tuple[str, str], ...], left_out: list[str], expected: dict[str, tuple[str, ...]]
) -> None:
    assert beginning(model(*layers), left_out) == expected
