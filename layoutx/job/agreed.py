"""Axes that two graphs both follow: one layer's map must be flattened alike on both sides, or in the other order."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod

from layoutx.errors import ConversionError
from layoutx.frozen import frozen
from layoutx.job.jobs import Options
from layoutx.job.shown import Order, Seen, composite, order_of, seen_of, several, turned_in
from layoutx.model.bindings import refine_of
from layoutx.model.followed import LOST, dealt_error, joined_error
from layoutx.model.keyed import Keyed, Module
from layoutx.model.places import Candidate
from layoutx.model.record import LayerRecord, Refinement
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry


@frozen
class Agreed:
    """A layer with its axes as both models have them, and the dims of these in the other model.

    `supposed`: the order of one of them follows from the frameworks' habits alone.
    """

    record: LayerRecord
    bound: BoundForm
    there: Mapping[str, str]
    supposed: bool = False


def agreed(
    record: LayerRecord, bound: BoundForm, found: Candidate, keyed: Keyed, registry: Registry, options: Options
) -> Agreed:
    """A layer and the dims of its axes in a keyed model; both follow what the two models' wiring shows.

    Args:
        bound: the record's form. found: its place there.

    Raises:
        ConversionError: as `refine_there`; or the axes lie in another order there, and nobody can tell in which.
    """
    orders = _orders(record, found, keyed, registry, options)
    shown = {axis: order.refine for axis, order in orders.items() if order.refine is not None}
    left = replace(record, refine={axis: r for axis, r in record.refine.items() if axis not in shown})
    sure = frozenset(axis for axis, order in orders.items() if order.sure)
    there = refine_there(left if shown else record, found, keyed, registry, options, sure | shown.keys())
    guess = _supposed_alone(record, found, keyed, options, sure | shown.keys())
    if not shown:
        return Agreed(record, bound, there, guess)
    record = replace(record, refine={**record.refine, **shown})
    there = {**there, **{axis: r.first for axis, r in shown.items()}}
    return Agreed(record, rebound(record, bound, registry), there, guess)


def _supposed_alone(
    record: LayerRecord, found: Candidate, keyed: Keyed, options: Options, known: Collection[str]
) -> bool:
    """Whether an axis is a map, or axes that were turned, of which nothing shows how the other model has them.

    So are units that become several axes: who reads these may have turned them since.
    """
    if options.keeps(record.name) or found.form.apart:
        return False
    lost = LOST.search(record.note)
    products = {axis for axis, every in record.pieces.items() if several(every)} - set(known)
    open_ = (record.refine.keys() | turned_in(record.pieces) | products & {"output"}) - set(known)
    path = next(iter(found.names.values()), "").rpartition(".")[0]
    seen = seen_of(keyed, path) if products or open_ or lost else None
    if seen is None:
        return bool(open_ - {"output"}) or "output" in record.refine
    doubt = LOST.search(seen.note)
    if doubt is not None and doubt[1] in products:
        return True
    if not several(seen.pieces.get("output", ())) and "output" not in record.refine:
        open_.discard("output")
    return bool(open_ - seen.refine.keys()) or (lost is not None and lost[1] in turned_in(seen.pieces))


def _orders(
    record: LayerRecord, found: Candidate, keyed: Keyed, registry: Registry, options: Options
) -> dict[str, Order]:
    """What both models' wiring shows of the axes of a layer."""
    if options.keeps(record.name) or found.form.apart or not composite(record):
        return {}
    path = next(iter(found.names.values()), "").rpartition(".")[0]
    seen = seen_of(keyed, path)
    if seen is None:
        return {}
    here = refine_of(record, registry, record.form.partition(".")[0])
    there = _supposed(record, seen, refine_of(record, registry, keyed.framework))
    orders = {
        axis: order_of(record, axis, seen, (here.get(axis, ""), there.get(axis, "")))
        for axis in record.pieces
        if axis in seen.pieces
    }
    joined = {axis for axis, r in record.refine.items() if r.joined}  # no framework has a habit for these
    return {axis: order for axis, order in orders.items() if order.sure or axis not in joined}


def _supposed(record: LayerRecord, seen: Seen, habit: Mapping[str, str]) -> dict[str, str]:
    own = {axis: r.own for axis, r in seen.refine.items() if r.own and axis in habit}
    return {**habit, **{axis: getattr(record.refine[axis], order) for axis, order in own.items()}}


def rebound(record: LayerRecord, bound: BoundForm, registry: Registry) -> BoundForm:
    """A layer's form bound anew, where its axes turned out to be made of others."""
    return bind(
        bound.kind,
        bound.form,
        bound.config,
        shapes={name: tensor.shape for name, tensor in record.tensors.items()},
        sizes={**bound.sizes, **{leaf: n for r in record.refine.values() for leaf, n in r.sizes.items()}},
        refine=refine_of(record, registry, bound.form.framework),
        instance=record.instance,
    )


def refine_there(
    record: LayerRecord,
    found: Candidate,
    keyed: Keyed,
    registry: Registry,
    options: Options,
    settled: Collection[str] = (),
) -> dict[str, str]:
    """Axis -> its dims in the keyed model, over the record's own leaf axes.

    A state dict has its framework's habit; an ONNX model, a torch program and a module that can be traced have the
    order that their graph shows.

    Args:
        found: the layer's place there. settled: axes of which the order is known already.

    Raises:
        ConversionError: one model flattens a map where the other does not, or another map, or nobody can tell.
    """
    keeps = options.keeps(record.name)
    habit = refine_of(record, registry, keyed.framework, keeps)
    if found.form.apart & habit.keys():  # the form says itself where they stand
        return found.form.laid(refine_of(record, registry, keyed.framework))
    path = next(iter(found.names.values()), "").rpartition(".")[0]
    module = keyed.modules.get(path)
    if not keeps and keyed.framework != "onnx":
        _check_joined(record, {axis: dims for axis, dims in habit.items() if axis not in settled}, keyed, path)
    if keyed.axes is not None and record.refine and not keeps:
        seen = keyed.axes().get(path)
        own = {axis: r.own for axis, r in seen.refine.items() if r.own and axis in habit} if seen else {}
        return {**habit, **{axis: getattr(record.refine[axis], order) for axis, order in own.items()}}
    if keyed.framework != "onnx" or module is None or keeps:
        return habit
    for axis in (axis for axis in {**habit, **module.refine} if axis not in settled):
        _check(record, axis, record.refine.get(axis), module)
    lasts = {axis for axis, one in module.refine.items() if one.own == "last"}
    return {axis: record.refine[axis].last if axis in lasts else text for axis, text in habit.items()}


def tells(record: LayerRecord, found: Candidate, keyed: Keyed) -> bool:
    """Whether the keyed model's program shows the order of all axes that the record's layer has refined; of a model
    without a program its framework's habit is all that there is."""
    if keyed.axes is None or not record.refine:
        return True
    seen = keyed.axes().get(next(iter(found.names.values()), "").rpartition(".")[0])
    return seen is not None and record.refine.keys() <= seen.refine.keys()


def refine_of_goal(record: LayerRecord, goal: LayerRecord, registry: Registry, framework: str) -> dict[str, str]:
    """Axis -> its dims in a model with a config of its own, over the record's leaf axes where both are of one map.

    Each model names the axes of a map as it knows them: one of 4 x 4 positions may have `h w` here and `hw` there.
    """
    found = refine_of(goal, registry, framework)
    for axis, text in found.items():
        here, there = record.refine.get(axis), goal.refine[axis]
        if here is not None and here.sizes != there.sizes and _alike(here, there):
            found[axis] = here.last if text == there.last else here.first
    return found


def _check_joined(record: LayerRecord, habit: Mapping[str, str], keyed: Keyed, path: str) -> None:
    """Refuse what only the other model's program tells, where it does not; and what it alone tells, of a file."""
    seen = keyed.axes().get(path) if keyed.axes is not None else None
    dealt = seen.refine.get("out") if seen is not None and "out" not in record.refine and not record.inputs else None
    if dealt is not None:
        raise dealt_error(record, dealt)
    for axis, here in record.refine.items():
        if not here.joined or axis not in habit:
            continue
        there = seen.refine.get(axis) if seen else None
        if there is None or _sizes(there) != _sizes(here):
            untold = "what the other model joins here could not be followed" if keyed.axes is not None else ""
            raise joined_error(record, axis, here.joined, (seen.note if seen else "") or untold)


def _check(record: LayerRecord, axis: str, here: Refinement | None, module: Module) -> None:
    there = module.refine.get(axis)
    if here is not None and there is not None and (_sizes(here) == _sizes(there) or _alike(here, there)):
        return
    if (here is None or there is None) and all(one is None or len(_sizes(one)) < 2 for one in (here, there)):
        return  # a map of one position: there is nothing that could stand in another order
    if here is None or there is None:
        why = module.note or record.note or "one of the two models flattens a map into it, the other does not"
    else:
        why = f"it is {here.why} of sizes {_sizes(here)} here, {there.why} of sizes {_sizes(there)} in the ONNX model"
    raise ConversionError(
        f"the order of the {axis} axis is not known",
        why=why,
        do=f"say that the order stays as it is: --keep-order {record.name}",
    )


def _alike(here: Refinement, there: Refinement) -> bool:
    """Whether they are one map, of which one model tells only how many positions it has."""
    maps = [_map(found) for found in (here, there)]
    one, other = maps
    return one is not None and other is not None and one[:2] == other[:2] and 1 in (one[2], other[2])


def _map(found: Refinement) -> tuple[int, int, int] | None:
    """Channels, positions, and the axes of these; None where it is no channels before, or after, all positions."""
    first, last = (re.fullmatch(r"\(([\w ]+)\)", order) for order in (found.first, found.last))
    if first is None or last is None:
        return None
    channel, *positions = first[1].split()
    if last[1].split() != [*positions, channel]:
        return None
    return found.sizes[channel], prod(found.sizes[name] for name in positions), len(positions)


def _sizes(found: Refinement) -> list[int]:
    return sorted(n for n in found.sizes.values() if n != 1)
