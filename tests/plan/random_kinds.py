"""Random kinds with random forms, as spec text for the engine and as `Stored` tensors for the oracle.

One source of randomness decides everything, so that Hypothesis can replay and shrink what it finds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import product
from math import prod

from hypothesis import strategies as st
from oracle import Stored, World

from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.load import parse_spec
from layoutx.spec.schema import Kind

ENUMS = {"p": ("x", "y", "z"), "q": ("u", "v")}
ALIASES = {"x": "xx", "v": "vv"}
MOST = 120  # elements of one role


@dataclass(frozen=True)
class RoleCase:
    """A role: its integer axes (with "..." as one of them), its enumerated axes and their labels."""

    name: str
    ints: tuple[str, ...]
    enums: dict[str, tuple[str, ...]]
    absent: str = ""
    drop: str = ""

    def text(self) -> str:
        labels = [a if names == ENUMS[a] else f"{a}[{' '.join(names)}]" for a, names in self.enums.items()]
        axes = " ".join([*labels, *self.ints])
        extra = f", absent: {self.absent}" if self.absent else ""
        extra += f', drop: "{self.drop}"' if self.drop else ""
        return f'{{axes: "{axes}"{extra}}}'


@dataclass
class FormCase:
    """One form: its YAML, and what the oracle has to know of it."""

    name: str
    yaml: list[str] = field(default_factory=list)
    tensors: list[Stored] = field(default_factory=list)
    world: World = field(default_factory=lambda: World({}))


@dataclass
class Case:
    """A kind with several forms."""

    text: str
    roles: dict[str, RoleCase]
    gauge: tuple[tuple[str, ...], dict[str, tuple[str, ...]]] | None
    forms: list[FormCase]

    def kind(self) -> Kind:
        kind = parse_spec(self.text, "random.yaml")
        assert isinstance(kind, Kind)
        return kind

    def bound(self, at: int, with_shapes: bool = False) -> BoundForm:
        """The engine's view of a form; where the oracle gives the shapes, they are equations too."""
        kind, form = self.kind(), self.forms[at]
        shapes = None
        if with_shapes:
            from oracle import addresses

            shapes = {t.name: addresses(t, form.world)[0] for t in form.tensors}
        return bind(kind, kind.forms[form.name], sizes=form.world.sizes, refine=form.world.refine, shapes=shapes)


def cases(forms: int = 2) -> st.SearchStrategy[Case]:
    """Random kinds with so many forms."""
    return st.randoms(use_true_random=False).map(lambda r: random_case(r, forms))


def random_case(r: random.Random, forms: int) -> Case:
    ints = list("abcd")[: r.randint(2, 4)]
    sizes = {axis: r.choice((1, 2, 2, 3, 5)) for axis in ints}
    spatial = ("k0", "k1")[: r.choice((0, 0, 1, 2))]
    sizes |= {axis: r.choice((2, 3)) for axis in spatial}
    refined = r.choice(("", "", "product", "segments"))
    if refined:
        sizes |= {"a1": r.choice((1, 2)), "a2": r.choice((2, 3)), "a3": r.choice((1, 2))}
        whole = (
            sizes["a1"] * sizes["a2"] * sizes["a3"] if refined == "product" else sizes["a1"] * sizes["a2"] + sizes["a3"]
        )
        sizes["a"] = whole
    roles = [random_role(r, f"w{i}", ints, spatial, sizes) for i in range(r.randint(1, 3))]
    gauge = None
    if r.random() < 0.4:
        twin = RoleCase("w0", roles[0].ints, roles[0].enums, "zeros")
        roles = [twin, RoleCase("v0", twin.ints, twin.enums, "zeros"), *roles[1:]]
        some = {"p": twin.enums["p"][:1]} if "p" in twin.enums and r.random() < 0.5 else {}
        gauge = (("w0", "v0"), some)
    named = {role.name: role for role in roles}
    made = [random_form(r, f"f.F{i}", named, sizes, spatial, refined) for i in range(forms)]
    return Case("\n".join(_yaml(named, gauge, made)) + "\n", named, gauge, made)


def _yaml(roles: dict[str, RoleCase], gauge, forms: list[FormCase]) -> list[str]:
    lines = ["kind: k", "axes:"]
    for axis, labels in ENUMS.items():
        spelled = ", ".join(f"{x}: [{ALIASES.get(x, '')}]" for x in labels)
        lines.append(f"  {axis}: {{{spelled}}}")
    lines += ["roles:", *(f"  {role.name}: {role.text()}" for role in roles.values())]
    if gauge:
        labels = ", ".join(f"{axis}: [{', '.join(names)}]" for axis, names in gauge[1].items())
        lines.append(f"gauge: [{{sum: [{', '.join(gauge[0])}], labels: {{{labels}}}}}]")
    lines.append("forms:")
    for form in forms:
        lines += form.yaml
    return lines


def random_role(
    r: random.Random, name: str, ints: list[str], spatial: tuple[str, ...], sizes: dict[str, int]
) -> RoleCase:
    enums = {axis: labels for axis, labels in ENUMS.items() if r.random() < 0.4}
    if "p" in enums and r.random() < 0.3:
        enums["p"] = tuple(r.sample(ENUMS["p"], r.randint(1, 2)))
    axes = r.sample(ints, r.randint(0, min(3, len(ints))))
    volume = prod(len(v) for v in enums.values())
    kept = []
    for axis in axes:
        if volume * sizes[axis] <= MOST:
            volume *= sizes[axis]
            kept.append(axis)
    if spatial and r.random() < 0.6 and volume * prod(sizes[k] for k in spatial) <= MOST:
        kept.insert(r.randint(0, len(kept)), "...")
    absent = r.choice(("", "", "zeros", "ones"))
    return RoleCase(name, tuple(kept), enums, absent, "does not matter" if r.random() < 0.1 else "")


def random_refinement(r: random.Random, refined: str) -> dict[str, str]:
    if not refined:
        return {}
    if refined == "product":
        return {"a": f"({' '.join(r.sample(['a1', 'a2', 'a3'], 3))})"}
    pieces = [f"s: ({' '.join(r.sample(['a1', 'a2'], 2))})", "t: a3"]
    return {"a": f"a{{{' | '.join(r.sample(pieces, 2))}}}"}


class Draw:
    """The choices that one form makes for all its tensors, and the texts that follow from them."""

    def __init__(self, r: random.Random, sizes: dict[str, int], roles: dict[str, RoleCase], refined: str) -> None:
        self.r = r
        self.refined = {"a"} if refined else set()
        self.only = {"p": tuple(r.sample(ENUMS["p"], r.randint(1, 2)))} if r.random() < 0.2 else {}
        self.pinned = {a for a in "abcd" if sizes.get(a) == 1 and a not in self.refined and r.random() < 0.5}
        self.equal: dict[str, str] = {}
        pairs = [
            (x, y) for x in "abcd" for y in "abcd" if x != y and x in sizes and y in sizes and sizes[x] == sizes[y]
        ]
        pairs = [p for p in pairs if not set(p) & (self.refined | self.pinned)]
        pairs = [p for p in pairs if not any(set(p) <= set(role.ints) for role in roles.values())]
        if pairs and r.random() < 0.2:
            axis, written = r.choice(pairs)
            self.equal = {axis: written}

    def labels(self, axis: str, role: RoleCase) -> tuple[str, ...]:
        """The labels of a role's axis that exist in this form."""
        return tuple(x for x in role.enums[axis] if x in self.only.get(axis, ENUMS[axis]))

    def tokens(self, role: RoleCase) -> list[str]:
        """The integer axes that a tensor of the role writes."""
        kept = [a for a in role.ints if not (a in self.pinned and self.r.random() < 0.7)]
        return [self.equal.get(a, a) for a in kept]

    def spell(self, label: str) -> str:
        return ALIASES[label] if label in ALIASES and self.r.random() < 0.3 else label

    def sign(self) -> str:
        return "-" if self.r.random() < 0.1 else ""

    def leaf(self, token: str) -> str:
        return f"-{token}" if token not in self.refined and self.r.random() < 0.2 else token

    def dims(self, tokens: list[object]) -> str:
        """Tokens in any order, some pushed into the pieces of an axis, some multiplied, some units between."""
        r = self.r
        waiting = list(tokens)
        r.shuffle(waiting)
        found = []
        while waiting:
            token = waiting.pop()
            if isinstance(token, str):
                found.append(self.leaf(token))
            elif token[0] == "parts":
                parts = [(name, rest) for name, rest in token[1].items()]
                r.shuffle(parts)
                signed = [(self.sign() + name, rest) for name, rest in parts]
                texts = [f"{name}: {self.dims(rest)}" if rest else name for name, rest in signed]
                found.append("{" + " | ".join(texts) + "}")
            else:
                found.append(self.sum(token[0], list(token[1]), waiting))
        return self.grouped(found)

    def sum(self, axis: str, labels: list[str], waiting: list[object]) -> str:
        r = self.r
        r.shuffle(labels)
        if r.random() < 0.6:
            return f"{axis}[{' '.join(self.sign() + self.spell(label) for label in labels)}]"
        inner = [waiting.pop() for _ in range(r.randint(0, len(waiting)))]
        return f"{axis}{{{' | '.join(f'{self.spell(x)}: {self.dims(inner)}' for x in labels)}}}"

    def grouped(self, found: list[str]) -> str:
        r = self.r
        if r.random() < 0.15:
            found.insert(r.randint(0, len(found)), "1")
        for _ in range(r.choice((0, 0, 1, 2))):
            start = r.randint(0, len(found))
            end = r.randint(start, len(found))
            if end > start:
                found = [*found[:start], f"({' '.join(found[start:end])})", *found[end:]]
        return " ".join(found)


def random_form(
    r: random.Random,
    name: str,
    roles: dict[str, RoleCase],
    sizes: dict[str, int],
    spatial: tuple[str, ...],
    refined: str,
) -> FormCase:
    draw = Draw(r, sizes, roles, refined)
    stored = [
        role
        for role in roles.values()
        if all(draw.labels(axis, role) for axis in role.enums) and r.random() > (0.3 if role.absent else 0.04)
    ]
    r.shuffle(stored)
    lines, tensors = [], []
    while stored:
        group = [stored.pop() for _ in range(min(len(stored), r.choice((1, 1, 1, 2, 3))))]
        made = _tensors(draw, group, f"t{len(tensors)}")
        lines += [f'      "{key}": "{text}"' for key, text, _ in made]
        tensors += [stored_tensor for _, _, several in made for stored_tensor in several]
    head = [f"  {name}:", f"    rank: {len(spatial)}"]
    if draw.only:
        head.append(f"    only: {{p: [{', '.join(draw.only['p'])}]}}")
    if draw.pinned:
        head.append(f"    pin: {{{', '.join(f'{a}: 1' for a in sorted(draw.pinned))}}}")
    if draw.equal:
        head.append(f"    equal: {{{', '.join(f'{a}: {b}' for a, b in draw.equal.items())}}}")
    world = World(sizes, spatial, random_refinement(r, refined), draw.only, {v: k for k, v in ALIASES.items()})
    return FormCase(name, [*head, "    tensors:" if lines else "    tensors: {}", *lines], tensors, world)


def _tensors(draw: Draw, group: list[RoleCase], base: str) -> list[tuple[str, str, list[Stored]]]:
    """(name in the spec, layout text, what it stands for) of the tensors that hold a group of roles."""
    r = draw.r
    first = group[0]
    tokens = {role.name: draw.tokens(role) for role in group}
    enums = {role.name: {a: draw.labels(a, role) for a in role.enums} for role in group}
    same = [a for a, labels in enums[first.name].items() if all(enums[x.name].get(a) == labels for x in group)]
    modes = {a: _mode(draw, a, first, len(group) == 1) for a in same}
    names = {x.name: {written: a for a, written in draw.equal.items() if a in x.ints} for x in group}
    by_name = [a for a in same if modes[a] == "name"]
    by_head = [a for a in same if modes[a] == "head"]
    found = []
    for chosen in product(*(enums[first.name][a] for a in by_head)):
        shared = [(a, enums[first.name][a]) for a in same if modes[a] == "dims"]
        if len(group) == 1:
            dims = draw.dims([*tokens[first.name], *shared])
            sign = "-" if r.random() < 0.15 else ""
            text = f"{sign}{'.'.join([first.name, *map(draw.spell, chosen)])}: {dims}"
        else:
            common = [t for t in tokens[first.name] if all(t in tokens[x.name] for x in group) and r.random() < 0.6]
            rest = {
                x.name: [
                    *(t for t in tokens[x.name] if t not in common),
                    *(e for e in enums[x.name].items() if e[0] not in same),
                ]
                for x in group
            }
            text = draw.dims([*common, *shared, ("parts", rest)])
        key = "_".join([base, *chosen, *(f"{{{a}}}" for a in by_name)])
        fixed = dict(zip(by_head, chosen, strict=True))
        fixed |= {a: enums[first.name][a][0] for a in same if modes[a] == "omit"}
        several = []
        for carried in product(*(enums[first.name][a] for a in by_name)):
            spelled = key.format(**dict(zip(by_name, carried, strict=True)))
            several.append(Stored(spelled, text, {**fixed, **dict(zip(by_name, carried, strict=True))}, names))
        found.append((key, text, several))
    return found


def _mode(draw: Draw, axis: str, role: RoleCase, alone: bool) -> str:
    """Where an enumerated axis is written: among the dims, in the name, in the head, or nowhere."""
    here = draw.only.get(axis, ENUMS[axis])
    modes = ["dims", "dims"]
    if set(here) <= set(role.enums[axis]):
        modes.append("name")
    if alone:
        modes.append("head")
    if len(here) == 1:
        modes.append("omit")
    return draw.r.choice(modes)
