"""Two models that are run beside each other: one with a copy in its place that holds apart what it has in one layer."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.job.folding import joint_folded
from layoutx.job.heads import other_heads
from layoutx.job.jobs import Options
from layoutx.job.joined import Joint
from layoutx.job.seen import with_run
from layoutx.job.traded import traded
from layoutx.model.fused import fused_there, unfused
from layoutx.model.in_parts import computed
from layoutx.model.keyed import Keyed
from layoutx.model.load import live_model
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry
from layoutx.verify.plain import is_torch
from layoutx.verify.running.opened import Runner, opened

Model = Keyed | ModelRecord


@frozen
class Sides:
    """Both models as they run, and what is known of each."""

    first: Runner
    second: Runner
    here: Model
    there: Model


def paired_sides(sides: Sides, inputs: Any, known: Registry, options: Options, whole: bool) -> tuple[Joint, Sides]:
    """The pairs of two models; in the place of one that is fused where the other is not, a copy that is not.

    Args:
        inputs: as for `with_run`. whole: leave both as they are: what runs is not the model that is known.

    Raises:
        UsageError: options that name no layer.
    """
    sides = _ran(sides, inputs, options)
    joined = _tried(sides.here, sides.there, known, options)
    if not whole and _lost(joined):
        first, second = _apart(sides.first, sides.here, sides.there), _apart(sides.second, sides.there, sides.here)
        if first is not sides.first or second is not sides.second:
            here = sides.here if first is sides.first else live_model(first.model, known)
            there = sides.there if second is sides.second else live_model(second.model, known)
            apart = _ran(Sides(first, second, here, there), inputs, options)
            again = _tried(apart.here, apart.there, known, options)
            joined, sides = (again, apart) if _lost(again) < _lost(joined) else (joined, sides)
    return traded(_sure(joined), sides.here, sides.there), sides


def paired_apart(here: Model, there: Model, known: Registry, options: Options) -> Joint:
    """The pairs of two models; of one that is fused where the other is not, its parts.

    Raises:
        UsageError: options that name no layer.
    """
    joined = _tried(here, there, known, options)
    if _lost(joined):
        one, other = unfused(here, there), unfused(there, here)
        if one is not here or other is not there:
            again = _tried(one, other, known, options)
            joined = again if _lost(again) < _lost(joined) else joined
    return _sure(joined)


def _tried(here: Model, there: Model, known: Registry, options: Options) -> Joint | UsageError:
    """The pairs; or why the user's options cannot be meant, who may have named layers that stand in a fused one."""
    try:
        joined = joint_folded(here, there, known, options)
        if (other := other_heads(joined, here, there, known)) is None:
            return joined
        again = joint_folded(here, other, known, options)
    except UsageError as error:
        return error
    return again if len(again.lost) < len(joined.lost) else joined


def _lost(found: Joint | UsageError) -> float:
    """How many layers and tensors have no counterpart."""
    return len(found.lost) + len(found.unused) if isinstance(found, Joint) else inf


def _sure(found: Joint | UsageError) -> Joint:
    if isinstance(found, UsageError):
        raise found
    return found


def _ran(sides: Sides, inputs: Any, options: Options) -> Sides:
    here = with_run(sides.here, sides.first.model, sides.there, inputs)
    there = with_run(sides.there, sides.second.model, here, inputs)
    return replace(sides, here=computed(here, options.skip), there=computed(there, options.skip))


def _apart(run: Runner, model: Model, other: Model) -> Runner:
    chosen = fused_there(model, other) if is_torch(run.model) else {}
    if not chosen:
        return run
    from layoutx.verify.running.torch_apart import with_parts

    return opened(with_parts(run.model, chosen))
