"""A batch normalization over an axis that holds no channels: weights cannot tell, the report must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.spec.bound import BoundForm


def other_axis(config: Mapping[str, Any], source: BoundForm, target: BoundForm) -> list[str]:
    """A line where Keras normalizes neither by the first nor by the last axis, and torch by the first alone.

    Args:
        config: of the source's record, with the number of spatial axes that its data was found to have.
    """
    rank, axis = config.get("rank"), source.settings.get("axis")
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if (
        not isinstance(rank, int)
        or not isinstance(axis, int)
        or target.form.framework != "torch"
        or target.form.by_class
    ):
        return []
    if source.kind.name != "batch_norm" or source.form.framework not in ("keras", "keras1"):
        return []
    own = axis % (rank + 2)
    if own in (0, 1, rank + 1):
        return []
    features = source.sizes["channel"]
    return [
        f"axis={axis}: {target.form.class_name} normalizes by the axis of the channels alone; use "
        f"layoutx.torch.BatchNorm({features}, axis={own + 1}), for data (batch, channels, ...)"
    ]
