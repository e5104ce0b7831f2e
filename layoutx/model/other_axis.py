"""A batch normalization over an axis that holds no channels: weights cannot tell, the report must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.model.axes import Axis, State
from layoutx.spec.bound import BoundForm

POSITIONS = frozenset("tdhw")  # the letters of a map's axes that are no channels


def normed(state: State, axis: Any) -> dict[str, int]:
    """What is known of a batch normalization's data: `rank`, its spatial axes, which torch has a class for each of.

    `over`: the axis as a channels-first framework counts it, where the layer normalizes positions of a map; which
    axes they are, the convolutions before it have said.
    """
    found = {"rank": len(state.last) - 1}
    own = _number(axis)
    if state.blocked or not state.spatial or own is None or own == 0 or not -len(state.last) <= own <= len(state.last):
        return found
    dim = state.last[own if own < 0 else own - 1]
    if dim in state.first and dim and all(isinstance(a, Axis) and a.letter in POSITIONS for a in dim):
        found["over"] = state.first.index(dim) + 1
    return found


def other_axis(config: Mapping[str, Any], source: BoundForm, target: BoundForm) -> list[str]:
    """A line where Keras normalizes an axis of positions, and torch that of the channels alone.

    Of data that no convolution has made, the first and the last axis may hold the channels.

    Args:
        config: of the source's record, with what `normed` found.
    """
    if target.form.framework != "torch" or target.form.by_class:
        return []
    if source.kind.name != "batch_norm" or source.form.framework not in ("keras", "keras1"):
        return []
    rank, axis, over = config.get("rank"), _number(source.settings.get("axis")), config.get("over")
    if over is None and isinstance(rank, int) and axis is not None and axis % (rank + 2) not in (0, 1, rank + 1):
        over = axis % (rank + 2) + 1
    if over is None:
        return []
    features = source.sizes["channel"]
    return [
        f"axis={axis}: {target.form.class_name} normalizes by the axis of the channels alone; use "
        f"layoutx.torch.BatchNorm({features}, axis={over}), for data (batch, channels, ...)"
    ]


def _number(axis: Any) -> int | None:
    """The axis, which some versions of Keras write as a list of one."""
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    return axis if isinstance(axis, int) and not isinstance(axis, bool) else None
