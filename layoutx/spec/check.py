"""The lint: every form bound under every config that it tells apart must store each number exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

from layoutx.errors import LayoutxError, Problems, SpecError
from layoutx.lang.show import show
from layoutx.lang.tree import Axis, roles_of, walk
from layoutx.spec.bind import bind
from layoutx.spec.bound import Atom, BoundForm, BoundTensor, atom_text
from layoutx.spec.configs import conditions, reachable
from layoutx.spec.examples import axes_of, example_sizes, spreads
from layoutx.spec.frame import role_leaves
from layoutx.spec.labels import label_problems
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind, Reading, choose, holds


def check_registry(reg: Registry) -> list[SpecError]:
    """All problems of all kinds and forms; [] where every spec is sound."""
    problems: list[SpecError] = []
    for kind in reg.kinds.values():
        problems += check_kind(kind)
        for form in kind.forms.values():
            problems += check_form(kind, form, reg.forms)
    return problems


def check_kind(kind: Kind) -> list[SpecError]:
    """Problems of a kind's own words: ambiguous labels, gauges over what it does not have."""
    return [SpecError(what, where=kind.file) for what in (*_ambiguous(kind), *_gauges(kind))]


def check_form(kind: Kind, form: Form, forms: Mapping[str, Form]) -> list[SpecError]:
    """Problems of one form; `forms` are all that its `modules` may name."""
    said = [*_declared(kind, form), *_words(kind, form), *_modules(form, forms)]
    said += [*_canonical(form), *label_problems(kind, form)]
    problems = list(dict.fromkeys(said)) or list(dict.fromkeys(_bindings(kind, form)))
    return [SpecError(f"{form.name}: {what}", where=f"{form.file}:{form.line}") for what in problems]


def _ambiguous(kind: Kind) -> Iterator[str]:
    words = Counter(
        w for labels in kind.labels.values() for label, aliases in labels.items() for w in (label, *aliases)
    )
    for word, times in words.items():
        if times > 1:
            yield f"the label {word!r} means {times} things in the kind {kind.name}"
        if word in kind.roles:
            yield f"{word!r} is a label and a role of the kind {kind.name}"


def _gauges(kind: Kind) -> Iterator[str]:
    for gauge in kind.gauge:
        for role in gauge.roles:
            if role not in kind.roles:
                yield f"a gauge of {kind.name} sums {role!r}, which is not a role"
        if len({kind.roles[role].axes for role in gauge.roles if role in kind.roles}) > 1:
            yield f"the roles of a gauge of {kind.name} have different axes: {', '.join(gauge.roles)}"
        for axis, labels in gauge.labels.items():
            yield from (
                f"a gauge of {kind.name} holds for {axis}[{label}], which does not exist"
                for label in labels if label not in kind.labels.get(axis, {})
            )  # fmt: skip
        yield from (
            f"a gauge of {kind.name} depends on {fact!r}, which is not a fact"
            for fact in gauge.when
            if fact not in kind.facts
        )


def _declared(kind: Kind, form: Form) -> Iterator[str]:
    """Every config key that is read stands in `config`; every fact and setting stands in the kind."""
    if not form.source:
        yield "no `source`: say which version and class the layout was read from"
    for where, when in conditions(form):
        yield from (f"{where} depends on {key!r}, which is not in `config`" for key in when if key not in form.config)
    for key, _ in form.sizes:
        if key not in form.config:
            yield f"sizes reads {key!r}, which is not in `config`"
    for key, _, _ in form.require:
        if key not in form.config:
            yield f"require reads {key!r}, which is not in `config`"
    for role, cases in form.maps.items():
        keys = dict.fromkeys(key for case in cases for key in case.value.keys if key not in form.config)
        yield from (f"maps.{role} reads {key!r}, which is not in `config`" for key in keys)
    for table, entries, known in (("facts", form.facts, kind.facts), ("settings", form.settings, kind.settings)):
        for name, cases in entries.items():
            if name not in known:
                yield f"{table}.{name} is not declared by the kind {kind.name}"
            for case in cases:
                if isinstance(case.value, Reading) and case.value.config not in form.config:
                    yield f"{table}.{name} reads {case.value.config!r}, which is not in `config`"
    for name in form.calls:
        if name not in kind.settings:
            yield f"calls.{name} is not a setting of the kind {kind.name}"
    for spec in form.tensors:
        if spec.dims_from and spec.dims_from not in form.config:
            yield f"tensor {spec.name} reads {spec.dims_from!r}, which is not in `config`"
    yield from (f"{key!r} stands in `config` and in `ignore`" for key in sorted(form.ignore & set(form.config)))


def _words(kind: Kind, form: Form) -> Iterator[str]:
    """Axes, labels and roles that a form names exist."""
    axes = axes_of(kind)
    for table in (form.pin, form.equal):
        yield from (f"{axis!r} is not an axis of the kind {kind.name}" for axis in table if axis not in axes)
    for _, dim in form.sizes:
        names = [node.name for node in walk(dim if isinstance(dim, tuple) else (dim,)) if isinstance(node, Axis)]
        yield from (
            f"sizes names {name!r}, which is not an axis of the kind {kind.name}" for name in names if name not in axes
        )
    for axis, cases in form.only.items():
        for label in (label for case in cases for label in case.value):
            if label not in kind.labels.get(axis, {}):
                yield f"only names {axis}[{label}], which does not exist"
    for axis, spelled in form.names.items():
        yield from (
            f"names spells {axis}[{label}], which does not exist"
            for label in spelled
            if label not in kind.labels.get(axis, {})
        )
    for spec in form.tensors:
        for case in spec.cases:
            for role in roles_of(case.value):
                if role not in kind.roles:
                    yield f"tensor {spec.name} stores {role!r}, which is not a role of the kind {kind.name}"


def _modules(form: Form, forms: Mapping[str, Form]) -> Iterator[str]:
    for prefix, name in form.modules.items():
        if name not in forms:
            yield f"the module {prefix} is {name!r}, which is not a form"
    for spec in form.tensors:
        if form.modules and spec.name.split(".", 1)[0] not in form.modules:
            yield f"tensor {spec.name} belongs to none of the modules {', '.join(form.modules)}"


def _canonical(form: Form) -> Iterator[str]:
    for spec in form.tensors:
        for case in spec.cases:
            if show(case.value) != case.value.text:
                yield f'tensor {spec.name} is not written canonically: write "{show(case.value)}"'


def _bindings(kind: Kind, form: Form) -> Iterator[str]:
    """Problems that show when the form is bound with a different prime for each axis."""
    ranks: Sequence[int] = (form.rank,) if form.rank is not None else sorted(kind.spread) if spreads(form) else (0,)
    for rank, config in product(ranks, reachable(form)):
        if config.get("rank", rank) != rank:
            continue
        text = f" with {', '.join(f'{k}={v!r}' for k, v in config.items())}" if config else ""
        try:
            bound = bind(kind, form, config, sizes=example_sizes(kind, form, config, rank))
        except Problems as error:
            yield from (f"{p.line}{text}" for p in error.problems)
        except LayoutxError as error:
            yield f"{error.line}{text}"
        else:
            yield from (f"{problem}{text}" for problem in (*_covered(bound), *_stored(bound, rank)))


def _covered(bound: BoundForm) -> Iterator[str]:
    """Each tensor's blocks fill it, and no element belongs to two."""
    names = Counter(tensor.name for tensor in bound.tensors)
    yield from (f"two tensors are called {name!r}" for name, times in names.items() if times > 1)
    for tensor in bound.tensors:
        marks = _marks(tensor, bound.sizes)
        if any(mark != 1 for mark in marks):
            none, two = marks.count(0), sum(mark > 1 for mark in marks)
            yield f"tensor {tensor.name} {tensor.shape}: {none} elements belong to nothing, {two} to two"


def _marks(tensor: BoundTensor, sizes: Mapping[str, int]) -> list[int]:
    total = prod(tensor.shape)
    marks = [0] * total
    for block in tensor.blocks:
        positions = [block.offset]
        for axis, stride in block.strides.items():
            positions = [at + stride * i for at in positions for i in range(sizes[axis])]
        for at in positions:
            if not 0 <= at < total:
                return [0] * total
            marks[at] += 1
    return marks


def _summed(atom: Atom, bound: BoundForm) -> bool:
    """Whether another role holds the sum that is all the forward pass sees of this one."""
    role, labels = atom
    return any(
        role in gauge.roles
        and holds(gauge.when, bound.facts)
        and all(dict(labels).get(axis) in known for axis, known in gauge.labels.items())
        and any((other, labels) in bound.places for other in gauge.roles)
        for gauge in bound.kind.gauge
    )


def _stored(bound: BoundForm, rank: int) -> Iterator[str]:
    """Every role is stored with all its labels, or not at all where a missing one has a meaning."""
    spatial = bound.kind.spread.get(rank, ())
    for name, role in bound.kind.roles.items():
        wanted = [(name, labels) for labels in role_leaves(role, spatial, bound.labels, {})]
        missing = [atom for atom in wanted if atom not in bound.places and not _summed(atom, bound)]
        if missing and any(atom in bound.places for atom in wanted):
            yield f"{', '.join(map(atom_text, missing))} is stored nowhere, the rest of {name} is"
        elif missing and not (role.absent or role.drop or role.state or role.optional):
            yield f"{name} is stored nowhere, and the kind does not say what it means where it is absent"
    for spec in bound.form.tensors:
        layout = choose(spec.cases, bound.config)
        for name in roles_of(layout) if spec.optional and layout is not None else ():
            role = bound.kind.roles[name]
            if not (role.absent or role.drop):
                yield f"tensor {spec.name} is optional, and the kind does not say what {name} means where it is absent"
