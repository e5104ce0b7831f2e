"""Every tensor of a target accounted for: written by one source, kept for a reason, or missing, which is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.errors import LayoutxError, MatchError
from layoutx.job.jobs import Options
from layoutx.job.part import Model, Part, means, names_in
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.words import listed

MOST = 3  # layers without numbers of which each has an error of its own
MOST_NAMED = 12


def written_twice(found: Sequence[Part]) -> list[LayoutxError]:
    """Layers of the target that two sources would write."""
    owner: dict[str, int] = {}
    problems: dict[str, LayoutxError] = {}
    for number, one in enumerate(found):
        for pair in one.chosen:
            for tensor in pair.target.tensors.values():
                other = owner.setdefault(tensor.name, number)
                if other != number:
                    problems[pair.target.name] = MatchError(
                        f"{pair.target.name} of the target would be written by {found[other].name} and by {one.name}",
                        do='say whose it is: {"PATTERN": source, ...}, on the command line PATTERN=FILE',
                    )
    return list(problems.values())


def missing(found: Sequence[Part], places: Sequence[str], there: Model, options: Options) -> list[LayoutxError]:
    """Layers of the target that should get numbers, and for which there is nothing.

    Args:
        places: the patterns before the sources; () where there are none.
    """
    done = written(found, there)
    failed = {t for one in found for pair in one.joint.pairs if pair.plan is None for t in keys(pair.target.tensors)}
    settled = {*done, *failed, *there.leftover, *(tensor for one in found for tensor in one.left)}
    gaps: dict[str, list[str]] = {}
    for tensor, layer in names_in(there).items():
        wanted = means(options.only, tensor, layer) if options.only else not places or means(places, tensor, layer)
        if layer and wanted and tensor not in settled and not means(options.skip, tensor, layer):
            gaps.setdefault(layer, []).append(tensor)
    if len(gaps) <= MOST:
        return [_gap(layer, tensors, found, there) for layer, tensors in gaps.items()]
    return [
        MatchError(
            f"{len(gaps)} layers of the target get nothing",
            where=listed([*gaps], MOST_NAMED),
            why="no layer of a source fits",
            do="choose layers with only=[...] (--only), or name those that keep their numbers with skip=[...] (--skip)",
        )
    ]


def _gap(layer: str, tensors: Sequence[str], found: Sequence[Part], there: Model) -> LayoutxError:
    shapes = _shapes(there)
    reasons = [one.joint.unused[t] for one in found for t in tensors if t in one.joint.unused]
    ranks = sorted(len(shapes.get(name, ())) for name in tensors)
    near = [
        f"{one.name}, {name}: {why}"
        for one in found
        for name, why in one.joint.lost.items()
        if layer in why or ranks == _ranks(one.source, name)
    ]
    return MatchError(
        f"{layer} of the target gets nothing",
        where=[f"{name} {shapes.get(name, '')}".rstrip() for name in tensors[:4]] + near[:2],
        why=next(iter(dict.fromkeys(reasons)), "no source has a layer that fits"),
        do=f"keep the target's own numbers: --skip {layer} (skip=[{layer!r}]); or pair it: --pair LAYER={layer}",
    )


def _ranks(model: Model, layer: str) -> list[int]:
    """How many dimensions the tensors of a layer have: a head of other sizes has as many."""
    shapes = _shapes(model)
    return sorted(len(shapes[name]) for name, own in names_in(model).items() if own == layer and name in shapes)


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    tensors = model.tensors if isinstance(model, Keyed) else model.store.tensors
    return {t.name: t.shape for t in tensors.values()}


def keys(tensors: Mapping[str, Any]) -> list[str]:
    """The stored names of a layer's tensors."""
    return [t.name for t in tensors.values()]


def written(found: Sequence[Part], there: Model) -> dict[str, str]:
    """Target tensor that is written -> the name of the tensor that it shares its numbers with, "" for its own."""
    done = dict.fromkeys((t for one in found for pair in one.chosen for t in keys(pair.target.tensors)), "")
    tied = there.copies if isinstance(there, ModelRecord) else {}
    if isinstance(there, Keyed):
        tied = {there.tensors[name].name: there.tensors[first].name for name, first in there.tied.items()}
    done |= {mine: kept for mine, kept in tied.items() if kept in done and mine not in done}
    return done


def kept(found: Sequence[Part], places: Sequence[str], there: Model, options: Options) -> dict[str, str]:
    """Target tensor that keeps its own numbers -> why."""
    done = written(found, there)
    names = names_in(there).items()
    return {t: _why_kept(t, layer, found, places, there, options) for t, layer in names if t not in done}


def _why_kept(
    tensor: str, layer: str, found: Sequence[Part], places: Sequence[str], there: Model, options: Options
) -> str:
    said = [one.left[tensor] for one in found if tensor in one.left]
    if said or tensor in there.leftover:
        return said[0] if said else there.leftover[tensor]
    if means(options.skip, tensor, layer):
        return "left out by skip"
    if places and not means(places, tensor, layer):
        return "no pattern names it"
    if not layer:
        return "belongs to no layer"
    return "not in only" if options.only else "no layer of a source fits"
