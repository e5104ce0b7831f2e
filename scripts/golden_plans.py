"""Golden plans: for each pair of forms of a kind, the plan in three lines, so that a change of a spec shows as a diff.

python scripts/golden_plans.py            write tests/golden/<kind>.txt
python scripts/golden_plans.py --check    say what differs from the files, and fail if anything does
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from layoutx.errors import ConversionError, LayoutxError, Problems  # noqa: E402
from layoutx.lang.sizes import extent  # noqa: E402
from layoutx.lang.tree import Axis, Product, walk  # noqa: E402
from layoutx.plan.code import expression  # noqa: E402
from layoutx.plan.fit import fit  # noqa: E402
from layoutx.plan.plan import Plan  # noqa: E402
from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Step  # noqa: E402
from layoutx.plan.words import formula  # noqa: E402
from layoutx.spec.bind import bind  # noqa: E402
from layoutx.spec.registry import Registry, builtin_folder, load_registry  # noqa: E402
from layoutx.spec.schema import Form, Kind, choose  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
PRIMES = (7, 5, 3, 2, 11, 13, 17, 19, 23)
USUAL_RANK = 2
MAIN, HUB = ("keras", "torch", "onnx"), "torch"


def main(argv: list[str] | None = None) -> int:
    """Write the files, or compare with them; 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    check = parser.parse_args(argv).check
    texts = {f"{kind.name}.txt": golden(kind) for kind in specs().kinds.values()}
    if check:
        found = stale(texts, GOLDEN)
        print(found, end="")
        return 1 if found else 0
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
    return 0


@cache
def specs() -> Registry:
    """The project's own specs, whatever else is installed."""
    return load_registry([builtin_folder()])


def stale(texts: Mapping[str, str], folder: Path) -> str:
    """A diff of what the files say and what the specs mean now; "" where they agree."""
    lines: list[str] = []
    for name in sorted({*texts, *(path.name for path in folder.glob("*.txt"))}):
        path = folder / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = texts.get(name, "")
        lines += difflib.unified_diff(
            before.splitlines(True), after.splitlines(True), f"tests/golden/{name}", f"{name} now"
        )
    return "".join(lines)


def golden(kind: Kind) -> str:
    """The text of one kind's file: three lines for each ordered pair of forms."""
    parts = []
    for source, target, rank in pairs(kind):
        try:
            found: Plan | LayoutxError = planned(kind, source, target, rank)
        except LayoutxError as error:
            found = error
        parts.append("\n".join(three_lines(source, target, found)))
    return "\n\n".join(parts) + "\n"


def pairs(kind: Kind) -> Iterator[tuple[Form, Form, int]]:
    """Ordered pairs of forms for the same number of spatial axes.

    All pairs of Keras, torch and onnx; every other form with the hub only, both ways: a number of lines that grows with
    the forms and not with their square. docs/matrix has all pairs.
    """
    first = next(
        (f.framework for f in kind.forms.values() if f.framework == HUB), next(iter(kind.forms.values())).framework
    )
    for source in kind.forms.values():
        for target in kind.forms.values():
            ranks = {form.rank for form in (source, target)} - {None}
            shown = {source.framework, target.framework} <= set(MAIN) or first in (source.framework, target.framework)
            if source is not target and len(ranks) < 2 and shown:
                yield source, target, ranks.pop() if ranks else USUAL_RANK if kind.spread else 0


def planned(kind: Kind, source: Form, target: Form, rank: int, config: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a pair with sizes that fit both, where any do; ConversionError where none do."""
    known = {**(config or {}), **({"rank": rank} if kind.spread else {})}
    bound = bind(kind, source, known, sizes=sizes(kind, source, target, rank, known))
    return fit(bound, target, {"rank": rank} if kind.spread else {})


def sizes(kind: Kind, source: Form, target: Form, rank: int, config: Mapping[str, Any]) -> dict[str, int]:
    """A prime for each axis; one where either form pins it, another axis' where either form or the kind says so."""
    spatial = kind.spread.get(rank, ())
    every = {name for names in kind.spread.values() for name in names}
    axes = [n.name for role in kind.roles.values() for n in walk(role.axes) if isinstance(n, Axis)]
    free = [a for a in dict.fromkeys([*axes, *spatial]) if a not in kind.labels and (a in spatial or a not in every)]
    found = dict(zip(free, PRIMES, strict=False))
    for form in (source, target):
        full = {**form.config, **(config if form is source else {})}
        for axis, cases in form.pin.items():
            if (size := choose(cases, full)) is not None:
                found.update(dict.fromkeys(spatial if axis == "..." else (axis,), int(size)))
    for form in (source, target):  # one config key for several dims, as embed_dim: they are as long as the product
        for key, dim in form.sizes:
            others = [d for name, d in form.sizes if name == key and isinstance(d, Product)]
            if isinstance(dim, Axis) and others and dim.name in found:
                found[dim.name] = extent(others[0], found)
    aliases = [*kind.same.items()]
    for form in (target, source):
        full = {**form.config, **(config if form is source else {})}
        aliases += [(axis, other) for axis, cases in form.equal.items() if (other := choose(cases, full)) is not None]
    full = {**source.config, **config}
    aliases += [(axis, other) for axis, cases in source.same.items() if (other := choose(cases, full)) is not None]
    for axis, other in aliases:
        if axis in found and other in found:
            found[axis] = found[other]
    return found


def three_lines(source: Form, target: Form, found: Plan | LayoutxError) -> list[str]:
    """Forms; exactness and counts; steps or the reason against them."""
    if isinstance(found, Plan):
        chosen = {k: v for k, v in found.target.config.items() if v != target.config.get(k) and k != "rank"}
        config = f" {{{', '.join(f'{k}: {v}' for k, v in chosen.items())}}}" if chosen else ""
        kinds = ((Copy, "copies"), (Fill, "fills"), (Add, "adds"), (Guard, "guards"), (Drop, "drops"))
        counts = [(sum(isinstance(s, of) for s in found.steps), word) for of, word in kinds]
        said = ", ".join(f"{n} {word}" for n, word in counts if n or word in ("copies", "fills", "adds"))
        return [
            f"{source.name} -> {target.name}{config}",
            f"  {found.exactness}: {said}",
            f"  {'; '.join(moves(found)) or 'no numbers on either side'}",
        ]
    if not isinstance(found, (ConversionError, Problems)):
        return [f"{source.name} -> {target.name}", "  refused", f"  {type(found).__name__}: {one_line(found)}"]
    return [f"{source.name} -> {target.name}", "  refused", f"  {one_line(found)}"]


def one_line(error: LayoutxError) -> str:
    """An error's text on one line, as `what; where; why; do`; of several errors the first."""
    if isinstance(error, Problems):
        return f"{one_line(error.problems[0])}; and {len(error.problems) - 1} more"  # type: ignore[arg-type]
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def moves(plan: Plan) -> Iterator[str]:
    """Each target tensor as one NumPy expression where there is one, else its steps; then what is left out."""
    for tensor in plan.target.tensors:
        steps = [step for step in plan.steps if getattr(step, "target", None) == tensor.name]
        text = expression(plan, tensor.name).replace("source['", "").replace("']", "", 1)
        atoms = compact([atom for step in steps for atom in step.atoms])
        yield from [f"{tensor.name} = {text} {atoms}"] if text else map(short, steps)
    yield from (short(step) for step in plan.steps if isinstance(step, (Guard, Drop)))


def loops(step: Copy | Fill | Add) -> str:
    """`20:1<35`: twenty elements, one apart in the target and thirty-five in the source; offsets before."""
    found = [f"{x.size}:{x.target}" + (f"<{x.source}" if isinstance(step, Copy) else "") for x in step.loops]
    offset = f"{step.target_offset}" + (f"<{step.source_offset}" if isinstance(step, Copy) else "")
    return f"[{' '.join([offset, *found])}]"


def short(step: Step) -> str:
    """One step in a few words."""
    atoms = compact(step.atoms)
    match step:
        case Copy():
            return f"{step.target} <- {'-' if step.negate else ''}{step.source} {atoms} {loops(step)}"
        case Fill():
            return f"{step.target} = {step.value:g} {atoms} {loops(step)}"
        case Add():
            terms = " + ".join(f"{'-' if x.negate else ''}{x.source}[{x.offset}]" for x in step.terms)
            made = "" if step.shifts_only and not step.constant else f" ({formula(step)})"
            return f"{step.target} <- {terms}{made} {atoms} {loops(step)}"
        case Guard():
            return f"only if {step.source} {atoms} is {step.value:g}"
        case Drop():
            return f"without {step.source} {atoms}: {step.reason}"


def compact(atoms: Sequence[str]) -> str:
    """`w_input{i f}` for w_input.i and w_input.f."""
    roles: dict[str, list[str]] = {}
    for atom in atoms:
        role, _, label = atom.partition(".")
        roles.setdefault(role, []).extend([label] if label else [])
    return " ".join(f"{role}{{{' '.join(labels)}}}" if labels else role for role, labels in roles.items())


if __name__ == "__main__":
    sys.exit(main())
