"""The whole matrix: every ordered pair of forms of every kind, planned, classed, and where both sides run, measured.

python scripts/matrix.py                 plan all pairs anew; write docs/matrix
python scripts/matrix.py --check         fail where docs/matrix is not what the specs mean now
python scripts/matrix.py --measure       also run every pair of witnessed forms; write docs/matrix/measured.json
python scripts/matrix.py --only lstm,gru with --measure: kinds of these names (globs) only
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from layoutx.errors import LayoutxError, Problems  # noqa: E402
from layoutx.plan.fit import fit  # noqa: E402
from layoutx.plan.plan import Plan  # noqa: E402
from layoutx.plan.steps import Add, Copy, Fill, Guard  # noqa: E402
from layoutx.spec.bind import bind  # noqa: E402
from layoutx.spec.configs import reachable  # noqa: E402
from layoutx.spec.schema import Form, Kind  # noqa: E402
from layoutx.verify.witnesses import witnessed  # noqa: E402
from scripts.golden_plans import USUAL_RANK, sizes, specs  # noqa: E402

FOLDER = ROOT / "docs" / "matrix"
MEASURED = FOLDER / "measured.json"
MOST_CONFIGS = 6  # of a source, for each pair: its defaults, and the options that decide what it stores or computes
SIGNS = {"moves": "m", "fills": "f", "conditional": "c", "rounds": "r"}


@dataclass(frozen=True)
class Verdict:
    """What one source config of a pair comes to: the class of its plan and its copies, or why it is refused."""

    config: str
    exactness: str
    copies: int = 0
    fills: int = 0
    sums: int = 0
    guards: int = 0
    why: str = ""

    @property
    def sign(self) -> str:
        """`m3`: moves in three copies."""
        return f"{SIGNS[self.exactness]}{self.copies}" if self.exactness in SIGNS else "x"


@dataclass(frozen=True)
class Pair:
    """One ordered pair of forms, for one number of spatial axes: the source's defaults first."""

    source: str
    target: str
    verdicts: tuple[Verdict, ...]


def own(kind: Kind) -> dict[str, Form]:
    """The forms of a kind, without those that read a class of another kind."""
    return {name: form for name, form in kind.forms.items() if not form.of}


def pairs(kind: Kind) -> Iterator[tuple[Form, Form, int]]:
    """All ordered pairs of different forms that may have the same number of spatial axes."""
    for source in own(kind).values():
        for target in own(kind).values():
            ranks = {form.rank for form in (source, target)} - {None}
            if source is not target and len(ranks) < 2:
                yield source, target, ranks.pop() if ranks else USUAL_RANK if kind.spread else 0


def planned(name: str) -> list[Pair]:
    """All pairs of one kind."""
    kind = specs().kinds[name]
    return [
        Pair(source.name, target.name, verdicts(kind, source, target, rank)) for source, target, rank in pairs(kind)
    ]


def verdicts(kind: Kind, source: Form, target: Form, rank: int) -> tuple[Verdict, ...]:
    """One for the source's defaults; one more for each config that comes to something else."""
    found: list[Verdict] = []
    tried = [(config, target) for config in configs(source)]
    # with sizes that suit the source alone: value_dim and key_dim may differ there, and not in the target
    for config, other in [*tried, ({}, source)]:
        verdict = _verdict(kind, source, target, rank, config, other)
        if verdict and all((v.exactness, v.why) != (verdict.exactness, verdict.why) for v in found):
            found.append(verdict)
    return tuple(found)


@cache
def _configs(name: str) -> tuple[str, ...]:
    found = []
    for config in reachable(specs().forms[name]):
        found.append(json.dumps(config))
        if len(found) == MOST_CONFIGS:
            break
    return tuple(found)


def configs(source: Form) -> list[dict[str, Any]]:
    """The source's defaults, and its options one after the other."""
    return [json.loads(text) for text in _configs(source.name)]


def _verdict(
    kind: Kind, source: Form, target: Form, rank: int, config: Mapping[str, Any], fitting: Form
) -> Verdict | None:
    """None where the source itself does not exist with this config; sizes fit the source and `fitting`."""
    spoken = ", ".join(f"{key}={value}" for key, value in config.items())
    spoken = spoken if fitting is target else "every size of its own"
    known = {**config, **({"rank": rank} if kind.spread and "rank" in source.config else {})}
    try:
        bound = bind(kind, source, known, sizes=sizes(kind, source, fitting, rank, known))
    except LayoutxError:
        return None
    try:
        plan = fit(bound, target, {"rank": rank} if kind.spread and "rank" in target.config else {})
    except LayoutxError as error:
        return Verdict(spoken, "refused", why=because(error, source, target))
    return Verdict(
        spoken, str(plan.exactness), *(count(plan, of) for of in (Copy, Fill, Add, Guard)), why=guarded(plan)
    )


def count(plan: Plan, of: type) -> int:
    return sum(isinstance(step, of) for step in plan.steps)


def guarded(plan: Plan) -> str:
    """What must hold of the values of a conditional plan."""
    names = sorted({re.sub(r"\..*", "", atom) for s in plan.steps if isinstance(s, Guard) for atom in s.atoms})
    return f"only if {', '.join(names)} {'is' if len(names) == 1 else 'are'} absent in effect" if names else ""


def because(error: LayoutxError, source: Form, target: Form) -> str:
    """The mathematics of a refusal, without the names of the pair: pairs that are refused alike say it alike."""
    first = error.problems[0] if isinstance(error, Problems) else error
    text = first.what.removeprefix(f"{target.name} cannot hold this {source.name}: ")
    name = re.escape(target.name)
    if same := re.search(rf"{name} gives (\w+) the size of (\w+)", str(first)):
        return f"in the target {same[1]} is as long as {same[2]}"
    if pinned := re.search(rf"{name} has (\w+)=1 only", str(first)):
        return f"in the target {pinned[1]} is 1"
    text = re.sub(rf"{re.escape(source.name)}(?!\w)", "the source", text)
    text = re.sub(rf"{name}(?!\w)", "the target", text)
    for pattern, meaning in MEANINGS.items():
        if re.search(pattern, text):
            return re.sub(rf".*?{pattern}.*", meaning, text)
    return text


# what the engine says of one atom or size -> what it means for the pair
MEANINGS = {
    r"its direction is forward, and no other": "the target also runs backward, the source does not",
    r"has no place for \w+\.backward": "the source also runs backward, the target does not",
    r"its direction is backward, and no other": "the target runs forward, the source runs backward only",
    r"has no place for \w+\.forward": "the source runs forward, the target runs backward only",
    r"^(\w+) is \d+, not \d+": r"the target has no size of its own for \1",
    r"^(\w+) is \d+ in the source and \d+ in the target": r"the target has no size of its own for \1",
}


@cache
def measured() -> Mapping[str, Any]:
    """`source -> target` to the largest relative difference of the target's own framework, and in which precision."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}


def error_of(pair: Pair) -> str:
    found = measured().get(f"{pair.source} -> {pair.target}")
    return ", ".join(f"{error:.0e} {dtype}" for dtype, error in sorted(found.items())) if found else ""


def table(found: Sequence[Pair]) -> str:
    """All pairs of a kind as CSV, one line a verdict."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["source", "target", "source config", "class", "copies", "fills", "sums", "guards", "why", "source witness",
         "target witness", "measured"]
    )  # fmt: skip
    for pair in found:
        for at, v in enumerate(pair.verdicts):
            states = (state(pair.source), state(pair.target))
            error = "" if at else error_of(pair)
            writer.writerow(
                [
                    pair.source,
                    pair.target,
                    v.config,
                    v.exactness,
                    v.copies,
                    v.fills,
                    v.sums,
                    v.guards,
                    v.why,
                    *states,
                    error,
                ]
            )
    return out.getvalue()


def state(form: str) -> str:
    return witnessed(form).split(" ")[0]


def page(kind: Kind, found: Sequence[Pair]) -> str:
    """The grid of a kind, its refusals, and what was measured."""
    rows: dict[str, dict[str, list[Pair]]] = {}
    for pair in found:
        rows.setdefault(family(pair.source), {}).setdefault(family(pair.target), []).append(pair)
    names = list(dict.fromkeys(family(form) for form in own(kind)))
    notes: dict[str, str] = {}
    lines = [
        f"# {kind.name}: every form to every form",
        "",
        "<!-- generated by scripts/matrix.py -->",
        "",
        kind.about,
        f"[The forms](../kinds/{kind.name}.md), [all plans as CSV]({kind.name}.csv), [legend](README.md).",
        "",
        "A row is the source, a column the target, numbered as the rows. `m3`: moves, in three strided copies;",
        "`f` fills, `c` conditional, `r` rounds; `x` refused, for the reason lettered below. Bold: run in the",
        "target's own framework, and equal. After a comma: what other options of the source come to.",
        "",
        "| | source | " + " | ".join(str(n + 1) for n in range(len(names))) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for n, name in enumerate(names):
        cells = [cell(rows.get(name, {}).get(other, []), notes) for other in names]
        mark = "" if any(witnessed(f) != "declared" for f in own(kind) if family(f) == name) else " (declared)"
        lines.append(f"| {n + 1} | `{name}`{mark} | " + " | ".join(cells) + " |")
    if notes:
        lines += ["", "## Refused because", "", *(f"- **x{letter}** {why}" for why, letter in notes.items())]
    guards = sorted({v.why for pair in found for v in pair.verdicts if v.exactness == "conditional" and v.why})
    if guards:
        lines += ["", "## Conditional", "", *(f"- {why}" for why in guards)]
    runs = [(pair, text) for pair in found if (text := error_of(pair))]
    if runs:
        lines += [
            "",
            "## Measured",
            "",
            "The largest difference, relative to the largest output, rounded up to a power of ten:",
            "",
        ]
        by_error: dict[str, list[str]] = {}
        for pair, text in runs:
            by_error.setdefault(text, []).append(f"{pair.source} → {pair.target}")
        lines += [f"- **{text}**: {len(held)} pairs" for text, held in sorted(by_error.items())]
    return "\n".join(lines) + "\n"


def family(form: str) -> str:
    """`torch.Conv{N}d` for torch.Conv1d, torch.Conv2d and torch.Conv3d."""
    template = re.sub(r"(?<=[a-z])[123](?=[dD])", "{N}", form)
    return template if template != form and form not in SINGLE else form


SINGLE: tuple[str, ...] = ()


def cell(found: Sequence[Pair], notes: dict[str, str]) -> str:
    """The verdicts of a pair, or of the pairs of a family that differ in their rank."""
    texts: list[str] = []
    for pair in found:
        for verdict in pair.verdicts:
            text = verdict.sign
            if verdict.exactness == "refused":
                letter = notes.setdefault(verdict.why, letters(len(notes)))
                text = f"x{letter}"
            if text not in texts:
                texts.append(text)
    bold = any(error_of(pair) for pair in found)
    return (f"**{texts[0]}**" + "".join(f", {t}" for t in texts[1:]) if bold and texts else ", ".join(texts)) or "·"


def letters(n: int) -> str:
    return chr(97 + n) if n < 26 else f"{letters(n // 26 - 1)}{chr(97 + n % 26)}"


def overview(found: Mapping[str, Sequence[Pair]]) -> str:
    """The front page: counts, legend."""
    lines = [
        "# The matrix",
        "",
        "<!-- generated by scripts/matrix.py -->",
        "",
        "For every kind, every ordered pair of its forms is planned: the source's defaults, and the options that",
        "decide what it stores. The class says what becomes of the numbers:",
        "",
        "- `m` **moves**: a permutation, bit-exact and reversible;",
        "- `f` **fills**: the target has numbers that the source need not store (a second bias, zero);",
        "- `c` **conditional**: legal where the values allow it (a bias that the target has no place for is zero);",
        "- `r` **rounds**: numbers are added, scaled or squared, and rounded once;",
        "- `x` **refused**: another function, with the reason.",
        "",
        "Measured: the source's captured weights and inputs, converted, run in the target's own framework, against the",
        "outputs that the source's framework gave; the largest difference relative to the largest output.",
        "",
        "| kind | forms | witnessed | pairs | moves | fills | conditional | rounds | refused | measured |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    total = [0] * 9
    for name, held in found.items():
        kind = specs().kinds[name]
        first = [pair.verdicts[0].exactness for pair in held if pair.verdicts]
        known = sum(witnessed(form) != "declared" for form in own(kind))
        counts = [len(own(kind)), known, len(held), *(first.count(c) for c in (*SIGNS, "refused"))]
        counts.append(sum(bool(error_of(pair)) for pair in held))
        total = [a + b for a, b in zip(total, counts, strict=True)]
        lines.append(f"| [{name}]({name}.md) | {' | '.join(map(str, counts))} |")
    lines += [f"| **all** | {' | '.join(map(str, total))} |", "", *left(found)]
    return "\n".join(lines) + "\n"


# `source -> target` (a glob) of witnessed forms that cannot be run, and why; what is not run and not here is a fault
NOT_RUN: Mapping[str, str] = {
    "tf1.GroupNorm -> *": "no captured one has a group for each channel",
    "tf1.InstanceNorm -> *3[dD]": "none was captured on volumes",
    "tf1.DepthwiseConv2D -> tf1.Conv2D": "none was captured on one channel",
}


def not_run(found: Mapping[str, Sequence[Pair]]) -> tuple[int, dict[str, list[str]]]:
    """How many pairs of witnessed forms are not refused, and by reason those that were not measured."""
    many, rest = 0, dict[str, list[str]]()
    for pair in (pair for held in found.values() for pair in held):
        if {state(pair.source), state(pair.target)} != {"witnessed"} or not pair.verdicts:
            continue
        if pair.verdicts[0].exactness == "refused":
            continue
        many += 1
        if not error_of(pair):
            name = f"{pair.source} -> {pair.target}"
            rest.setdefault(next((why for glob, why in NOT_RUN.items() if fnmatch(name, glob)), ""), []).append(name)
    return many, rest


def left(found: Mapping[str, Sequence[Pair]]) -> list[str]:
    """How much of the matrix was run, and what was not."""
    many, rest = not_run(found)
    ran = f"{many - sum(map(len, rest.values()))} of {many} witnessed pairs that are not refused were run"
    if not rest:
        return [f"{ran}."]
    return [f"{ran}; the rest:", "", *(f"- {why or 'unexplained'}: {', '.join(held)}" for why, held in rest.items())]


def texts() -> dict[str, str]:
    """File name -> text of everything under docs/matrix but the measurements."""
    kinds = specs().kinds
    with ProcessPoolExecutor(2) as pool:
        found = dict(zip(kinds, pool.map(planned, kinds), strict=True))
    made = {"README.md": overview(found)}
    for name, held in found.items():
        made[f"{name}.md"] = page(kinds[name], held)
        made[f"{name}.csv"] = table(held)
    return made


def main(argv: list[str] | None = None) -> int:
    """Write or compare; 1 where something is stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where docs/matrix is stale")
    parser.add_argument("--measure", action="store_true", help="run the pairs in the installed frameworks")
    parser.add_argument("--only", default="*", metavar="GLOBS", help="with --measure: kinds of these names only")
    options = parser.parse_args(argv)
    begun = time.perf_counter()
    if options.measure:
        from scripts.matrix_runs import measure

        kinds = [name for name in specs().kinds if any(fnmatch(name, glob) for glob in options.only.split(","))]
        found = {**measured(), **measure(kinds)}
        FOLDER.mkdir(parents=True, exist_ok=True)
        lines = [f"  {json.dumps(pair)}: {json.dumps(found[pair], sort_keys=True)}" for pair in sorted(found)]
        MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        measured.cache_clear()
    made = texts()
    if options.check:
        kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*") if path != MEASURED}
        stale = sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))
        print(f"stale in docs/matrix: {', '.join(stale)}: run scripts/matrix.py" if stale else "docs/matrix is current")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*"):
        if path != MEASURED and path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(made)} files in {time.perf_counter() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
