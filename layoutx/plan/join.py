"""Two bound layouts -> steps: axes agree by name; absence and gauge are decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.lang.place import Block
from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Loop, Loops, Step, Term
from layoutx.spec.bound import Atom, BoundForm, Place
from layoutx.spec.schema import Gauge, Others, holds
from layoutx.spec.values import SAME

_VALUES = {"zeros": 0.0, "ones": 1.0}


def join(source: BoundForm, target: BoundForm) -> list[Step]:
    """Steps that fill every target tensor from the source, one step an atom.

    Raises:
        ConversionError: facts or sizes that disagree, atoms without a place or a source; all shown together.
    """
    problems = [*_facts(source, target), *_sizes(source, target)]
    raise_all(problems, f"{source.form.name} cannot become {target.form.name}")
    steps: list[Step] = []
    used: set[Atom] = set()
    summed = _gauged(source, target)
    for atom, place in target.places.items():
        if not target.maps.get(atom, SAME).times:
            problems.append(_lost(_text(atom, source, target), target))
        elif atom in summed:
            found, atoms = summed[atom]
            steps.append(found)
            used |= atoms
        elif atom in source.places:
            steps.append(_move(atom, place, source, target))
            used.add(atom)
        else:
            step = _absent(atom, place, source, target)
            if isinstance(step, LayoutxError):
                problems.append(step)
            else:
                steps.append(step)
    for atom, place in source.places.items():
        if atom not in used:
            left = _left_over(atom, place, source, target)
            if isinstance(left, LayoutxError):
                problems.append(left)
            else:
                steps.append(left)
    raise_all(problems, f"{source.form.name} cannot become {target.form.name}")
    return steps


def _text(atom: Atom, source: BoundForm, target: BoundForm) -> str:
    """`w_input.f`: labels that neither side has a choice of are left out."""
    role, labels = atom
    shown = [
        label
        for axis, label in labels
        if len({*source.labels.get(axis, ()), *target.labels.get(axis, (label, ""))}) > 1
    ]
    return ".".join((role, *shown))


def _facts(source: BoundForm, target: BoundForm) -> Iterator[LayoutxError]:
    for name, known in source.kind.facts.items():
        here, there = source.facts.get(name), target.facts.get(name)
        if here is not None and there is not None and here != there:
            yield ConversionError(
                f"{target.form.name} cannot hold this {source.form.name}: {name} is {here}, the target's is {there}",
                why=f"{known.why}: another function, not another layout" if known.why else "",
                do=_remedy(name, here, target),
            )


def _remedy(name: str, value: object, target: BoundForm) -> str:
    """How the target could be given the source's fact, if its config decides it."""
    for case in target.form.facts.get(name, ()):
        if case.value == value and case.when and not any(isinstance(v, Others) for v in case.when.values()):
            wanted = ", ".join(f"{key}={values[0]!r}" for key, values in case.when.items())
            return f"use {wanted} on the target layer"
        if case.value == value:  # what the form computes unless its config says otherwise
            now = next((c.when for c in target.form.facts[name] if holds(c.when, target.config)), {})
            wrong = ", ".join(f"{key} than {target.config.get(key)!r}" for key in now)
            return f"use another {wrong} on the target layer"
        key = getattr(case.value, "config", "")
        if key:
            return f"use {key}={value!r} on the target layer"
    return f"no {target.form.framework} form of {target.kind.name} computes with {name}={value}"


def _sizes(source: BoundForm, target: BoundForm) -> Iterator[LayoutxError]:
    names = {axis for place in (*source.places.values(), *target.places.values()) for axis in place.block.strides}
    for axis in sorted(names):
        here, there = source.sizes.get(axis), target.sizes.get(axis)
        if here is not None and there is not None and here != there:
            yield ConversionError(
                f"{axis} is {here} in {source.form.name} and {there} in {target.form.name}",
                where=(_shapes(source, axis), _shapes(target, axis)),
                do=f"give both layers the same {axis}",
            )


def _shapes(bound: BoundForm, axis: str) -> str:
    from layoutx.lang.show import show_dims

    tensors = [t for t in bound.tensors if any(axis in b.strides for b in t.blocks)]
    text = ", ".join(f"{t.name} {t.shape} = {show_dims(t.layout.dims)}" for t in tensors[:2])
    return f"{bound.form.name}: {text}" if text else f"{bound.form.name}: {axis} is fixed at {bound.sizes.get(axis)}"


def _loops(target: Block | None, source: Block | None, sizes: Mapping[str, int]) -> Loops:
    axes = dict.fromkeys([*(target.strides if target else ()), *(source.strides if source else ())])
    return tuple(
        Loop(
            axis,
            sizes[axis],
            target.strides.get(axis, 0) if target else 0,
            source.strides.get(axis, 0) if source else 0,
        )
        for axis in axes
    )


def _move(atom: Atom, there: Place, source: BoundForm, target: BoundForm, term: Atom | None = None) -> Copy | Add:
    """The numbers of one atom (or of the `term` that takes its place): a copy where both sides store them alike."""
    term = term or atom
    if source.maps.get(term, SAME) == target.maps.get(atom, SAME):
        return _copy(atom, source.places[term], there, source, target)
    return _add([term], atom, there, source, target)


def _copy(atom: Atom, here: Place, there: Place, source: BoundForm, target: BoundForm) -> Copy:
    sizes = {**source.sizes, **target.sizes}
    return Copy(
        there.tensor,
        here.tensor,
        there.block.offset,
        here.block.offset,
        _loops(there.block, here.block, sizes),
        here.block.negated != there.block.negated,
        (_text(atom, source, target),),
    )


def _fill(atom: Atom, place: Place, source: BoundForm, target: BoundForm, value: float) -> Fill:
    value = target.maps.get(atom, SAME).stored(value)
    value = 0.0 - value if place.block.negated else value  # not -0.0
    return Fill(
        place.tensor,
        place.block.offset,
        _loops(place.block, None, target.sizes),
        value,
        (_text(atom, source, target),),
    )


def _absent(atom: Atom, place: Place, source: BoundForm, target: BoundForm) -> Step | LayoutxError:
    role = target.kind.roles[atom[0]]
    if role.absent:
        return _fill(atom, place, source, target, _VALUES[role.absent])
    return ConversionError(
        f"{source.form.name} has nothing for {_text(atom, source, target)}",
        where=f"{target.form.name} stores it in {place.tensor}",
        why=f"without it {role.optional}: another function"
        if role.optional
        else f"{role.name} has no value that its absence could mean",
    )


def _left_over(atom: Atom, place: Place, source: BoundForm, target: BoundForm) -> Step | LayoutxError:
    role = source.kind.roles[atom[0]]
    loops = _loops(None, place.block, source.sizes)
    if role.drop:
        return Drop(place.tensor, place.block.offset, loops, role.drop, (_text(atom, source, target),))
    if role.absent and not source.maps.get(atom, SAME).times:
        return _lost(_text(atom, source, target), source)
    if role.absent:
        value = source.maps.get(atom, SAME).stored(_VALUES[role.absent])
        value = 0.0 - value if place.block.negated else value
        return Guard(place.tensor, place.block.offset, loops, value, (_text(atom, source, target),))
    return ConversionError(
        f"{target.form.name} has no place for {_text(atom, source, target)}",
        where=f"{source.form.name} stores it in {place.tensor}",
        why=f"without it {role.optional}: another function" if role.optional else "",
        do="choose another target form or config; `layoutx specs show " + source.kind.name + "` lists them",
    )


def _gauged(source: BoundForm, target: BoundForm) -> dict[Atom, tuple[Step, set[Atom]]]:
    """Target atoms whose value is decided by a sum that the forward pass cannot tell apart."""
    found: dict[Atom, tuple[Step, set[Atom]]] = {}
    for gauge in source.kind.gauge:
        if not holds(gauge.when, source.facts):
            continue
        for labels in _label_sets(gauge, source, target):
            here = [(role, labels) for role in gauge.roles if (role, labels) in source.places]
            there = [(role, labels) for role in gauge.roles if (role, labels) in target.places]
            if here and there:
                found.update(_sum(here, there, source, target))
    return found


def _label_sets(gauge: Gauge, source: BoundForm, target: BoundForm) -> list[tuple[tuple[str, str], ...]]:
    atoms = dict.fromkeys((*source.places, *target.places))
    sets = dict.fromkeys(labels for role, labels in atoms if role in gauge.roles)
    return [
        labels for labels in sets if all(dict(labels).get(axis) in allowed for axis, allowed in gauge.labels.items())
    ]


def _sum(
    here: Sequence[Atom], there: Sequence[Atom], source: BoundForm, target: BoundForm
) -> dict[Atom, tuple[Step, set[Atom]]]:
    """Copies where both sides have the role; what has no slot is added to the first slot; the rest is zero."""
    homeless = [atom for atom in here if atom not in there]
    found: dict[Atom, tuple[Step, set[Atom]]] = {}
    for at, atom in enumerate(there):
        terms = [atom] if atom in here else []
        terms += homeless if at == 0 else []
        place = target.places[atom]
        if not terms:
            found[atom] = (_fill(atom, place, source, target, 0.0), set())
        elif len(terms) == 1:
            found[atom] = (_move(atom, place, source, target, terms[0]), set(terms))
        else:
            found[atom] = (_add(terms, atom, place, source, target), set(terms))
    return found


def _add(terms: Sequence[Atom], atom: Atom, place: Place, source: BoundForm, target: BoundForm) -> Add:
    loops = _loops(place.block, None, target.sizes)
    values = [source.maps.get(term, SAME) for term in terms]
    value = target.maps.get(atom, SAME)
    negate = place.block.negated and any(v != SAME for v in (value, *values))  # else the terms' signs say it
    summands = []
    for term, meant in zip(terms, values, strict=True):
        found = source.places[term]
        strides = tuple(found.block.strides.get(loop.axis, 0) for loop in loops)
        sign = found.block.negated != (place.block.negated and not negate)
        summands.append(Term(found.tensor, found.block.offset, strides, sign, meant))
    atoms = tuple(_text(term, source, target) for term in terms)
    return Add(place.tensor, place.block.offset, loops, tuple(summands), atoms, value, negate)


def _lost(what: str, bound: BoundForm) -> ConversionError:
    return ConversionError(
        f"nothing that {bound.form.name} stores says what {what} is",
        where=f"{bound.form.name} multiplies it by zero",
        do="leave the layer out with --skip",
    )
