"""A part of the data that a hypothesis must explain before it is tried on all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutx.plan.plan import Array
from layoutx.verify.data import canonical_data
from layoutx.verify.diagnose.settings import setting
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.diagnose.turns import RECURRENT
from layoutx.verify.forward.shapes import one_each

SAMPLES, STEPS, PLACES = 2, 2, 3  # samples, steps of time, positions on each spatial axis


def shortened(suspect: Suspect) -> Suspect | None:
    """A few samples; of a recurrent layer that runs forward a few steps, of a convolution the first positions."""
    kind = suspect.target.kind.name
    if suspect.facts.get("statistics", suspect.target.facts.get("statistics")) == "batch":
        return None
    if suspect.after is not None or "y" not in suspect.expected or not canonical_data(kind):
        return None
    inputs = {name: array[:SAMPLES] for name, array in suspect.inputs.items()}
    y = suspect.expected["y"][:SAMPLES]
    settings = {**suspect.target.settings, **suspect.settings}
    directions = suspect.target.labels.get("direction", ("forward",))
    forward = directions == ("forward",) and suspect.facts.get("direction") != "backward"
    if kind in RECURRENT and forward and not settings.get("go_backwards"):
        inputs, y = {name: array[:, :STEPS] for name, array in inputs.items()}, y[:, :STEPS]
    if kind == "conv" and "x" in inputs:
        return _window(suspect, inputs["x"], y)
    return replace(suspect, inputs=inputs, expected={"y": y})


def _window(suspect: Suspect, x: Array, y: Array) -> Suspect:
    """The first positions of a convolution, which see no more of the input than its beginning."""
    names = suspect.target.kind.spread.get(x.ndim - 2, ())
    size = [suspect.target.sizes.get(name, 1) for name in names]
    strides = one_each("conv", "strides", setting(suspect, "strides") or 1, len(size))
    dilation = one_each("conv", "dilation", setting(suspect, "dilation") or 1, len(size))
    whole = replace(suspect, inputs={"x": x}, expected={"y": y})
    if setting(suspect, "padding") == "same" and any(step > 1 for step in strides):
        return whole  # where the padding begins depends on the length
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    lengths = [(PLACES - 1) * s + r for s, r in zip(strides, reach, strict=True)]
    if not size or any(n < length for n, length in zip(x.shape[1:-1], lengths, strict=True)):
        return whole
    cut = (slice(None), *(slice(PLACES) for _ in size))

    def after(found: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": found["y"][cut]}

    some = x[(slice(None), *(slice(length) for length in lengths))]
    return replace(suspect, inputs={"x": some}, expected={"y": y[cut]}, after=after)
