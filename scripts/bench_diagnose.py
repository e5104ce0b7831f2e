"""How many planted mistakes `layoutx diagnose` finds, names rightly and repairs, and how long it takes.

python scripts/bench_diagnose.py [--quick] [--mode F3] [--right 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
for _name, _value in {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}.items():
    os.environ.setdefault(_name, _value)

FIRST = ("F1", "F2", "F3", "F4", "F6", "F7", "F8", "F11", "F12", "F14", "F16")
NOT = {"F35": "how ONNX files are read, not how models differ: tests/models/test_onnx_models.py"}
GOAL = 0.95
RIGHT, QUICK = 200, 30


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one case in three, fewer right ports")
    parser.add_argument("--mode", help="one failure mode only, without right ports")
    parser.add_argument("--right", type=int, default=RIGHT, help="how many right ports")
    parser.add_argument("--json", metavar="FILE", help="write every verdict too")
    args = parser.parse_args()
    started = time.perf_counter()
    verdicts = list(_verdicts(args.mode, 3 if args.quick else 1))
    if not verdicts:
        parser.error(f"no mistake of mode {args.mode} is planted")
    _table(verdicts)
    many = 0 if args.mode else QUICK if args.quick else args.right
    told = _right(many)
    missed = _goals(verdicts, told, many)
    print(f"\n{len(verdicts)} mistakes and {many} right ports in {time.perf_counter() - started:.0f} s")
    if args.json:
        Path(args.json).write_text(json.dumps([_dict(v) for v in verdicts], indent=1), encoding="utf-8")
    return 1 if missed else 0


def _verdicts(mode: str | None, every: int) -> Iterator[Any]:
    from mistakes import attention, between, conv, frameworks, rarer, recorded, recurrent, single, training, wiring
    from mistakes.case import judged

    modules = (conv, recurrent, attention, between, training, frameworks, wiring, rarer, recorded)
    whole = (c for module in modules for c in module.cases())
    seen: dict[str, int] = defaultdict(int)
    for case, layer in [*((c, None) for c in whole), *single.cases()]:
        seen[case.mode] += 1
        if mode not in (None, case.mode) or (seen[case.mode] - 1) % every:
            continue
        yield judged(case) if layer is None else single.judged(case, layer)


def _table(verdicts: list[Any]) -> None:
    groups: dict[str, list[Any]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.case.mode].append(verdict)
    print(f"{'mode':<6} {'planted':>7} {'found':>6} {'named':>6} {'repaired':>9} {'median s':>9} {'max s':>6}")
    for mode in sorted(groups, key=lambda m: int(m[1:]) if m[1:] else 99):
        some = groups[mode]
        seconds = [v.seconds for v in some]
        counts = " ".join(f"{sum(getattr(v, key) for v in some):>{n}}" for key, n in (("found", 6), ("named", 6), ("repaired", 9)))  # fmt: skip # noqa: E501
        print(f"{mode:<6} {len(some):>7} {counts} {statistics.median(seconds):>9.2f} {max(seconds):>6.2f}")
    for mode, why in NOT.items():
        print(f"{mode:<6} not planted: {why}")
    for verdict in verdicts:
        if not _good(verdict):
            lacks = [key for key in ("found", "named", "repaired") if not getattr(verdict, key)]
            print(f"\nnot {', '.join(lacks)}: {verdict.case}\n  {verdict.said[:300]}")


def _right(many: int) -> list[tuple[str, str]]:
    from mistakes.right import alarms

    return [alarm for alarm in alarms(many) if alarm[0]]


def _goals(verdicts: list[Any], told: list[tuple[str, str]], many: int) -> bool:
    first = [v for v in verdicts if v.case.mode in FIRST]
    parts = [("the first ten", first, 1.0), ("all", verdicts, GOAL)]
    missed = bool(told)
    print()
    for name, some, goal in parts:
        if some:
            share = sum(map(_good, some)) / len(some)
            missed = missed or share < goal
            said = f"{sum(map(_good, some))} of {len(some)} found, named and repaired: {share:.1%}"
            print(f"{name}: {said} (goal {goal:.0%})")
    print(f"false alarms: {len(told)} of {many} right ports (goal 0)")
    for name, said in told:
        print(f"\n{name}\n{said}")
    return missed


def _good(verdict: Any) -> bool:
    return bool(verdict.found and verdict.named and verdict.repaired)


def _dict(verdict: Any) -> dict[str, Any]:
    keys = ("found", "named", "repaired", "seconds", "said")
    return {"mode": verdict.case.mode, "name": verdict.case.name, **{key: getattr(verdict, key) for key in keys}}


if __name__ == "__main__":
    sys.exit(main())
