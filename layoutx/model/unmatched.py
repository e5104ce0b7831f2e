"""Why a layer has no place in a keyed model, or too many: both sides' shapes, every dimension with its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import log

from layoutx.errors import MatchError
from layoutx.model.bare import NUMBER
from layoutx.model.keyed import Keyed, forms_for
from layoutx.model.matching.evidence import place_name
from layoutx.model.order import keeps_order
from layoutx.model.parametrized import sites
from layoutx.model.paths import places
from layoutx.model.places import Candidate, plain
from layoutx.model.said import pair_option
from layoutx.model.storing import Layer, Stored, stored
from layoutx.plan.fit import labels_apart
from layoutx.plan.naming import dim_name
from layoutx.plan.offer import module_for, offer
from layoutx.plan.words import described
from layoutx.spec.configs import switches
from layoutx.spec.guess import form_option
from layoutx.spec.registry import Registry
from layoutx.words import listed, near

MOST = 8
OTHER_RANK = "it would have to have the dimensions"
ATTENTION = "attention"


def _told(layer: Layer) -> str:
    """A layer's name, and its class where the model tells it."""
    return f"{layer.record.name} ({layer.record.class_name})" if layer.record.class_name else layer.record.name


def ambiguous(layer: Layer, candidates: Sequence[Candidate], keyed: Keyed) -> MatchError:
    """A layer that fits several places, or one that other layers fit as well."""
    found = list(dict.fromkeys(place_name(c) or "(top level)" for c in candidates))
    if len(found) == 1:
        return MatchError(
            f"{_told(layer)} fits {found[0]}, and so do other layers",
            why="the target has fewer such places than the source has layers",
            do=f"say which layer it is: --pair {layer.record.name}={found[0]}; leave the others out with --skip",
        )
    return MatchError(
        f"{_told(layer)} fits several places",
        where="candidates: " + ", ".join(found[:MOST]) + (", ..." if len(found) > MOST else ""),
        why="names and order do not decide between them"
        + (f", and the model did not run on inputs made up for it: {keyed.refused[0]}" if keyed.refused else "")
        if keeps_order(keyed)
        else "the file is sorted by name, as safetensors does: its order says nothing",
        do=("give port inputs that both models take (--inputs FILE, inputs=...), or " if keyed.refused else "")
        + f"say which, in this way: {pair_option(layer.record.name, found[0])}{_alive(keyed)}",
    )


def _alive(keyed: Keyed) -> str:
    """That a live module tells more than a file of names: its classes (a convolution, or one transposed), its calls."""
    bare = keyed.framework == "torch" and not keyed.modules
    return (
        "; or, in the file's place, give the live module that has loaded it, which tells what each is" if bare else ""
    )


def crowded(layers: Sequence[Layer], options: Mapping[str, Sequence[Candidate]]) -> MatchError:
    """More layers of one shape than can be compared with as many places, each with all."""
    most = max(layers, key=lambda layer: len(options[layer.record.name]))
    name, places = most.record.name, [place_name(c) for c in options[most.record.name]]
    many = sum(options[layer.record.name] is options[name] for layer in layers)
    own = re.findall(r"\d+", name)
    like = next((place for place in places if re.findall(r"\d+", place) == own), places[0])
    return MatchError(
        f"{many} layers of one shape fit {len(places)} places: too many to compare each with all",
        where=f"{name}, ...: " + ", ".join(places[:2]) + ", ...",
        do=f"say with patterns where they belong, as in {pair_option(name, like)}",
    )


def squeezed(layer: Layer, candidates: Sequence[Candidate], owners: Mapping[str, str]) -> MatchError:
    """A layer all of whose places other layers have, for better reasons."""
    name = layer.record.name
    theirs = {c.prefix or "(top level)": owners.get(next(iter(c.names.values())), "") for c in candidates}
    taken = [f"{place} ({owner})" if owner else place for place, owner in theirs.items()]
    return MatchError(
        f"no place is left for {_told(layer)}",
        where="it fits " + ", ".join(taken[:MOST]) + (", ..." if len(taken) > MOST else ""),
        why="these belong to the layers in brackets, for which more speaks",
        do=f"leave it out with --skip {name}, or say which it is: --pair {name}={candidates[0].prefix}",
    )


def untold(layer: Layer, found: Candidate) -> MatchError:
    """A place whose names and shapes allow two layouts of the same numbers."""
    name, key = layer.record.name, found.open[0]
    values = " or ".join(str(value).lower() for value in switches(found.form).get(key, ()))
    return MatchError(
        f"{found.prefix or name} fits {found.form.name} with two values of {' and '.join(found.open)}",
        where=", ".join(f"{short} {shape}" for short, shape in _shapes(layer, found)),
        why="they store the same shapes with the numbers at other places, and the file does not tell which it is",
        do=f"say it: --set {name}.{key}=VALUE, {values} (in Python, values={{'{name}.{key}': ...}})",
    )


def _shapes(layer: Layer, found: Candidate) -> Iterator[tuple[str, tuple[int, ...]]]:
    shapes = {tensor.name: tensor.shape for tensor in layer.bound.tensors}
    yield from ((full, shapes[short]) for short, full in found.names.items() if short in shapes)


def refused_words(names: Sequence[str], registry: Registry, framework: str) -> str:
    """Why tensors have no layer, where their names are those of something that no form holds (LoRA)."""
    words = {word for name in names for word in re.split(r"[/.]", name)}
    return next((why for word, why in registry.framework(framework).refuse.items() if word in words), "")


def homeless(
    layer: Layer,
    keyed: Keyed,
    registry: Registry,
    only: str | None = None,
    first: bool = False,
    layers: Sequence[Layer] = (),
) -> MatchError:
    """A layer without a place, and the nearest places with the shapes that differ.

    Args:
        only: the user's own choice. first: it stands at the model's inputs. layers: all of its model.
    """
    bound = layer.bound
    forms = forms_for(bound.kind.name, keyed, registry)
    ways = [way for form in forms for way in stored(layer, form, keyed)]
    own = f"{layer.record.name}: " + ", ".join(described(t) for t in bound.tensors)
    classes = " or ".join(dict.fromkeys(f.class_name for f in forms)) or bound.kind.name
    nearest, longer = _nearest(layer, ways, keyed, only)
    if only is not None and not nearest and not any(n == only or n.startswith(f"{only}.") for n in keyed.tensors):
        modules = dict.fromkeys(name.rpartition(".")[0] for name in keyed.tensors)
        why = "; ".join(filter(None, [f"there is no module {only}", near(only, modules)]))
        do = f"correct the place: --pair {layer.record.name}={only}"
        return MatchError(f"{_told(layer)} has no place {only}", where=own, why=why, do=do)
    apart = [found for form in forms if (found := labels_apart(bound, form)) is not None]
    if apart and len(apart) == len(forms):
        return MatchError(apart[0].what, where=own, why=apart[0].why, do=apart[0].do)
    place = f"no place in the {keyed.framework} model" if only is None else f"{only} of the {keyed.framework} model"
    return MatchError(
        f"{place} {'fits' if only is None else 'does not fit'} {_told(layer)}",
        where=[own, *nearest],
        why=f"a {keyed.framework} {classes} of these sizes is not there",
        do=_of_class(layer, layers, registry) or _remedy(layer, keyed, longer, first),
    )


def _remedy(layer: Layer, keyed: Keyed, longer: int, first: bool) -> str:
    """The class of layoutx.torch to build the target with, where the framework has none of this function.

    Args:
        longer: how many rows the nearest place of a table has more, 0 where that is not all that differs.
        first: it stands at the model's inputs.
    """
    found = module_for(layer.bound, keyed.framework)
    if first and all(role.state for role in layer.bound.kind.roles.values()):  # statistics alone: it prepares the data
        either = f"build the target with {offer(found)}, or" if found is not None else "it prepares the data:"
        skip = f"leave it out (--skip {layer.record.name})"
        return f"{either} {skip}, and the other model is given what it makes of the inputs"
    if found is not None:
        return f"build the target with {offer(found)}"
    if longer > 0:
        why = "where positions are counted from a padding row on, they are the first"
        say = f"then say so (--set offset={longer}), or leave it out with --skip {layer.record.name}"
        return f"the table there has {longer} rows more, and nothing says which they are ({why}): {say}"
    if layer.bound.kind.name == ATTENTION and keyed.framework == "torch" and not keyed.modules:
        why = "names and shapes alone do not tell which projections are one attention, or how one is packed"
        return f"{why}: in the file's place give the live module that has loaded it; or --skip {layer.record.name}"
    return _unparted(keyed) or "correct the target model, or leave the layer out with --skip"


def _of_class(layer: Layer, layers: Sequence[Layer], registry: Registry) -> str:
    """What to do with a number of a class that nobody knows: the forms that all numbers of its holder fit; else ""."""
    holder, slash, _ = layer.record.name.rpartition("/")
    if not slash or layer.record.note != NUMBER:
        return ""
    held = [one.record for one in layers if one.record.note == NUMBER and one.record.name.rpartition("/")[0] == holder]
    shapes = {str(i): one.shape for i, one in enumerate(t for record in held for t in record.tensors.values())}
    say = form_option(holder, shapes, registry, layer.bound.form.name.partition(".")[0])
    why = f"no form is known for the class {layer.record.class_name}, so that its numbers were looked for one by one"
    return f"{why}: name its form ({say}), correct the target model, or --skip {layer.record.name}"


def _unparted(keyed: Keyed) -> str:
    """What to do where weights of the other model are stored in parts, one of which may be the place; "" where none."""
    found = [site for site in sites(keyed) if site.module]
    if not found:
        return ""
    names = listed([site.module for site in found])
    methods = " and ".join(dict.fromkeys(site.method for site in found))
    how = " (torch.nn.utils.parametrize.remove_parametrizations)" if keyed.framework == "torch" else ""
    return (
        f"the weights of {names} are stored through {methods} there: remove it{how}, and put it on again afterwards; "
        "or leave the layer out with --skip"
    )


def _nearest(layer: Layer, ways: Sequence[Stored], keyed: Keyed, only: str | None) -> tuple[list[str], int]:
    """The differences at the place of the same name, else at the nearest place; rows that a table has more there."""
    found: dict[str, list[str]] = {}
    apart: dict[str, float] = {}
    longer: dict[str, int] = {}
    for way in ways:
        for prefix, names in places(way.bound.form, list(way.shapes), keyed):
            lines = list(_differences(way, names, keyed))
            if prefix not in found or len(lines) < len(found[prefix]):
                found[prefix] = lines
                sizes = [(here, there) for n in way.shapes for here, there in _sizes(way.shapes[n], keyed, names[n])]
                apart[prefix] = sum(abs(log(max(here, 1) / max(there, 1))) for here, there in sizes)
                rows = [there - here for here, there in sizes if here != there]
                longer[prefix] = rows[0] if len(rows) == 1 and layer.bound.kind.name == "embedding" else 0
    kinds = {way.bound.form.name for way in ways}
    for prefix, lines in found.items():
        known = keyed.modules.get(prefix)
        if known is not None and known.form and known.form not in kinds:
            lines.append(f"{prefix} is a {known.class_name} there")
    if only is not None:
        return found.get(only, []), longer.get(only, 0)
    last = plain(layer.record.name.rpartition("/")[2])
    same = [prefix for prefix in found if plain(prefix.rpartition(".")[2]) == last]
    alike = [prefix for prefix, lines in found.items() if not any(OTHER_RANK in line for line in lines)]
    near = (same or sorted(alike, key=lambda prefix: (len(found[prefix]), apart[prefix])) or [""])[0]
    return found.get(near, [])[:MOST], longer.get(near, 0)


def _sizes(shape: Sequence[int], keyed: Keyed, name: str) -> Iterator[tuple[int, int]]:
    """Each size of a tensor as it would be stored, and as it is there; none where they have other ranks."""
    there = keyed.tensors[name].shape
    return zip(shape, there, strict=True) if len(shape) == len(there) else iter(())


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
