"""Labels out of order: gates, directions, halves and whole roles that stand in one another's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from layoutx.lang.tree import Sum, walk
from layoutx.spec.bound import Atom, BoundForm
from layoutx.spec.schema import Kind
from layoutx.verify.diagnose.axes import leaves_of
from layoutx.verify.diagnose.fixes import numbers, ported, rewritten
from layoutx.verify.diagnose.numbers import atoms_of, opened, tensors_of, with_stored
from layoutx.verify.diagnose.suspect import Edit, Suspect

MODES: Mapping[str, str] = {"direction": "F18", "half": "F24"}
OF_KIND: Mapping[str, str] = {"gru": "F4", "mgu": "F4"}  # of other kinds with gates: F3
FEW = 5  # labels up to which all orders are tried


def gate_orders(suspect: Suspect) -> Iterator[Edit]:
    """Every order of gates, directions and halves: in all roles that have them, and in each role alone."""
    bound = suspect.target
    for axis, labels in bound.labels.items():
        if not 1 < len(labels) <= FEW:
            continue
        named = orders_named(bound.kind, axis) if axis == "gate" else {}
        own = [role for role in dict.fromkeys(role for role, _ in bound.places) if _has(bound, role, axis, labels)]
        for roles in _subsets(own):
            stored = _stored_order(bound, roles[0], axis, labels)
            for order in permutations(stored):
                if order != stored:
                    yield _ordered(suspect, axis, roles, len(roles) == len(own), stored, order, named.get(order, ""))
        yield from _one_direction(suspect, axis, own, labels, named)


def _one_direction(
    suspect: Suspect, axis: str, own: Sequence[str], labels: Sequence[str], named: Mapping[tuple[str, ...], str]
) -> Iterator[Edit]:
    """Every order of gates in one direction alone, in all roles."""
    ways = suspect.target.labels.get("direction", ())
    if axis == "direction" or len(ways) < 2 or not own:
        return
    stored = _stored_order(suspect.target, own[0], axis, labels)
    for way in ways:
        for order in permutations(stored):
            if order != stored:
                yield _ordered(suspect, axis, tuple(own), True, stored, order, named.get(order, ""), way)


def _has(bound: BoundForm, role: str, axis: str, labels: Sequence[str]) -> bool:
    return {dict(atom[1]).get(axis) for atom in atoms_of(bound, role)} == set(labels)


def _subsets(roles: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All roles, each alone, the matrices, and the biases."""
    biases = tuple(role for role in roles if role.startswith("b_"))
    matrices = tuple(role for role in roles if not role.startswith("b_"))
    groups = [tuple(roles), *((role,) for role in roles), matrices, biases]
    yield from (group for group in dict.fromkeys(groups) if group)


def _stored_order(bound: BoundForm, role: str, axis: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels in the order in which the form stores them; the kind's where each has a tensor of its own."""
    for name in tensors_of(bound, (role,)):
        for node in walk(bound.tensor(name).layout.dims):
            if isinstance(node, Sum) and node.axis == axis and len(node.options) == len(labels):
                return tuple(option.label for option in node.options)
    return tuple(labels)


def _ordered(
    suspect: Suspect,
    axis: str,
    roles: tuple[str, ...],
    everywhere: bool,
    stored: tuple[str, ...],
    order: tuple[str, ...],
    named: str,
    way: str = "",
) -> Edit:
    bound = suspect.target
    chosen = [atom for role in roles for atom in atoms_of(bound, role) if not way or ("direction", way) in atom[1]]
    tensors = tuple(dict.fromkeys(bound.places[atom].tensor for atom in chosen))
    moved = dict(zip(order, stored, strict=True))  # what is called order[k] stands where the form has stored[k]

    def apply(s: Suspect) -> Suspect:
        before, after = opened(s, tensors), opened(s, tensors)
        for atom in chosen:
            at = {**dict(atom[1]), axis: moved[dict(atom[1])[axis]]}
            source = (atom[0], tuple(sorted(at.items())))
            axes = tuple(bound.places[atom].block.strides)
            after.atom(atom, axes)[...] = before.atom(source, axes)
        return with_stored(s, after.settled())

    mode = MODES.get(axis) or OF_KIND.get(bound.kind.name, "F3")
    whose = f"the {way} direction's" if way else "the layer's" if everywhere else f"{', '.join(tensors)}'s"
    here, there = " ".join(order), " ".join(stored)
    of = f" as in {named}" if named else ""
    what = f"{whose} {axis}s lie in the order {here}{of}; {bound.form.name} reads {there}"
    family = f"{axis} order" if everywhere else f"{axis} order of {' and '.join(roles)}"
    family = f"{family}, {way}" if way else family
    rare = axis == "gate" and len(order) > 3 and not named
    code = _code(suspect, tensors, axis, stored, order)
    return Edit(mode, family, what, apply, ported(suspect), code, f"{axis}s {here}", rare=rare)


def orders_named(kind: Kind, axis: str) -> dict[tuple[str, ...], str]:
    """Order of labels -> the forms of the registry that store them so, three at most."""
    aliases = {a: label for label, more in kind.labels.get(axis, {}).items() for a in more}
    found: dict[tuple[str, ...], list[str]] = {}
    for form in kind.forms.values():
        for spec in form.tensors:
            for case in spec.cases:
                for node in walk(case.value.dims):
                    if isinstance(node, Sum) and node.axis == axis:
                        order = tuple(aliases.get(o.label, o.label) for o in node.options)
                        if form.name not in found.setdefault(order, []):
                            found[order].append(form.name)
    return {order: ", ".join(names[:3]) for order, names in found.items()}


def _code(suspect: Suspect, tensors: Sequence[str], axis: str, stored: Sequence[str], order: Sequence[str]) -> str:
    """The blocks taken in the right order, where one dimension starts with the enumerated axis."""
    lines = []
    for name in tensors:
        tensor = suspect.target.tensor(name)
        leaves = leaves_of(suspect.target, tensor)
        at = next((i for i, leaf in enumerate(leaves) if leaf.name == axis), None)
        if at is None:
            continue
        taken = [order.index(label) for label in stored]
        index = ", ".join([":"] * at + [str(taken)])
        steps = f".reshape({numbers([leaf.size for leaf in leaves])})[{index}].reshape({numbers(tensor.shape)})"
        lines.append(rewritten(suspect, name, steps))
    return "\n".join(lines)


def exchanged(suspect: Suspect) -> Iterator[Edit]:
    """Roles of the same shape in one another's place: q k v, gamma beta mean variance, gate and up (F23, F26)."""
    bound = suspect.target
    groups: dict[tuple[object, ...], list[str]] = {}
    for role in bound.kind.roles.values():
        atoms = atoms_of(bound, role.name)
        if atoms and not role.dtype:
            shape = tuple(tuple(bound.sizes[axis] for axis in _axes(bound, atom)) for atom in atoms)
            groups.setdefault((*(atom[1] for atom in atoms), shape), []).append(role.name)
    for roles in groups.values():
        if 1 < len(roles) <= FEW:
            for order in permutations(roles):
                if list(order) != roles:
                    yield _swapped(suspect, [dict(zip(roles, order, strict=True))])
    yield from _with_biases(suspect, list(groups.values()))


def _with_biases(suspect: Suspect, groups: Sequence[Sequence[str]]) -> Iterator[Edit]:
    """The same exchange in w_q w_k w_v and b_q b_k b_v."""
    for weights, vectors in permutations(groups, 2):
        stems = [role[1:] for role in weights if f"b{role[1:]}" in vectors]
        if not 2 <= len(stems) <= FEW or not weights[0].startswith("w"):
            continue
        for order in permutations(stems):
            if list(order) != stems:
                pairs = list(zip(stems, order, strict=True))
                yield _swapped(suspect, [{f"{x}{a}": f"{x}{b}" for a, b in pairs} for x in "wb"])


def _swapped(suspect: Suspect, moves: Sequence[Mapping[str, str]]) -> Edit:
    """An edit after which each role holds what now stands under another's name."""
    bound = suspect.target
    roles = [role for move in moves for role in move]
    tensors = tensors_of(bound, roles)

    def apply(s: Suspect) -> Suspect:
        before, after = opened(s, tensors), opened(s, tensors)
        for move in moves:
            for role, other in move.items():
                for mine, theirs in zip(atoms_of(bound, role), atoms_of(bound, other), strict=True):
                    after.atom(mine, _axes(bound, mine))[...] = before.atom(theirs, _axes(bound, theirs))
        return with_stored(s, after.settled())

    first = moves[0]
    now = ", ".join(f"{other} stands as {role}" for role, other in first.items() if role != other)
    mode = "F26" if "norm" in bound.kind.name else "F23"
    more = " (and their biases)" if len(moves) > 1 else ""
    what = f"{bound.form.name} holds whole roles in one another's place{more}: {now}"
    code = f"set {', '.join(tensors)} of {suspect.place} in the order that {bound.form.name} lists: {', '.join(first)}"
    return Edit(mode, f"order of {', '.join(sorted(first))}", what, apply, ported(suspect), code, now)


def _axes(bound: BoundForm, atom: Atom) -> tuple[str, ...]:
    """A role's axes longer than one, in the kind's order, so that two roles meet axis by axis."""
    return tuple(axis for axis in bound.places[atom].block.strides if bound.sizes[axis] > 1)
