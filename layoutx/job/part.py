"""What one source gives to a target that keeps the rest of its own: chosen pairs, and why the others are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from layoutx.errors import ConversionError, LayoutxError
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.job.joined import Joined, Joint, Side
from layoutx.job.joint import joint
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry

Model = Keyed | ModelRecord


@frozen
class Part:
    """One source of a transfer.

    Attributes:
        name, source: what the source is called, and its layers.
        chosen: the pairs that are carried out.
        joint: all that is known of both sides.
        untaken: source tensor -> why no layer of the target takes it.
        left: target tensor -> why this source does not write it, where there is more to say than "nothing fits".
        problems: pairs that were wanted and cannot be carried out.
    """

    name: str
    source: Model
    chosen: tuple[Joined, ...]
    joint: Joint
    untaken: Mapping[str, str]
    left: Mapping[str, str]
    problems: tuple[LayoutxError, ...]


def means(patterns: Iterable[str], *names: str) -> bool:
    """Whether a pattern means a layer or tensor: one of its names, or that of a module above it."""
    spelled = {spelling for name in names for spelling in (name, name.replace("/", "."))}
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or fnmatchcase(name, f"{pattern}/*")
        for pattern in patterns
        for name in spelled
    )


def means_side(patterns: Iterable[str], side: Side) -> bool:
    """Whether a pattern means one side of a pair: its layer, or a tensor of it."""
    return means(patterns, side.name, *(tensor.name for tensor in side.tensors.values()))


def restricted(model: Model, patterns: Sequence[str]) -> Model:
    """The layers of a model that the patterns mean; the model itself where they mean all of it."""
    if isinstance(model, Keyed):
        tensors = {name: t for name, t in model.tensors.items() if means(patterns, name, t.name)}
        tied = {name: first for name, first in model.tied.items() if name in tensors and first in tensors}
        return model if len(tensors) == len(model.tensors) else replace(model, tensors=tensors, tied=tied)
    layers = tuple(r for r in model.layers if means(patterns, r.name, *(t.name for t in r.tensors.values())))
    return model if len(layers) == len(model.layers) else replace(model, layers=layers)


def names_in(model: Model) -> dict[str, str]:
    """Stored name of every tensor of a model, leftovers too -> its layer, as the model calls it; "" for none."""
    if isinstance(model, Keyed):
        found = {t.name: full.rpartition(".")[0] or full for full, t in model.tensors.items()}
        return {**dict.fromkeys(model.leftover, ""), **found}
    own = {t.name: r.name for r in reversed(model.layers) for t in r.tensors.values()}
    return {**dict.fromkeys((*model.store.tensors, *model.leftover), ""), **own}


def part(
    name: str,
    source: Model,
    target: Model,
    registry: Registry,
    options: Options,
    places: Sequence[str] = (),
) -> Part:
    """Join a source with a target, and choose.

    Args:
        options: `only` and `skip` may mean layers of either side.
        places: patterns of the target's layers that are for this source; () is all.

    Raises:
        UsageError: pairs that name no layer.
    """
    whole = replace(options, only=(), skip=())
    goal = restricted(target, places) if places else target
    found = joint(source, goal, registry, whole)
    if options.only and _unsettled(found, options):
        again = joint(_mine(source, options.only), _mine(goal, options.only), registry, whole)
        found = again if _unsettled(again, options) < _unsettled(found, options) else found
    return _chosen(name, source, found, options, places)


def _mine(model: Model, patterns: Sequence[str]) -> Model:
    """The layers that are meant, where any of this model's are."""
    own = restricted(model, patterns)
    held = own.tensors if isinstance(own, Keyed) else own.layers
    return own if held else model


def _unsettled(found: Joint, options: Options) -> int:
    """How many of the layers that the user wants have no counterpart yet."""
    lost = [name for name in (*found.lost, *found.open) if means(options.only, name)]
    return len(lost) + sum(means(options.only, name) for name in found.unused)


def _chosen(name: str, source: Model, found: Joint, options: Options, places: Sequence[str]) -> Part:
    chosen: list[Joined] = []
    untaken: dict[str, str] = {}
    left: dict[str, str] = {}
    problems: list[LayoutxError] = []
    for pair in found.pairs:
        why = _why_not(pair, options)
        if why:
            untaken |= dict.fromkeys((t.name for t in pair.source.tensors.values()), why)
            left |= dict.fromkeys((t.name for t in pair.target.tensors.values()), why)
        elif pair.plan is None:
            problems.append(_refused(pair))
        else:
            chosen.append(pair)
    taken = {t.name for pair in chosen for t in pair.source.tensors.values()}
    for tensor, layer in names_in(source).items():
        if tensor not in taken and tensor not in untaken:
            untaken[tensor] = _reason(tensor, layer, found, options, places)
    return Part(name, source, tuple(chosen), found, untaken, left, tuple(problems))


def _why_not(pair: Joined, options: Options) -> str:
    if means_side(options.skip, pair.source) or means_side(options.skip, pair.target):
        return "left out by skip"
    if options.only and not (means_side(options.only, pair.source) or means_side(options.only, pair.target)):
        return "not in only"
    return ""


def _refused(pair: Joined) -> LayoutxError:
    """Why a wanted pair cannot be carried out, with the way out that a transfer has."""
    problem = pair.problem or ConversionError(f"{pair.source.name} has no plan into {pair.target.name}")
    place = f"{pair.source.name} into {pair.target.name}"
    return ConversionError(
        problem.what,
        where=(place, *problem.where),
        why=problem.why,
        do=f"leave it as it is: --skip {pair.target.name}; {problem.do}".rstrip("; "),
    )


def _reason(tensor: str, layer: str, found: Joint, options: Options, places: Sequence[str]) -> str:
    if tensor in found.leftover:
        return found.leftover[tensor]
    if means(options.skip, tensor, layer):
        return "left out by skip"
    if options.only and not means(options.only, tensor, layer):
        return "not in only"
    for name in (*found.open, *found.lost):
        if layer == name or layer.startswith((f"{name}.", f"{name}/")):
            several = found.open.get(name, ())
            if several:
                return f"may be {' or '.join(several[:3])}: nothing decides"
            return f"nothing of {', '.join(places)} takes it" if places else found.lost[name]
    return "no layer of the target takes it" if layer else "belongs to no layer"


def job_of_part(found: Part, frameworks: tuple[str, str]) -> Job:
    """The chosen pairs as a job.

    Args:
        frameworks: of the source and of the target.
    """
    layers = tuple(
        LayerJob(
            pair.record,
            pair.plan,
            pair.source.tensors,
            {slot: tensor.name for slot, tensor in pair.target.tensors.items()},
            pair.reason,
            pair.target.refine,
            pair.last,
            known=frozenset(pair.plan.target.config),
            alike=pair.alike,
        )
        for pair in found.chosen
        if pair.plan is not None
    )
    order = tuple(full for layer in layers for full in layer.targets.values())
    return Job(*frameworks, layers, order=order)
