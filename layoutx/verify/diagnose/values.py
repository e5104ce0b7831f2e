"""Values changed by a rule: biases counted twice, a forget bias of one, roots, scales and rows that moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom
from layoutx.verify.diagnose.fixes import ported, rewritten
from layoutx.verify.diagnose.numbers import atoms_of, opened, with_stored
from layoutx.verify.diagnose.settings import NORMS, setting
from layoutx.verify.diagnose.suspect import Edit, Suspect

Rule = Callable[[Array], Array]


def changed(
    suspect: Suspect, atoms: Sequence[Atom], rule: Rule, mode: str, family: str, what: str, steps: str = ""
) -> Edit:
    """An edit that puts some atoms' numbers through a rule; `steps`: the rule in NumPy words, on {w}."""
    bound = suspect.target
    tensors = tuple(dict.fromkeys(bound.places[atom].tensor for atom in atoms))

    def apply(s: Suspect) -> Suspect:
        after = opened(s, tensors)
        with np.errstate(all="ignore"):  # a wrong hypothesis may take the root of a negative number
            for atom in atoms:
                numbers = after.atom(atom)
                numbers[...] = rule(numbers)
        return with_stored(s, after.settled())

    code = "\n".join(rewritten(suspect, name, steps) for name in tensors) if steps else ported(suspect)
    return Edit(mode, family, what, apply, ported(suspect), code, what)


def of(suspect: Suspect, roles: Sequence[str], **labels: str) -> list[Atom]:
    """The stored atoms of some roles that have these labels."""
    found = [atom for role in roles for atom in atoms_of(suspect.target, role)]
    return [atom for atom in found if labels.items() <= dict(atom[1]).items()]


def text(suspect: Suspect, atoms: Sequence[Atom]) -> str:
    """The tensors that hold some atoms."""
    return ", ".join(dict.fromkeys(suspect.target.places[atom].tensor for atom in atoms))


def biases(suspect: Suspect) -> Iterator[Edit]:
    """A bias counted twice, or copied into both of two that are added (F6); a forget bias of one (F21)."""
    bound = suspect.target
    kind = bound.kind
    added = [role for role in kind.roles.values() if role.absent == "zeros" and not role.dtype]
    summed = {role for gauge in kind.gauge for role in gauge.roles if atoms_of(bound, role)}
    for gauge in kind.gauge:
        own = [role for role in gauge.roles if atoms_of(bound, role)]
        for zeroed in _superfluous(suspect, own):
            atoms = [
                a for a in of(suspect, [zeroed]) if all(dict(a[1]).get(x) in some for x, some in gauge.labels.items())
            ]
            yield _zeroed(suspect, atoms, own)
    for role in added:
        atoms = of(suspect, [role.name])
        if atoms and role.name != "peephole":
            what = f"{text(suspect, atoms)} is counted twice: it holds twice the bias"
            yield changed(suspect, atoms, lambda w: w * 0.5, "F6", f"size of {role.name}", what, "{w} * 0.5")
    both = of(suspect, sorted(summed))
    if len(summed) == 2 and len(_superfluous(suspect, sorted(summed))) == 2:
        what = f"{text(suspect, both)} hold the whole bias each: it is counted twice"
        yield changed(suspect, both, lambda w: w * 0.5, "F6", "biases", what, "{w} * 0.5")
    if kind.name in ("lstm", "conv_lstm"):
        yield from _forget(suspect)


def _superfluous(suspect: Suspect, own: Sequence[str]) -> tuple[str, ...]:
    """Which of two added biases may be one too many; of equal ones the second, since the sum alone counts."""
    if len(own) != 2:
        return ()
    first, second = (opened(suspect, [p.tensor for a, p in suspect.target.places.items() if a[0] == r]) for r in own)
    pairs = zip(of(suspect, own[:1]), of(suspect, own[1:]), strict=True)
    same = all(np.array_equal(first.atom(a), second.atom(b)) for a, b in pairs)
    return (own[1],) if same else (own[1], own[0])


def _zeroed(suspect: Suspect, atoms: Sequence[Atom], own: Sequence[str]) -> Edit:
    names = " and ".join(dict.fromkeys(suspect.target.places[a].tensor for a in of(suspect, own)))
    what = f"{names} are added, and {text(suspect, atoms)} should be zero there: one bias was copied into both"
    return changed(suspect, atoms, np.zeros_like, "F6", "biases", what, "{w} * 0")


def _forget(suspect: Suspect) -> Iterator[Edit]:
    held = [role for role in ("b_input", "b_recurrent") if atoms_of(suspect.target, role)][:1]
    atoms = of(suspect, held, gate="f")
    if not atoms:
        return
    name = text(suspect, atoms)
    what = f"{name} lacks the forget bias of 1 that the source adds while it runs"
    yield changed(suspect, atoms, lambda w: w + 1.0, "F21", "forget bias", what)
    what = f"{name} has a forget bias of 1 too many"
    yield changed(suspect, atoms, lambda w: w - 1.0, "F21", "forget bias", what)


def norms(suspect: Suspect) -> Iterator[Edit]:
    """A scale less one (F32); a deviation, or one over it, where the variance should be (F26)."""
    if suspect.target.kind.name not in NORMS:
        return
    gamma, variance = of(suspect, ["gamma"]), of(suspect, ["variance"])
    if gamma:
        name = text(suspect, gamma)
        what = f"{name} holds the scale less 1, and nothing adds it"
        yield changed(suspect, gamma, lambda w: w + 1.0, "F32", "scale", what, "{w} + 1")
        what = f"{name} holds the scale with 1 added to it once too often"
        yield changed(suspect, gamma, lambda w: w - 1.0, "F32", "scale", what, "{w} - 1")
    if not variance:
        return
    name = text(suspect, variance)
    eps = float(suspect.source.settings.get("eps") or setting(suspect, "eps") or 0.0)
    rules: tuple[tuple[Rule, str, str], ...] = (
        (lambda w: w * w, "the standard deviation", "{w} ** 2"),
        (lambda w: w * w - eps, "the root of variance + eps", f"{{w}} ** 2 - {eps:g}"),
        (lambda w: 1.0 / (w * w), "one over the standard deviation", "{w} ** -2"),
        (lambda w: 1.0 / (w * w) - eps, "one over the root of variance + eps", f"{{w}} ** -2 - {eps:g}"),
        (lambda w: 1.0 / w, "one over the variance", "1 / {w}"),
        (np.sqrt, "the square of the variance", "{w} ** 0.5"),
        (np.exp, "the logarithm of the variance", "np.exp({w})"),
        (lambda w: w - eps, "variance + eps", f"{{w}} - {eps:g}"),
    )
    for rule, held, steps in rules:
        what = f"{name} holds {held}, not the variance"
        yield changed(suspect, variance, rule, "F26", "statistics", what, steps)


def scales(suspect: Suspect) -> Iterator[Edit]:
    """1/sqrt(head) counted twice or never, an embedding times sqrt(dim) (F32); rows that moved by one or two (F37)."""
    sizes = suspect.target.sizes
    if "attention" in suspect.target.kind.name:
        head = sizes.get("head") or 2 * sizes.get("pair", 0) + sizes.get("rest", 0)
        atoms = of(suspect, ["w_q", "b_q", "w_q_rest", "b_q_rest"])
        if head > 1 and atoms:
            yield from _by(suspect, atoms, float(head) ** 0.5, "the queries", f"sqrt({head}), the size of a head")
    atoms = of(suspect, ["table"])
    if suspect.target.kind.name == "embedding" and atoms:
        yield from _by(suspect, atoms, sizes["dim"] ** 0.5, "the rows", f"sqrt({sizes['dim']})")
        yield from _rows(suspect, atoms[0])


def _by(suspect: Suspect, atoms: Sequence[Atom], root: float, what: str, word: str) -> Iterator[Edit]:
    name = text(suspect, atoms)
    said = f"{name}: {what} were divided by {word} once too often"
    yield changed(suspect, atoms, lambda w: w * root, "F32", "scale", said, f"{{w}} * {root!r}")
    said = f"{name}: {what} were multiplied by {word} once too often, or never divided"
    yield changed(suspect, atoms, lambda w: w / root, "F32", "scale", said, f"{{w}} / {root!r}")


def _rows(suspect: Suspect, table: Atom) -> Iterator[Edit]:
    name = suspect.target.places[table].tensor
    for by in (1, 2, -1, -2):
        if abs(by) >= suspect.target.sizes["vocab"]:
            continue
        many = f"{abs(by)} row{'s' if abs(by) > 1 else ''}"
        what = (
            f"{name} starts {many} too {'late: rows stand in front' if by > 0 else 'early: rows are missing in front'}"
        )
        steps = f"np.roll({{w}}, {-by}, 0)"

        def apply(s: Suspect, by: int = by) -> Suspect:
            after = opened(s, [name])
            rows = after.atom(table, ("vocab", "dim"))
            rows[...] = np.roll(np.array(rows), -by, 0)
            return with_stored(s, after.settled())

        yield Edit("F37", "rows", what, apply, ported(suspect), rewritten(suspect, name, steps), what)


def packed(suspect: Suspect) -> Iterator[Edit]:
    """Each gate's block as its bytes in the other order: cuDNN's memory (F22)."""
    bound = suspect.target
    matrices = [
        role for role in bound.kind.roles
        if any(len(_long(suspect, atom)) == 2 for atom in atoms_of(bound, role)) and len(atoms_of(bound, role)) > 1
    ]  # fmt: skip
    for roles in [tuple(matrices), *((role,) for role in matrices if len(matrices) > 1)]:
        atoms = [atom for atom in of(suspect, roles) if len(_long(suspect, atom)) == 2]
        if atoms and any(bound.places[atom].tensor for atom in atoms):
            yield _packed(suspect, atoms, len(roles) == len(matrices))


def _long(suspect: Suspect, atom: Atom) -> tuple[str, ...]:
    """An atom's axes longer than one, in the order in which they are stored."""
    strides = suspect.target.places[atom].block.strides
    return tuple(sorted((a for a in strides if suspect.target.sizes[a] > 1), key=lambda a: -abs(strides[a])))


def _packed(suspect: Suspect, atoms: Sequence[Atom], everywhere: bool) -> Edit:
    tensors = tuple(dict.fromkeys(suspect.target.places[atom].tensor for atom in atoms))

    def apply(s: Suspect) -> Suspect:
        after = opened(s, tensors)
        for atom in atoms:
            block = after.atom(atom, _long(suspect, atom))
            block[...] = np.array(block).reshape(block.shape[::-1]).T
        return with_stored(s, after.settled())

    what = f"each gate's block of {', '.join(tensors)} holds the bytes of its transpose, as cuDNN packs them"
    family = "packing" if everywhere else f"packing of {', '.join(tensors)}"
    return Edit("F22", family, what, apply, ported(suspect), ported(suspect), what)
