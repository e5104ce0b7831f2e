"""How fast the strided copy is beside NumPy and torch: ratios, measured in turn within one run.

python scripts/bench_copy.py             every case, medians of 7
python scripts/bench_copy.py --quick     smaller arrays, medians of 5: for a look
python scripts/bench_copy.py --threads 4 the second column of speeds with four threads

Ratios say how many times faster layoutx copies than each contender, on one thread (processor time of the thread):
  new      np.ascontiguousarray(view), which allocates its result
  into     np.copyto(to, view), into memory that has been used, as layoutx's own
  torch    view.permute(...).contiguous(), where torch is installed and the case is one permutation
  most     the ratio to `new` of a copy in order of as many bytes: what the memory allows
  new 2T   np.ascontiguousarray(view) against layoutx with threads, by the clock, for copies large enough for threads;
           on a busy machine it says nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from layoutx.plan import strided  # noqa: E402
from layoutx.plan.turns import Turn  # noqa: E402

Array = np.ndarray[Any, Any]
UNITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
TORCH = {1: "uint8", 2: "int16", 4: "float32", 8: "float64"}


@dataclass(frozen=True)
class Case:
    """A copy: the source's shape, the target's axes in it, and what is aimed at.

    Attributes:
        aim: times faster than `new`, on one thread; 0: only not slower.
        both: the same on two threads; 0: nothing aimed at.
        torch: times faster than torch; 0: nothing aimed at.
        turned: axes of the target that run backwards in the source.
        runs: parts of the target's first axis, in the order in which they are stored in the source's last one.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    aim: float = 5.0
    both: float = 0.0
    torch: float = 0.0
    width: int = 4
    turned: tuple[int, ...] = ()
    runs: tuple[int, ...] = ()

    def copies(self) -> tuple[Array, list[tuple[Array, Array]]]:
        """The target, and the views (to, of) that are copied for it."""
        size, rng = int(np.prod(self.shape)), np.random.default_rng(0)
        drawn = rng.standard_normal(1_048_573, np.float32)  # weights, not any bits; a prime: rows differ
        floats = np.resize(drawn, -(-size * self.width // 4))
        memory = floats.view(np.uint8)[: size * self.width]
        of = np.flip(memory.view(UNITS[self.width]).reshape(self.shape).transpose(self.order), self.turned)
        to = np.zeros(of.shape, of.dtype)
        if not self.runs:
            return to, [(to, of)]
        step = of.shape[0] // len(self.runs)
        parts = [(slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)) for i, j in enumerate(self.runs)]
        return to, [(to[here], of[there]) for here, there in parts]


MATRIX, HWIO, OIHW = (1, 0), (3, 2, 0, 1), (2, 3, 1, 0)
CASES = (
    Case("matrix 8192 x 8192", (8192, 8192), MATRIX, 8, 14),
    Case("matrix 4096 x 16384", (4096, 16384), MATRIX, 8, 14),
    Case("matrix 5000 x 7000", (5000, 7000), MATRIX, 8, 14),
    Case("matrix 8192 x 8192, 8 bit", (8192, 8192), MATRIX, width=1),
    Case("matrix 8192 x 8192, 16 bit", (8192, 8192), MATRIX, width=2),
    Case("matrix 4096 x 8192, 64 bit", (4096, 8192), MATRIX, width=8),
    Case("matrix 4999 x 3001, 16 bit", (4999, 3001), MATRIX, width=2),
    Case("matrix 4096 x 4096, both axes turned", (4096, 4096), MATRIX, turned=(0, 1)),
    Case("HWIO to OIHW 3 x 3 x 512 x 512", (3, 3, 512, 512), HWIO, torch=8),
    Case("HWIO to OIHW 3 x 3 x 1024 x 1024", (3, 3, 1024, 1024), HWIO, torch=8),
    Case("HWIO to OIHW 1 x 1 x 2048 x 2048", (1, 1, 2048, 2048), HWIO, torch=8),
    Case("OIHW to HWIO 512 x 512 x 3 x 3", (512, 512, 3, 3), OIHW, torch=8),
    Case("OIHW to HWIO 1024 x 1024 x 3 x 3", (1024, 1024, 3, 3), OIHW, torch=8),
    Case("OIHW to HWIO 2048 x 2048 x 1 x 1", (2048, 2048, 1, 1), OIHW, torch=8),
    Case("HWIO to OIHW, H and W turned", (3, 3, 1024, 1024), HWIO, turned=(2, 3)),
    Case("HWIO to OIHW, 16 bit", (3, 3, 1024, 1024), HWIO, width=2),
    Case("conv 3-D to torch", (3, 3, 3, 256, 512), (4, 3, 0, 1, 2)),
    Case("conv 3-D from torch", (512, 256, 3, 3, 3), (2, 3, 4, 1, 0)),
    Case("depthwise 7 x 7 x 4096 to torch", (7, 7, 4096, 1), (2, 3, 0, 1)),
    Case("depthwise 3 x 3 x 65536 to torch", (3, 3, 65536, 1), (2, 3, 0, 1)),
    Case("depthwise 3 x 3 x 65536 from torch", (65536, 1, 3, 3), (2, 3, 0, 1)),
    Case("LSTM 1024 x 4 x 1024, gates i f g o", (1024, 4096), MATRIX, runs=(0, 1, 2, 3)),
    Case("LSTM 1024 x 4 x 1024, gates i o f g", (1024, 4096), MATRIX, runs=(0, 3, 1, 2)),
    Case("fused QKV 2048 x 3 x 2048", (2048, 6144), MATRIX, runs=(0, 1, 2)),
    Case("three axes turned over, 300 x 200 x 400", (300, 200, 400), (2, 1, 0)),
    Case("four axes turned over, 80 x 60 x 70 x 90", (80, 60, 70, 90), (3, 2, 1, 0)),
    Case("rows backwards, 4096 x 4096", (4096, 4096), (0, 1), 0, turned=(1,)),
    Case("in order, 4096 x 4096", (4096, 4096), (0, 1), 0),
    *(Case(f"small matrix {n} x {n}", (n, n), MATRIX, 0) for n in (16, 64, 128, 200, 256, 300, 512)),
    *(Case(f"small HWIO to OIHW 3 x 3 x {n} x {n}", (3, 3, n, n), HWIO, 0) for n in (16, 64, 100, 128)),
    Case("small OIHW to HWIO 128 x 128 x 3 x 3", (128, 128, 3, 3), OIHW, 0),
)
NOISE = 0.85  # a ratio that counts as equal


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 where a result is wrong. A ratio that misses its aim is said, and is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="cases of at most 20 MB, medians of 5")
    parser.add_argument("--threads", type=int, default=2, help="threads of the second column of speeds (2)")
    args = parser.parse_args(argv)
    cases = [case for case in CASES if not args.quick or np.prod(case.shape) * case.width <= 20e6]
    head = f"{'times faster than':<42} {'MB':>6} {'new':>6} {'into':>6} {'torch':>6} {'most':>6}"
    print(f"{head} {f'new {args.threads}T':>7}  way")
    missed: list[str] = []
    for case in cases:
        line, found = row(case, 5 if args.quick else 7, args.threads)
        print(line, flush=True)
        missed += found
    print("\n".join(["", "misses its aim:", *(f"  {text}" for text in missed)]) if missed else "\nall aims are met")
    return 0


def row(case: Case, repeat: int, threads: int) -> tuple[str, list[str]]:
    """One line of the table, and the aims that are missed."""
    to, parts = case.copies()
    expected = np.concatenate([of for _, of in parts]).tobytes()
    for jobs in (1, threads):
        to[...] = 0
        copied(parts, jobs)
        if to.tobytes() != expected:
            raise SystemExit(f"{case.name}: wrong with {jobs} threads")
    flat = np.zeros(to.size, to.dtype)
    contenders: dict[str, Callable[[], object]] = {
        "new": lambda: naive(parts),
        "into": lambda: [np.copyto(t, o) for t, o in parts],
        "one": lambda: copied(parts, 1),
        "memory": lambda: np.copyto(to.reshape(-1), flat),
        **torches(case),
    }
    taken = medians(contenders, repeat, time.thread_time)
    ratio = {name: seconds / taken["one"] for name, seconds in taken.items()}
    clock = medians({"new": contenders["new"], "many": lambda: copied(parts, threads)}, repeat, time.perf_counter)
    ratio["many"] = clock["new"] / clock["many"]
    most = taken["new"] / taken["memory"]
    torch = f"{ratio['torch']:>6.1f}" if "torch" in ratio else f"{'':>6}"
    many = f"{ratio['many']:>7.1f}" if parts[0][0].nbytes >= strided.SHARED else f"{'':>7}"
    way = _way(*parts[0])
    line = f"{case.name:<42} {to.nbytes / 1e6:>6.1f} {ratio['new']:>6.1f} {ratio['into']:>6.1f} {torch}"
    line += f" {most:>6.1f} {many}  {way}"
    return line, list(misses(case, ratio, most, threads))


def misses(case: Case, ratio: dict[str, float], most: float, threads: int) -> Iterator[str]:
    """What is below its aim, in words."""
    aims = [("new", case.aim, "np.ascontiguousarray"), ("torch", case.torch, "torch")]
    if threads == 2:
        aims.append(("many", case.both, "np.ascontiguousarray, on two threads"))
    for name, aim, what in aims:
        if name in ratio and ratio[name] < aim:
            bound = f"; a copy in order is {most:.1f} x" if name != "torch" else ""
            yield f"{case.name}: {ratio[name]:.1f} x {what}, aim {aim:g}{bound}"
    if ratio["into"] < NOISE:
        yield f"{case.name}: {ratio['into']:.2f} x np.copyto: slower"


def _way(to: Array, of: Array) -> str:
    """By whom, and how, the first slab of it on one thread."""
    if to.nbytes < strided.SMALL:
        return "plain"
    to, of = next(strided.slabs(to, of, 1))
    found = strided.chosen(to, of)
    name = "BLAS" if isinstance(found, Turn) else found.name
    return f"{name}, tall" if name == "scratch" and found == strided.way(to, of, tall=True) else name


def naive(parts: list[tuple[Array, Array]]) -> Array:
    """What people write: np.ascontiguousarray, or an empty array and its parts one by one."""
    if len(parts) == 1:
        return np.array(parts[0][1], order="C")  # np.ascontiguousarray, which copies even what is in order
    found = np.empty((sum(len(to) for to, _ in parts), *parts[0][0].shape[1:]), parts[0][0].dtype)
    at = 0
    for to, of in parts:
        found[at : at + len(to)] = of
        at += len(to)
    return found


def copied(parts: list[tuple[Array, Array]], jobs: int) -> None:
    """What is measured."""
    for to, of in parts:
        strided.copy(to, of, jobs)


def torches(case: Case) -> dict[str, Callable[[], object]]:
    """torch's way, where torch is there and can do it."""
    try:
        import torch
    except ImportError:
        return {}
    if case.turned or case.runs:
        return {}
    torch.set_num_threads(1)
    tensor = torch.zeros(case.shape, dtype=getattr(torch, TORCH[case.width]))
    return {"torch": lambda: tensor.permute(case.order).contiguous()}


def medians(contenders: dict[str, Callable[[], object]], repeat: int, now: Callable[[], float]) -> dict[str, float]:
    """Seconds of each contender by a clock: they take turns, and short ones run often in a turn."""
    often = {}
    for name, contender in contenders.items():
        contender()
        started = now()
        contender()
        often[name] = max(1, int(2e-3 / (now() - started + 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, contender in contenders.items():
            started = now()
            for _ in range(often[name]):
                contender()
            taken[name].append((now() - started) / often[name])
    return {name: statistics.median(times) for name, times in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
