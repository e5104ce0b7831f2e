"""What a conversion costs beside `cp` and the scripts that people write: ratios, peak anonymous memory, verdicts.

python scripts/bench.py                    all kinds and sizes, about half an hour
python scripts/bench.py --quick            50 MB, under 40 seconds
python scripts/bench.py --all --dask --write docs/performance.md

The files are made here and deleted again. Contenders run in turn, each in a process of its own; a figure is the
ratio of two medians of one run. Every output of layoutx is compared, tensor by tensor, with that of the NumPy script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from benching import contenders as who  # noqa: E402
from benching import figures, profiles, rounds  # noqa: E402
from benching.floors import Floors, floors  # noqa: E402
from benching.kinds import KINDS  # noqa: E402
from benching.made import made  # noqa: E402
from benching.page import markdown, replaced, shown  # noqa: E402
from benching.rounds import Session  # noqa: E402
from benching.sessions import Bench  # noqa: E402

BESIDE = ("bench_copy.py", "bench_port.py")
NAMES = (who.NUMPY_TORCH, who.TORCH, who.KERAS, who.OURS, who.CHECKED, who.DEFAULT)
Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, heads, lines


def main() -> int:
    """Print the tables; 1 where an output is wrong, or a figure that must be reached is missed."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the files go then, too
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.dir) as folder:
        bench = Bench(
            folder=Path(folder),
            sizes=tuple(sorted(round(size * 1e6) for size in args.sizes)),
            kinds=tuple(args.kinds),
            runs=args.runs,
            tensors=args.tensors,
            without=frozenset(args.without),
            dask=args.dask,
            tell=_tell,
        )
        floor = floors(bench.folder, args.floor * 1_000_000, args.runs)
        done: dict[str, Session] = {}
        for key, one in bench.sessions():
            done[key] = one
            print(_text([_section(one, floor)]), flush=True)
        profile = _profiles(bench) if args.profile else []
    judged = figures.figures(done)
    last = _summary(judged, done, floor)
    print(_text([*last, *profile]))
    outside = _beside() if args.all else ""
    print(outside)
    wrong = [what for one in done.values() for what in one.wrong]
    said = _said(done, wrong, args.runs, time.perf_counter() - started)
    print(said)
    sections = [*last, *(_section(one, floor) for one in done.values()), *profile]
    if args.write:
        replaced(args.write, _page(said, sections, outside))
    if args.json:
        found = {
            key: {name: [asdict(run) for run in some] for name, some in one.runs.items()} for key, one in done.items()
        }
        verdicts = [{**asdict(one), "verdict": one.verdict} for one in judged]
        args.json.write_text(json.dumps({"figures": verdicts, "sessions": found, "wrong": wrong}), encoding="utf-8")
    return int(bool(wrong) or any(one.verdict == "MISSES" for one in judged))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 MB, three rounds, without Keras")
    parser.add_argument("--sizes", type=float, nargs="+", metavar="MB", help="default: 50 500 2000")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--runs", type=int, help="rounds; default: 5")
    parser.add_argument("--tensors", type=int, default=10_000, help="of the kind `small`; default: 10000")
    left_out = f"contenders to leave out: {', '.join(NAMES)}"
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help=left_out)
    parser.add_argument("--dask", action="store_true", help="one and two workers of Dask against one process")
    parser.add_argument("--all", action="store_true", help=f"{' and '.join(BESIDE)} too: the rows in memory")
    parser.add_argument("--profile", action="store_true", help="where the time of one conversion goes")
    parser.add_argument(
        "--floor", type=int, default=512, metavar="MB", help="size of the files that measure the machine"
    )
    parser.add_argument("--dir", type=Path, help="where files are made; default: the system's temporary folder")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="put the tables between the markers of a page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, as JSON")
    args = parser.parse_args()
    args.sizes = args.sizes or ([50] if args.quick else [50, 500, 2000])
    args.runs = args.runs or (3 if args.quick else 5)
    args.without += [who.KERAS] * args.quick
    if unknown := sorted(set(args.without) - set(NAMES)):
        parser.error(f"no contender is called {unknown[0]}")
    return args


def _tell(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def _section(one: Session, floor: Floors) -> Section:
    return (
        f"{one.title}: {one.nbytes / 1e6:.0f} MB",
        rounds.HEADS,
        rounds.table(one, floor.least(one.nbytes, one.nbytes)),
    )


def _summary(judged: Sequence[figures.Figure], done: dict[str, Session], floor: Floors) -> list[Section]:
    sizes = [one for key, one in done.items() if key == "head" or key.startswith("dense ")]
    return [
        ("Figures", figures.HEADS, [one.line() for one in judged]),
        ("Scaling with size", figures.SCALING, figures.scaling(sorted(sizes, key=lambda one: one.nbytes))),
        ("The machine, GB/s", ["what", "1 / 2 threads"], floor.lines()),
    ]


def _profiles(bench: Bench) -> list[Section]:
    """Of a dense model of the middle size."""
    folder = bench.folder / "profile"
    folder.mkdir()
    files = made(KINDS["dense"](bench.middle), folder)
    title = (
        f"Where a conversion of {files.model.nbytes / 1e6:.0f} MB with one thread and no verification spends its time"
    )
    return [
        ("What `import layoutx.convert` waits for", profiles.IMPORTS, profiles.imports()),
        (title, profiles.CALLS, profiles.calls(files, folder)),
    ]


def _beside() -> str:
    """What the benches of the rows in memory print."""
    found = []
    for name in BESIDE:
        script = ROOT / "scripts" / name
        if not script.exists():
            found.append(f"{name} is left out: there is no such script yet")
            continue
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, check=False)
        found.append(f"{name}\n\n{(done.stdout if done.stdout else done.stderr[-2000:]).strip()}")
    return "\n\n".join(found)


def _said(done: dict[str, Session], wrong: Sequence[str], runs: int, seconds: float) -> str:
    """How it was measured, and whether the outputs were right."""
    compared = sum(one.compared for one in done.values())
    lines = [
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}; "
        f"medians of {runs} rounds; {seconds:.0f} s.",
        f"{compared} outputs of layoutx were compared tensor by tensor with the script's: "
        f"{'all are equal' if not wrong else f'{len(wrong)} PROBLEMS'}.",
        *wrong,
    ]
    return "\n".join(lines)


def _text(sections: Sequence[Section]) -> str:
    return _joined(sections, lambda title: title, shown)


def _page(said: str, sections: Sequence[Section], outside: str) -> str:
    tables = _joined(sections, lambda title: f"### {title}", markdown, "\n\n")
    return "\n\n".join(part for part in (said, tables, f"```\n{outside}\n```" if outside else "") if part)


def _joined(
    sections: Sequence[Section],
    titled: Callable[[str], str],
    written: Callable[[Sequence[str], Sequence[Sequence[str]]], str],
    gap: str = "\n",
) -> str:
    return (
        "\n\n".join(f"{titled(title)}{gap}{written(heads, lines)}" for title, heads, lines in sections if lines) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
