"""Mutated files, layouts and specs, opened in processes of their own: nothing but layoutx's own errors may come out.

    python scripts/fuzz.py --minutes 10                   all readers, two at a time
    python scripts/fuzz.py --minutes 5 --only keras,onnx --seed 3
    python scripts/fuzz.py --inputs 500 --only layout     so many inputs instead of time
    python scripts/fuzz.py --replay FOLDER                a finding again (build/fuzz/...), or a file with --only READER

A finding is another exception, a crash, 2 s of computing (slow: 1 s), or 200 MB more memory. Mutations begin with
tests/corpus (and LAYOUTX_MODELS); what reaches new lines of layoutx is mutated further.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from scripts.fuzzing.corpus import readers  # noqa: E402
from scripts.fuzzing.runs import Tally, fuzzed  # noqa: E402
from scripts.fuzzing.verdict import armed, verdict  # noqa: E402

OUT = ROOT / "build" / "fuzz"


def table(tallies: list[Tally]) -> str:
    """Inputs, refused, opened, findings of each reader."""
    lines = [f"{'reader':16}{'inputs':>10}{'refused':>10}{'opened':>10}{'lines':>8}{'inputs/s':>10}{'findings':>10}"]
    for t in [*tallies, Tally.sum("all", tallies)]:
        rate = t.inputs / t.seconds if t.seconds else 0
        lines.append(
            f"{t.reader:16}{t.inputs:>10,}{t.refused:>10,}{t.opened:>10,}{t.reached:>8,}{rate:>10.0f}{t.found:>10,}"
        )
    return "\n".join(lines)


def replay(path: Path, reader: str) -> int:
    """Open one input in this process and say what comes out."""
    about = path / "finding.json"
    if about.exists():
        said = json.loads(about.read_text(encoding="utf-8"))
        reader, path = said["reader"], path / said["opened"]
    armed()
    verdict(reader, path, patience=60.0)  # once before, so that importing a framework is not counted
    found = verdict(reader, path)
    print(found.kind, found.where, found.text, sep="\n" if found.text else " ")
    return int(found.found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--inputs", type=int, default=0, help="so many of each reader instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help=", ".join(readers()))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--replay", type=Path, metavar="PATH")
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else readers()
    if unknown := set(chosen) - set(readers()):
        parser.error(f"no reader is called {', '.join(sorted(unknown))}; there are {', '.join(readers())}")
    if args.replay:
        return replay(args.replay, chosen[0] if args.only else "")
    seconds = args.minutes * 60 * args.jobs / len(chosen)
    runs = [[(name, args.inputs or 1 << 40, 86_400.0 if args.inputs else seconds)] for name in chosen]
    tallies, findings = fuzzed(runs, args.seed, args.jobs, OUT)
    print(table(tallies))
    for one in findings:
        print(one.text())
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
