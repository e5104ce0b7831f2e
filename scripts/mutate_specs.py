"""Plant every single edit in the specs, one at a time, and say which of them the witnesses do not notice.

python scripts/mutate_specs.py                   all kinds: docs/mutations.md is written
python scripts/mutate_specs.py --check           fail where that page is stale, or an edit survives without a reason
python scripts/mutate_specs.py --only 'lstm'     kinds of this name only; prints, writes nothing

An edit: two labels swapped, a sign or a reversal dropped or added, two axes exchanged, a role taken for another of the
same axes, two names swapped, a map of values dropped, a fact turned. An edit is caught where a captured output of the
real framework (tests/witnesses) is not found again, or where the layer's tensors no longer bind.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "verify")]

from layoutx.errors import LayoutxError  # noqa: E402
from layoutx.lang.parse import parse  # noqa: E402
from layoutx.lang.show import show  # noqa: E402
from layoutx.lang.tree import Axis, Dim, Layout, Product, Spread, Sum, Unit, walk  # noqa: E402
from layoutx.spec.bound import BoundForm  # noqa: E402
from layoutx.spec.registry import Registry, builtin_folder, load_registry  # noqa: E402
from layoutx.spec.schema import Case as SpecCase  # noqa: E402
from layoutx.spec.schema import Cases, Form, Kind, Reading, choose, holds  # noqa: E402
from layoutx.verify.witness import TOLERANCE, Case, bind_case, check, read, spec_config  # noqa: E402

WITNESSES = ROOT / "tests" / "witnesses"
PAGE = ROOT / "docs" / "mutations.md"


@dataclass(frozen=True)
class Mutant:
    """One form with one edit."""

    form: Form
    where: str
    before: str
    after: str
    cases: Cases = ()
    value: Any = None


@dataclass(frozen=True)
class Survivor:
    """An edit that no witness notices, and why that may be."""

    form: str
    where: str
    before: str
    after: str
    reason: str


def mutants(kind: Kind, form: Form) -> Iterator[Mutant]:
    """Every single edit of one form."""
    for at, spec in enumerate(form.tensors):
        for case in distinct(spec.cases):
            for layout in edited(case.value, kind):
                cases = exchanged(spec.cases, case.value, layout)
                tensors = (*form.tensors[:at], replace(spec, cases=cases), *form.tensors[at + 1 :])
                changed = replace(form, tensors=tensors)
                yield Mutant(changed, spec.name, show(case.value), show(layout), cases, layout)
    for axis, names in form.names.items():
        for a, b in combinations(names, 2):
            swapped = {**form.names, axis: {**names, a: names[b], b: names[a]}}
            yield Mutant(replace(form, names=swapped), f"names.{axis}", f"{a}: {names[a]}", f"{a}: {names[b]}")
    for pattern in form.maps:
        rest = {key: value for key, value in form.maps.items() if key != pattern}
        yield Mutant(replace(form, maps=rest), f"maps.{pattern}", str(form.maps[pattern][0].value), "nothing")
        for case in form.maps[pattern]:
            if case.value.shift:
                plain = exchanged(form.maps[pattern], case.value, replace(case.value, shift=0.0))
                changed = replace(form, maps={**form.maps, pattern: plain})
                yield Mutant(changed, f"maps.{pattern}", f"shift {case.value.shift}", "no shift")
    for name, cases in form.facts.items():
        for case in distinct(cases):
            other = TURNED.get(case.value) if isinstance(case.value, str) else None
            if other and not isinstance(case.value, Reading):
                turned = exchanged(cases, case.value, other)
                changed = replace(form, facts={**form.facts, name: turned})
                yield Mutant(changed, f"facts.{name}", case.value, other, turned, other)


def distinct(cases: Cases) -> list[SpecCase]:
    """The first case of each value: a line that stands under two conditions is one line."""
    return [case for at, case in enumerate(cases) if all(case.value != other.value for other in cases[:at])]


def exchanged(cases: Cases, old: Any, new: Any) -> Cases:
    """The cases with one value replaced wherever it stands."""
    return tuple(replace(case, value=new) if case.value == old else case for case in cases)


TURNED = {
    "after": "before", "before": "after", "tanh": "relu", "relu": "tanh", "sigmoid": "hard_sigmoid_0.2",
    "hard_sigmoid_0.2": "hard_sigmoid_1/6", "hard_sigmoid_1/6": "hard_sigmoid_0.2", "running": "batch",
}  # fmt: skip


def edited(layout: Layout, kind: Kind) -> Iterator[Layout]:
    """Every layout that differs from this one by one edit."""
    head = layout.head
    if head is not None:
        yield replace(layout, head=replace(head, negated=not head.negated))
        axes = kind.roles[head.role].axes if head.role in kind.roles else None
        for other in kind.roles.values():
            if other.name != head.role and other.axes == axes:
                yield replace(layout, head=replace(head, role=other.name))
        for at, label in enumerate(head.labels):
            for labels in kind.labels.values():
                spelled = {name: {name, *aliases} for name, aliases in labels.items()}
                if any(label in known for known in spelled.values()):
                    for name in (name for name, known in spelled.items() if label not in known):
                        yield replace(
                            layout, head=replace(head, labels=(*head.labels[:at], name, *head.labels[at + 1 :]))
                        )
    for dims in edits(layout.dims):
        yield replace(layout, dims=dims)


def edits(dims: tuple[Dim, ...]) -> Iterator[tuple[Dim, ...]]:
    """Dims with one edit: two exchanged, or one of them changed inside."""
    for i, j in combinations(range(len(dims)), 2):
        if dims[i] != dims[j]:
            swapped = list(dims)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            yield tuple(swapped)
    for i, dim in enumerate(dims):
        for changed in inside(dim):
            yield (*dims[:i], changed, *dims[i + 1 :])


def inside(dim: Dim) -> Iterator[Dim]:
    match dim:
        case Axis() | Spread():
            yield replace(dim, reversed=not dim.reversed)
        case Product(inner):
            yield from (replace(dim, dims=found) for found in edits(inner))
        case Sum(_, options):
            for i, j in combinations(range(len(options)), 2):
                swapped = list(options)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                yield replace(dim, options=tuple(swapped))
            for i, option in enumerate(options):
                changed = [replace(option, negated=not option.negated)]
                changed += [replace(option, dims=found) for found in edits(option.dims)]
                yield from (replace(dim, options=(*options[:i], other, *options[i + 1 :])) for other in changed)
        case Unit():
            return


@cache
def specs() -> Registry:
    """The project's own specs."""
    return load_registry([builtin_folder()])


@cache
def witnesses() -> Mapping[str, Sequence[Case]]:
    """Form -> its captured cases, the smallest first."""
    found: dict[str, list[Case]] = {}
    for path in sorted(WITNESSES.glob("*.npz")):
        for case in read(path):
            found.setdefault(case.form, []).append(case)
    return {form: sorted(cases, key=lambda c: sum(a.size for a in c.inputs.values())) for form, cases in found.items()}


REPLAYS = ("test_keras1_replay", "test_declared_replay", "test_declared_plain", "test_language_models")


@cache
def replays() -> Mapping[str, Sequence[Case]]:
    """Declared form -> cases computed by a second implementation of its published equations (tests/verify)."""
    found: dict[str, list[Case]] = {}
    for name in REPLAYS:
        for case in import_module(f"tests.verify.{name}").CASES:
            found.setdefault(case.form, []).append(case)
    return {form: cases for form, cases in found.items() if form not in witnesses()}


def evidence(form: str) -> Sequence[Case]:
    """What a form is held against."""
    return witnesses().get(form, ()) or replays().get(form, ())


def planted(form: Form) -> Registry:
    """The registry with one form changed."""
    reg = specs()
    kind = reg.kinds[form.kind]
    kinds = {**reg.kinds, kind.name: replace(kind, forms={**kind.forms, form.name: form})}
    return Registry(kinds, {**reg.forms, form.name: form}, reg.frameworks)


def noticed(mutant: Mutant, cases: Sequence[Case]) -> bool:
    """Whether a witness of the form contradicts the edit."""
    changed = planted(mutant.form)
    for case in cases:
        try:
            if not check(case, changed) <= TOLERANCE[case.dtype]:
                return True
        except (LayoutxError, ArithmeticError, LookupError, TypeError, ValueError):
            return True
    return False


@dataclass(frozen=True)
class Tally:
    """What one form's edits came to."""

    form: str
    edits: int
    caught: int
    survivors: tuple[Survivor, ...]


def tally(name: str) -> Tally:
    """Try every edit of one form."""
    reg = specs()
    form, kind = reg.forms[name], reg.kind_of(name)
    cases = evidence(name)
    total, survivors = 0, []
    for mutant in mutants(kind, form):
        total += 1
        if not cases or not noticed(mutant, cases):
            survivors.append(Survivor(name, mutant.where, mutant.before, mutant.after, reason(mutant, kind, cases)))
    return Tally(name, total, total - len(survivors), tuple(survivors))


SOFTMAX = {("attention", "b_k"), ("partial_rotary_attention", "b_k_rest")}  # rows of keys that nothing turns
SIGNLESS = {("srelu", "t_right")}  # keras 1.2.2 advanced_activations.py SReLU.call: t_left + K.abs(t_right)


def reason(mutant: Mutant, kind: Kind, cases: Sequence[Case]) -> str:
    """Why no witness can notice: none was captured, or the edit changes no function; "" where nobody knows."""
    if not cases:
        return "no witness and no replay"
    if any(role.drop and f"{role.name}:" in mutant.before for role in kind.roles.values()):
        return "inference does not read these numbers"
    configs = [{**mutant.form.config, **spec_config(case)} for case in cases]
    if mutant.cases and not any(choose(mutant.cases, config) is mutant.value for config in configs):
        return ""
    changed = planted(mutant.form)
    if isinstance(mutant.value, Layout) and len(roles := touched(mutant)) == 1:
        (role,) = roles
        negated = mutant.before.lstrip("-") == mutant.after.lstrip("-")
        if (kind.name, role) in SOFTMAX:
            return "the key bias adds the same to every score of a query, and softmax takes it away"
        if negated and (kind.name, role) in SIGNLESS:
            return "only its absolute value is read"
    bound = [
        (one[0], other[0])
        for c in cases
        for one, other in zip(bind_case(c, specs()), bind_case(c, changed), strict=True)
    ]
    if all(one.places == other.places and one.facts == other.facts and one.maps == other.maps for one, other in bound):
        return "the same numbers in the same places"
    if all(summed(one, other) for one, other in bound):
        return "the two biases are only ever added"
    return ""


def touched(mutant: Mutant) -> set[str]:
    """The roles whose numbers an edit of a layout moves, where it names them."""
    before, after = parse(mutant.before), parse(mutant.after)
    if before.head is not None:
        return {before.head.role}
    parts = [
        {o.label: o for n in walk(x.dims) if isinstance(n, Sum) and n.axis is None for o in n.options}
        for x in (before, after)
    ]
    order = [list(found) for found in parts]
    changed = {role for role, option in parts[0].items() if option != parts[1].get(role)}
    return changed if order[0] == order[1] else set(order[0])


def summed(one: BoundForm, other: BoundForm) -> bool:
    """Whether the two differ only in which of several summed roles holds a number."""

    def folded(bound: BoundForm) -> set[Any]:
        found = set()
        for (role, labels), place in bound.places.items():
            gauges = [
                g.roles
                for g in bound.kind.gauge
                if role in g.roles
                and holds(g.when, bound.facts)
                and all(dict(labels).get(axis) in known for axis, known in g.labels.items())
            ]
            block = replace(place.block, role=gauges[0][0] if gauges else role, strides={})
            found.add(
                (
                    place.tensor,
                    block.role,
                    block.labels,
                    block.offset,
                    block.negated,
                    *sorted(place.block.strides.items()),
                )
            )
        return found

    return one.facts == other.facts and folded(one) == folded(other)


def main(argv: list[str] | None = None) -> int:
    """Try them all; 1 where a witnessed form has a survivor without a reason, or the page is stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where docs/mutations.md is stale")
    parser.add_argument("--only", default="*", metavar="GLOB", help="forms or kinds of this name only")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    begun = time.perf_counter()
    names = [f.name for f in specs().forms.values() if fnmatch(f.kind, options.only) or fnmatch(f.name, options.only)]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = list(pool.map(tally, names, chunksize=4))
    unknown = [s for t in found for s in t.survivors if not s.reason]
    for s in unknown:
        print(f"survives: {s.form} {s.where}: {s.before}  ->  {s.after}")
    print(f"{summary(found)} ({time.perf_counter() - begun:.0f} s)")
    if options.only != "*":
        return 1 if unknown else 0
    text = page(found)
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print("docs/mutations.md is stale: run scripts/mutate_specs.py")
        return 1
    return 1 if unknown else 0


def groups(found: Sequence[Tally]) -> tuple[list[Tally], list[Tally], list[Tally]]:
    """Witnessed forms, replayed ones, and those with neither."""
    held = [t for t in found if t.form in witnesses()]
    told = [t for t in found if t.form in replays()]
    return held, told, [t for t in found if t not in held and t not in told]


def counted(found: Sequence[Tally]) -> str:
    return f"{sum(t.caught for t in found)} of {sum(t.edits for t in found)} edits of {len(found)}"


def summary(found: Sequence[Tally]) -> str:
    """`4312 of 4320 edits of 251 witnessed forms are caught by captured outputs; ...`."""
    held, told, bare = groups(found)
    text = f"{counted(held)} witnessed forms are caught by captured outputs"
    text += f"; {counted(told)} declared forms by replays of their published equations"
    return f"{text}; {len(bare)} forms ({sum(t.edits for t in bare)} edits) have neither"


def page(found: Sequence[Tally]) -> str:
    """The generated page: the share caught, kind by kind, and each survivor with its reason."""
    lines = [
        "# Mutations of the registry",
        "",
        "<!-- generated by scripts/mutate_specs.py -->",
        "",
        "Every single edit of every layout (two labels swapped, a sign or a reversal dropped or added, two axes",
        "exchanged, a role taken for another of the same axes, two names swapped, a map of values dropped, a fact",
        "turned) is planted, one at a time. Witnessed forms are held against what the real framework computed; others",
        "ones against a second implementation of their published equations (tests/verify/test_*replay*.py and others),",
        "which is no proof that the framework does so. Golden plans (`tests/golden`) show every edit as a change.",
        "",
        f"**{summary(found)}.**",
        "",
        "| kind | forms witnessed | edits | caught | forms replayed | edits | caught | forms with neither |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in specs().kinds.values():
        held, told, bare = groups([t for t in found if t.form in kind.forms])
        counts = [
            f(g)
            for g in (held, told)
            for f in (len, lambda g: sum(t.edits for t in g), lambda g: sum(t.caught for t in g))
        ]
        lines.append(f"| {kind.name} | {' | '.join(map(str, [*counts, len(bare)]))} |")
    lines += ["", "## Edits that survive", ""]
    by_reason: dict[str, list[Survivor]] = {}
    for s in (s for t in found for s in t.survivors if evidence(s.form)):
        by_reason.setdefault(s.reason or "no reason known", []).append(s)
    for reason, survivors in by_reason.items():
        lines += [f"### {reason[0].upper()}{reason[1:]}", ""]
        lines += [f"- `{s.form}` {s.where}: `{s.before}` → `{s.after}`" for s in survivors]
        lines.append("")
    bare = groups(found)[2]
    lines += ["## Neither witnessed nor replayed", "", ", ".join(f"`{t.form}`" for t in bare) or "None.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
