"""Whether time or the batch comes first in a sequence: batch_first of torch, time_major of flax, paddle and Keras 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.lang.tree import Axis
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import choose

TIMES = ("time", "tq")  # what the axis of a sequence is called
FIRST = {True: "time is the first axis", False: "the batch is the first axis"}


def time_first(source: BoundForm, target: BoundForm) -> list[str]:
    """Whether time or the batch comes first in a sequence, where the two sides differ (batch_first, time_major)."""
    here, there = (_leads(bound, bound.config) for bound in (source, target))
    if here is None or there is None or here == there:
        return []
    own = [f"{key}={source.config.get(key)}" for key in _data_keys(source)]
    about = f"{FIRST[here]} of {source.form.name}'s data" + (f" ({', '.join(own)})" if own else "")
    for key in _data_keys(target):
        current = target.config.get(key)
        for value in (True, False):
            if _leads(target, {**target.config, key: value}) == here:
                default = target.form.config.get(key) == current
                end = f"{target.form.framework}'s default is" if default else "the target has"
                return [f"{key}={value}: {about}; {end} {current}"]
    told = any(source.config.get(key) != source.form.config.get(key) for key in _data_keys(source))
    return [f"{about}, and {FIRST[there]} of {target.form.name}'s: exchange the two around it"] if told else []


def _leads(bound: BoundForm, config: Mapping[str, Any]) -> bool | None:
    """Whether time stands before the batch in what goes in under a config; None where it is no sequence."""
    cases = next(iter(bound.form.data.values()), ())
    names = [dim.name for dim in choose(cases, config) or () if isinstance(dim, Axis)]
    time = next((names.index(name) for name in TIMES if name in names), None)
    return None if time is None or "batch" not in names else time < names.index("batch")


def _data_keys(bound: BoundForm) -> list[str]:
    """Config keys that decide the order of what goes in."""
    return list(dict.fromkeys(key for case in next(iter(bound.form.data.values()), ()) for key in case.when))
