"""Parts of a layer by name, for any framework's file: `w_input.f`, `recurrent.f`, `query[head=2]`, `kernel[out=5]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.lang.place import Block
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array
from layoutx.plan.region import Region, joined, picked, region
from layoutx.plan.views import view
from layoutx.spec.bound import Atom, BoundForm, BoundTensor, Place
from layoutx.spec.expand import axis_names

_TEXT = re.compile(r"([^\[\]]+?)(?:\[([^\[\]]*)\])?")


@frozen
class Part:
    """One part of a layer, found.

    Attributes:
        role: the kind's name. labels: enumerated axes that are fixed. at: integer axes that are fixed.
        atoms: the stored blocks that it is made of, one unless a whole role of several is meant.
        said: the indices as they were asked for: head 2 of an attention.
        axes: the names of its dimensions in the order of `x @ part`, with lengths.
        regions: where it lies, by stored tensor.
    """

    name: str
    role: str
    labels: Mapping[str, str]
    at: Mapping[str, int]
    atoms: tuple[tuple[Atom, Place], ...]
    axes: tuple[tuple[str, int], ...]
    regions: tuple[Region, ...]
    said: Mapping[str, int] = NOTHING


def part_of(bound: BoundForm, name: str, index: Mapping[str, int] = NOTHING, layer: str = "") -> Part:
    """The part of that name.

    Args:
        name: a role, one of its other names or the name of a tensor that holds nothing else; after dots labels of
            gates and directions, in square brackets indices: `w_input.f`, `bias.f`, `w_q[head=2]`.
        index: axis -> which one, as in the brackets.

    Raises:
        UsageError: no such part, or index; with those that there are.
    """
    plain, at = _parsed(name, index)
    found = [(atom, place) for atom, place in bound.places.items() if plain in spellings(atom, bound)]
    found = found or _of_role(bound, plain)
    if not found:
        near = _near(bound, plain)
        why = f"near it are {near}" if near else f"its parts: {_parts(bound, bound.places)}"
        raise UsageError(f"{layer or bound.form.name} has no part {plain!r}", why=why)
    role = found[0][0][0]
    said = dict(found[0][0][1])
    labels = {axis: label for axis, label in said.items() if all(dict(a[1])[axis] == label for a, _ in found)}
    fixed = fixed_at(bound, role, at, found[0][1].block)
    first = found[0][1]
    whole = _whole(bound, role, first)
    sizes = {**bound.sizes, **{axis: prod(bound.sizes[a] for a in leaves) for axis, leaves in whole.items()}}
    axes = tuple((axis, sizes[axis]) for axis in _order(bound, role, first, whole) if axis not in fixed)
    blocks = [(place.tensor, picked(place.block, fixed)) for _, place in found]
    tensors = dict.fromkeys(name for name, _ in blocks)
    regions = tuple(
        joined([region(bound, bound.tensor(t), block) for tensor, block in blocks if tensor == t]) for t in tensors
    )
    return Part(name, role, labels, fixed, tuple(found), axes, regions, at)


def _parts(bound: BoundForm, atoms: Iterable[Atom]) -> str:
    return ", ".join(dict.fromkeys(spellings(atom, bound)[-1] for atom in atoms))


def _near(bound: BoundForm, name: str) -> str:
    """The parts that share most words with a name: roles, tensors, gates and directions; "" where none does."""
    said = set(re.split(r"[./ ]", name.lower()))
    shared: dict[Atom, int] = {}
    for (role, labels), place in bound.places.items():
        words = {role, place.tensor, *place.tensor.split("/"), *_stems(role, bound)}
        for axis, label in labels:
            told = bound.kind.words[axis].labels.get(label, "") if axis in bound.kind.words else ""
            words |= {label, *bound.kind.labels.get(axis, {}).get(label, ()), *told.split()}
        shared[role, labels] = len(said & words)
    most = max(shared.values(), default=0)
    found = [atom for atom, count in shared.items() if count == most]
    return _parts(bound, found) if most and len(found) < len(shared) else ""


def _parsed(name: str, index: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    match = _TEXT.fullmatch(name.strip())
    pairs = [p for p in (match[2] or "").split(",") if p.strip()] if match else []
    at = dict(index)
    for pair in pairs:
        axis, _, value = pair.partition("=")
        if not value.strip().lstrip("-").isdecimal():
            raise UsageError(f"{name!r} is not the name of a part", do="write w_input.f or kernel[out=5]")
        at[axis.strip()] = int(value)
    if match is None:
        raise UsageError(f"{name!r} is not the name of a part", do="write w_input.f or kernel[out=5]")
    return match[1].strip(), at


def spellings(atom: Atom, bound: BoundForm) -> tuple[str, ...]:
    """The names of an atom: with all its labels, the framework's own letters, other names; the usual one last."""
    role, labels = atom
    kept = [(axis, label) for axis, label in labels if len(bound.labels.get(axis, ())) > 1]
    sets: list[list[str]] = [[label for _, label in labels], [label for _, label in kept]]
    for axis, label in labels:  # a framework's own letter: c for g
        for alias in bound.kind.labels.get(axis, {}).get(label, ()):
            sets.append([alias if x == label else x for _, x in kept])
    names = [".".join((stem, *own)) for stem in (*_stems(role, bound), role) for own in sets]
    return (*names, ".".join((role, *(label for _, label in kept))))


def _stems(role: str, bound: BoundForm) -> list[str]:
    """Other names of a role: those that people give it, and those of tensors that hold nothing else."""
    holds: dict[str, set[str]] = {}
    for (own, _), place in bound.places.items():
        holds.setdefault(place.tensor, set()).add(own)
    taken = {*bound.kind.roles}
    called = [name for name in bound.kind.roles[role].called if name not in taken]
    tensors = [t.name for t in bound.tensors if holds.get(t.name) == {role}]
    return [*called, *(name for name in tensors if name not in taken)]


def _of_role(bound: BoundForm, name: str) -> list[tuple[Atom, Place]]:
    """All atoms of a role, or those of some labels: `w_input`, `w_input.backward`, `recurrent`."""
    stem, *said = name.split(".")
    found = []
    for atom, place in bound.places.items():
        named = {label: (label, *bound.kind.labels.get(axis, {}).get(label, ())) for axis, label in atom[1]}
        mine = {text for texts in named.values() for text in texts}
        stems = _stems(atom[0], bound)
        if (stem in (atom[0], *stems) and set(said) <= mine) or (name in stems and place.tensor == name):
            found.append((atom, place))
    roles = {atom[0] for atom, _ in found}
    return found if len(roles) == 1 else []


def fixed_at(bound: BoundForm, role: str, at: Mapping[str, int], block: Block) -> dict[str, int]:
    """Indices by axis of the role; a name by which people count may run over several axes.

    Raises:
        UsageError: no such axis, or index.
    """
    fixed: dict[str, int] = {}
    own = axis_names(bound.kind.roles[role].axes)
    for name, value in at.items():
        over = [axis for axis in bound.kind.index.get(name, (name,)) if axis in own or axis in bound.sizes]
        sizes = [bound.sizes.get(axis, 1) for axis in over]
        known = [axis for axis in over if axis in own]
        if not known or not (block.strides.keys() & set(over) or prod(sizes) == 1):
            names = ", ".join(sorted({*block.strides, *_counted(bound, own)}))
            raise UsageError(f"{role} has no axis {name!r}", why=f"its axes: {names}")
        total = prod(sizes)
        if not -total <= value < total:
            raise UsageError(f"{name}={value} is beyond {role}", why=f"there are {total}: 0 to {total - 1}")
        rest = value % total
        for axis, size in zip(reversed(over), reversed(sizes), strict=True):
            if axis in own:
                fixed[axis] = rest % size
            rest //= size
    return fixed


def _counted(bound: BoundForm, own: set[str]) -> list[str]:
    return [name for name, axes in bound.kind.index.items() if set(axes) & own]


def _whole(bound: BoundForm, role: str, place: Place) -> dict[str, list[str]]:
    """A refined axis that lies in one dimension of the tensor, row by row -> its leaves: a flattened map is one."""
    own = axis_names(bound.kind.roles[role].axes)
    own |= {name for names in bound.kind.spread.values() for name in names}
    steps = place.block.strides
    leaves = sorted((a for a in steps if a not in own), key=lambda a: -abs(steps[a]))
    missing = [a for a in own if a in bound.kind.words and a not in steps and a not in bound.labels]
    missing = [a for a in missing if a not in bound.sizes]
    even = all(steps[a] == steps[b] * bound.sizes[b] for a, b in pairwise(leaves))
    shape = bound.tensor(place.tensor).shape
    span = prod(bound.sizes[a] for a in leaves)
    one = (
        any(prod(shape[d + 1 :]) == steps[leaves[-1]] and shape[d] == span for d in range(len(shape))) if leaves else 0
    )
    return {missing[0]: leaves} if leaves and even and one and len(missing) == 1 else {}


def _order(bound: BoundForm, role: str, place: Place, whole: Mapping[str, Sequence[str]]) -> list[str]:
    """The axes that are stored, in the order of `x @ part`; of a refined axis its leaves where it is not whole."""
    stored = [a for a, _ in sorted(place.block.strides.items(), key=lambda x: -abs(x[1]))]
    gone = {leaf for leaves in whole.values() for leaf in leaves}
    stored = [*(axis for axis in stored if axis not in gone), *whole]
    wanted: list[str] = []
    for word in bound.kind.roles[role].view or [getattr(d, "name", "...") for d in bound.kind.roles[role].axes]:
        if word == "...":
            wanted += next((list(v) for v in bound.kind.spread.values() if set(v) <= set(stored)), [])
        else:
            wanted.append(word)
    known = [axis for axis in wanted if axis in stored and not _single(bound, axis)]
    leaves = [axis for axis in stored if axis not in wanted]
    first = [w for w in wanted if w not in stored and w not in bound.labels and not _single(bound, w)]
    if leaves and first:  # leaves stand where their axis stands
        at = sum(1 for axis in known if wanted.index(axis) < wanted.index(first[0]))
        return [*known[:at], *leaves, *known[at:]]
    return [*known, *leaves]


def _single(bound: BoundForm, axis: str) -> bool:
    """An axis of length one that a form need not have: group, rep."""
    return axis in ("group", "rep") and bound.sizes.get(axis, 1) == 1


def array_of(bound: BoundForm, part: Part, read: Callable[[str], Array], order: str = "") -> Array:
    """The part as a read-only view into the stored array.

    Args:
        read: stored tensor -> its array.
        order: the axes as wanted; "" for the order of `x @ part`, "stored" as they lie.

    Raises:
        UsageError: it lies in several blocks, or the order names other axes.
    """
    if len(part.atoms) > 1:
        block, negated = _several(bound, part, read, order)
    else:
        ((_, place),) = part.atoms
        flat = memory(bound.tensor(place.tensor), read(place.tensor))
        own = picked(place.block, part.at)
        whole = _whole(bound, part.role, place)
        steps = {**own.strides, **{axis: own.strides[leaves[-1]] for axis, leaves in whole.items()}}
        sizes = dict(part.axes)
        block = view(flat, own.offset, [(sizes[a], steps.get(a, 0)) for a in _asked(part, order, steps)])
        negated = own.negated
    block = -block if negated else block
    block.flags.writeable = False
    return block


def _asked(part: Part, order: str, strides: Mapping[str, int]) -> list[str]:
    usual = [axis for axis, _ in part.axes]
    if not order:
        return usual
    wanted = sorted(usual, key=lambda a: -abs(strides.get(a, 0))) if order == "stored" else order.split()
    if sorted(wanted) != sorted(usual):
        raise UsageError(f"{part.name} has the axes {' '.join(usual)}, not {order}")
    return wanted


def _several(bound: BoundForm, part: Part, read: Callable[[str], Array], order: str) -> tuple[Array, bool]:
    """A whole role that has a tensor of its own: that tensor, its dimensions turned as the role's axes are used."""
    names = {place.tensor for _, place in part.atoms}
    tensor = bound.tensor(next(iter(names)))
    blocks = [block for block in tensor.blocks if block.role == part.role]
    if len(names) > 1 or len(tensor.blocks) != len(part.atoms) or len(blocks) != len(tensor.blocks) or part.at:
        known = ", ".join(spellings(atom, bound)[-1] for atom, _ in part.atoms)
        raise UsageError(f"{part.name} lies in several blocks", why=f"its parts: {known}")
    array = read(tensor.name).view()
    return (array if order == "stored" else array.transpose(_turned(tensor, part))), blocks[0].negated


def _turned(tensor: BoundTensor, part: Part) -> Sequence[int]:
    """The tensor's dimensions in the order of the part's axes; those of labels alone stay in front."""
    wanted = [axis for axis, _ in part.axes]

    def rank(dim: int) -> tuple[int, int]:
        own = [wanted.index(a) for a in axis_names((tensor.layout.dims[dim],)) if a in wanted]
        return (min(own) if own else -1, dim)

    return sorted(range(len(tensor.shape)), key=rank)
