"""Why a layer has no place in a keyed model, or too many: both sides' shapes, every dimension with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layoutx.errors import MatchError
from layoutx.model.keyed import Keyed
from layoutx.model.order import keeps_order
from layoutx.model.places import Candidate, Layer, Stored, places, plain, stored
from layoutx.plan.words import described, dim_name
from layoutx.spec.registry import Registry

MOST = 8
OTHER_RANK = "it would have to have the dimensions"


def ambiguous(layer: Layer, candidates: Sequence[Candidate], keyed: Keyed) -> MatchError:
    """A layer that fits several places."""
    found = list(dict.fromkeys(c.prefix or "(top level)" for c in candidates))
    return MatchError(
        f"{layer.record.name} ({layer.record.class_name}) fits several places",
        where="candidates: " + ", ".join(found[:MOST]) + (", ..." if len(found) > MOST else ""),
        why="names and order do not decide between them"
        if keeps_order(keyed)
        else "the file is sorted by name, as safetensors does: its order says nothing",
        do=f"say which: --pair {layer.record.name}={found[0]}",
    )


def homeless(layer: Layer, keyed: Keyed, registry: Registry, only: str | None = None) -> MatchError:
    """A layer without a place, and the nearest places with the shapes that differ; `only`: the user's own choice."""
    bound = layer.bound
    forms = registry.forms_of(bound.kind.name, keyed.framework)
    ways = [way for form in forms for way in stored(layer, form, keyed)]
    own = f"{layer.record.name}: " + ", ".join(described(t) for t in bound.tensors)
    classes = " or ".join(dict.fromkeys(f.class_name for f in forms)) or bound.kind.name
    near = _nearest(layer, ways, keyed, only)
    if only is not None and not near and not any(n == only or n.startswith(f"{only}.") for n in keyed.tensors):
        near = [f"there is no module {only}"]
    place = f"no place in the {keyed.framework} model" if only is None else f"{only} of the {keyed.framework} model"
    return MatchError(
        f"{place} {'fits' if only is None else 'does not fit'} {layer.record.name} ({layer.record.class_name})",
        where=[own, *near],
        why=f"a {keyed.framework} {classes} of these sizes is not there",
        do="correct the target model, or leave the layer out with --skip",
    )


def _nearest(layer: Layer, ways: Sequence[Stored], keyed: Keyed, only: str | None) -> list[str]:
    """The differences at the place of the same name, else at the places with the fewest."""
    found: dict[str, list[str]] = {}
    for way in ways:
        for prefix, names in places(way.bound.form, list(way.shapes), keyed):
            lines = list(_differences(way, names, keyed))
            if prefix not in found or len(lines) < len(found[prefix]):
                found[prefix] = lines
    kinds = {way.bound.form.name for way in ways}
    for prefix, lines in found.items():
        known = keyed.modules.get(prefix)
        if known is not None and known.form and known.form not in kinds:
            lines.append(f"{prefix} is a {known.class_name} there")
    if only is not None:
        return found.get(only, [])
    last = plain(layer.record.name.rpartition("/")[2])
    same = [lines for prefix, lines in found.items() if plain(prefix.rpartition(".")[2]) == last]
    alike = [lines for lines in found.values() if not any(OTHER_RANK in line for line in lines)]
    return (same or sorted(alike, key=len) or [[]])[0][:MOST]


def _differences(way: Stored, names: dict[str, str], keyed: Keyed) -> Iterator[str]:
    """`head.weight is (11, 42) there, output×input; it would have to be (output 7, input 42)`."""
    for tensor in way.bound.tensors:
        if tensor.name not in way.shapes:
            continue
        there = keyed.tensors[names[tensor.name]].shape
        axes = [dim_name(dim) for dim in tensor.layout.dims]
        if len(there) != len(axes):
            yield f"{names[tensor.name]} is {there} there, {OTHER_RANK} {', '.join(axes)}"
        elif there != tensor.shape:
            here = ", ".join(f"{axis} {n}" for axis, n in zip(axes, tensor.shape, strict=True))
            now = ", ".join(f"{axis} {n}" for axis, n in zip(axes, there, strict=True))
            yield f"{names[tensor.name]} is ({now}) there, it would have to be ({here})"
