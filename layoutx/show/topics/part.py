"""Which numbers are one gate, head or filter: their slice, where it lies, what it computes, and its relatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from layoutx.explained import Bar, Block, Code, Rows, Say
from layoutx.lang.tree import Axis, Dim, Option, Product, Sum
from layoutx.plan.region import picked
from layoutx.plan.words import orders
from layoutx.show.parts import Part, part_of, spellings
from layoutx.show.picture import Spot
from layoutx.show.topics.words import Subject, label_word, words_of
from layoutx.spec.bound import BoundForm, BoundTensor, atom_text
from layoutx.spec.registry import Registry
from layoutx.spec.schema import choose


def part(subject: Subject, name: str, known: Registry, to: list[str]) -> tuple[str, list[Block], dict[str, Any], Part]:
    """The part, its title, and what else there is to say about it."""
    bound = subject.bound
    found = part_of(bound, name, layer=subject.name)
    where = " and ".join(region.text for region in found.regions)
    axes = ", ".join(f"{words_of(bound, axis).many or axis} {size}" for axis, size in found.axes)
    title = f"{_called(bound, found)}: {where}" + (f", as ({axes})." if axes else ": one number.")
    blocks: list[Block] = list(_bars(bound, found))
    order = list(_orders(subject, found, known, to))
    if order:
        blocks.append(Rows(("order", "", "as stored"), tuple(order)))
    relatives = list(_relatives(bound, found))
    if relatives:
        blocks.append(Rows(("its relatives", "", ""), tuple(relatives)))
    blocks += [Code((text,)) for text in equations(bound, found)]
    if subject.view is not None:
        blocks.append(Say(_python(subject, name, found)))
    data = {
        "part": name,
        "role": found.role,
        "labels": dict(found.labels),
        "index": dict(found.at),
        "axes": [[axis, size] for axis, size in found.axes],
        "where": [{"tensor": r.tensor, "shape": list(r.shape), "slice": r.text} for r in found.regions],
        "equations": equations(bound, found),
        "relatives": [{"part": one, "where": text} for one, text, _ in relatives],
    }
    return title, blocks, data, found


def _python(subject: Subject, name: str, found: Part) -> str:
    """The call that gives the part; of several blocks, one call each."""
    kept = f'lx.inspect(file)["{subject.name}"].part("{name}")'
    if len(found.regions) == 1:
        return f"In Python: {kept}, a view without a copy, what the layer reads first."
    first, *rest = [spellings(atom, subject.bound)[-1] for atom, _ in found.atoms]
    kept = f'lx.inspect(file)["{subject.name}"].part("{first}")'
    return f"In Python each by its own name: {kept}, likewise {', '.join(rest)}."


def _called(bound: BoundForm, found: Part) -> str:
    """`The forget gate's w_input (from the input to each gate)`."""
    named = [label_word(bound, axis, label) for axis, label in found.labels.items() if _several(bound, axis)]
    over = bound.kind.index
    at = [f"{a if a not in over.get(a, (a,)) else words_of(bound, a).one} {n}" for a, n in found.said.items()]
    whole = ", ".join([*reversed(named), *at])
    about = bound.kind.roles[found.role].about.partition(";")[0]
    role = f"{found.role} ({about})" if about else found.role
    return f"The {whole}, {role}" if whole else role


def _several(bound: BoundForm, axis: str) -> bool:
    return len(bound.labels.get(axis, ())) > 1


def _bars(bound: BoundForm, found: Part) -> Iterator[Bar]:
    """Each stored tensor of the part along the dimension in which blocks lie end to end, or in which it is a run."""
    for region in found.regions:
        tensor = bound.tensor(region.tensor)
        if not region.taken:
            continue
        cut = [d for d, n in enumerate(region.shape) if len(region.taken[d]) < n]
        if not cut:
            yield Bar(region.tensor, (("all of it", region.shape[0] if region.shape else 1, True),))
            continue
        dim = max(cut, key=lambda d: _options(tensor.layout.dims[d]) is not None)
        cells = _cells(bound, tensor, dim) or ((("", region.shape[dim])),)
        first, last = region.taken[dim][0], region.taken[dim][-1] + 1
        start, parts = 0, list[tuple[str, int, bool]]()
        for text, size in cells:
            if start < first < start + size or start < last < start + size:  # a part of a block
                inner = [("", first - start), (text, last - first), ("", start + size - last)]
                parts += [(label, n, i == 1) for i, (label, n) in enumerate(inner) if n > 0]
            else:
                parts.append((text, size, first <= start and start + size <= last))
            start += size
        yield Bar(region.tensor, tuple(parts))


def _options(dim: Dim) -> Sum | None:
    if isinstance(dim, Sum):
        return dim
    if isinstance(dim, Product):
        return next((d for d in dim.dims if isinstance(d, Sum)), None)
    return None


def _cells(bound: BoundForm, tensor: BoundTensor, dim: int) -> tuple[tuple[str, int], ...]:
    """(label as the framework spells it, length) of the blocks of one dimension, where they lie end to end."""
    node = tensor.layout.dims[dim]
    inner = _options(node)
    size = tensor.shape[dim]
    if inner is None or any(isinstance(d, Sum) for o in inner.options for d in o.dims):
        return ()
    if isinstance(node, Product) and not isinstance(node.dims[0], Sum):
        return ()
    spelled = orders(tensor).get(inner.axis or "parts")
    names = spelled.spelled if spelled else tuple(o.label for o in inner.options)
    if inner.axis is not None and not any(o.dims for o in inner.options):
        return tuple((name, size // len(names)) for name in names)
    lengths = [_length(bound, option) for option in inner.options]
    rest = size // sum(lengths) if sum(lengths) and size % sum(lengths) == 0 else 0
    return tuple(zip(names, [n * rest for n in lengths], strict=True)) if rest else ()


def _length(bound: BoundForm, option: Option) -> int:
    return prod(bound.sizes.get(dim.name, 1) for dim in option.dims if isinstance(dim, Axis))


def _orders(subject: Subject, found: Part, known: Registry, to: list[str]) -> Iterator[tuple[str, str, str]]:
    """The order of the labels here and in other frameworks: Keras i f c o, torch i f g o, ONNX i o f c."""
    bound = subject.bound
    enumerated = [axis for axis in found.labels if _several(bound, axis) and axis != "direction"]
    for axis in enumerated:
        here = next((o for t in bound.tensors if (o := orders(t).get(axis))), None)
        if here is None:
            continue
        yield axis, subject.bound.form.name, " ".join(here.spelled)
        for name in to:
            other = known.form(name)
            for spec in other.tensors:
                text = _order_text(spec.cases[0].value, axis)
                if text:
                    yield "", name, text
                    break


def _order_text(layout: Any, axis: str) -> str:
    """The labels of an axis as another form writes them: they need no sizes."""
    from layoutx.lang.tree import walk

    for node in walk(layout.dims):
        if isinstance(node, Sum) and node.axis == axis and len(node.options) > 1:
            return " ".join(layout.text[slice(*o.span)] or o.label for o in node.options)
    return ""


def _relatives(bound: BoundForm, found: Part) -> Iterator[tuple[str, str, str]]:
    """The same gate or head in the layer's other roles."""
    mine = {axis: label for axis, label in found.labels.items() if _several(bound, axis)}
    own = {atom for atom, _ in found.atoms}
    for atom in bound.places:
        labels = dict(atom[1])
        if atom in own or not mine or any(labels.get(axis) != label for axis, label in mine.items()):
            continue
        name = spellings(atom, bound)[-1]
        other = part_of(bound, name)
        yield name, other.regions[0].text, bound.kind.roles[atom[0]].about


def equations(bound: BoundForm, found: Part) -> list[str]:
    """What the gate computes, with this layer's functions: `f = sigmoid(x @ w_input.f + h @ w_recurrent.f + b.f)`."""
    texts = []
    for axis, label in found.labels.items():
        text = choose(words_of(bound, axis).computes.get(label, ()), bound.facts)
        if text is not None:
            facts: Mapping[str, Any] = bound.facts
            texts.append(str(text).format(**{name: str(value) for name, value in facts.items()}))
    return texts


def spot(bound: BoundForm, found: Part) -> Spot | None:
    """Where the picture points; None where the part is several blocks."""
    if len(found.atoms) != 1:
        return None
    ((atom, place),) = found.atoms
    block = picked(place.block, found.at)
    steps = tuple((bound.sizes[axis], step) for axis, step in block.strides.items())
    return Spot(place.tensor, block.offset, steps, atom_text(atom))
