"""Conversions that are killed at random moments, by the thousand: the old output is there, or the new one whole.

    python scripts/kills.py --kills 1000 --seed 7

Each conversion runs in a process that a warm one forks, is ended by SIGKILL at a moment of its duration (each second
one while it writes), and what is in the folder is compared byte for byte with the old and the new output. Then a run
that nobody disturbs must leave the new output and nothing else. Exit status: 0, or 1 when any of this does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import layoutx as lx  # noqa: E402
from layoutx.files.open import open_store  # noqa: E402

Files = dict[str, bytes]
DIGITS = ROOT / "examples" / "digits.keras"


@dataclass(frozen=True)
class Target:
    """An output. `make` writes it into a folder, of one of two models. `sharded`: it may have no index for a while."""

    name: str
    make: Callable[[Path, int], None]
    sharded: bool = False


def targets(home: Path) -> list[Target]:
    """What can be made here, of two models that differ in their numbers."""
    import numpy as np

    named = []
    for number, seed in enumerate((1, 2)):
        rng = np.random.default_rng(seed)
        path = home / f"named{number}.safetensors"
        lx.convert(DIGITS, path, to="torch", live=False)
        arrays = {
            n: t.read() + (rng.random() if t.dtype.kind == "f" else 0) for n, t in open_store(path).tensors.items()
        }
        from safetensors.numpy import save_file

        save_file(
            {n: np.asarray(a, open_store(path).tensors[n].dtype) for n, a in arrays.items()},
            home / f"s{number}.safetensors",
        )
        path.unlink()
        named.append(home / f"s{number}.safetensors")
    keras = []
    for number in range(2):
        path = home / f"k{number}.keras"
        lx.convert(named[number], path, to="keras", like=DIGITS, from_="torch", live=False)
        keras.append(path)

    def to_torch(name: str, **how: object) -> Target:
        return Target(
            name + (" in shards" if how else ""),
            lambda folder, n: _quiet(keras[n], folder / name, to="torch", **how),
            bool(how),
        )

    def to_keras(name: str) -> Target:
        return Target(name, lambda folder, n: _quiet(named[n], folder / name, to="keras", like=DIGITS, from_="torch"))

    found = [to_torch("m.safetensors"), to_torch("m.npz"), to_torch("m.safetensors", max_shard_size=20_000)]
    found += [to_keras(name) for name in ("m.keras",)]
    if find_spec("torch"):
        found += [to_torch("m.pt"), to_torch("m.dcp")]
    return found


def _quiet(source: Path, output: Path, **how: object) -> None:
    lx.convert(source, output, live=False, verify="bytes", jobs=1, **how)  # type: ignore[arg-type]


def files(folder: Path) -> Files:
    """Path inside the folder -> bytes; of a .pt the tensors, for torch writes a random number into it."""
    return {str(p.relative_to(folder)): _content(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _content(path: Path) -> bytes:
    if path.suffix != ".pt":
        return path.read_bytes()
    store = open_store(path)
    return repr([(n, t.dtype, t.shape, t.read().tobytes()) for n, t in store.tensors.items()]).encode()


def state(found: Files, old: Files, new: Files, sharded: bool) -> str:
    """ "old", "new", "no index", or what is wrong."""
    seen = {name: data for name, data in found.items() if not name.startswith(".")}
    index = next((name for name in (*old, *new) if name.endswith(".index.json")), "")
    if sharded and index not in seen:
        return "no index"
    names = set(seen)
    if sharded:
        names = {index, *json.loads(seen[index])["weight_map"].values()}
    for word, whole in (("old", old), ("new", new)):
        if {name: seen.get(name) for name in names} == {name: whole.get(name) for name in names} and names >= set(
            whole
        ):
            return word
    return "neither old nor new"


def child_of(work: Callable[[], None]) -> int:
    """Do the work in a forked process."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def kill(child: int, folder: Path, before: set[str], delay: float, writing: bool, lasting: float) -> bool:
    """End it after a delay, from its start or from the moment on at which it writes; whether it was still alive."""
    began = time.perf_counter()
    while writing and set(os.listdir(folder)) == before and time.perf_counter() - began < 4 * lasting:
        time.sleep(1e-4)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def durations(target: Target, folder: Path, old: Path) -> tuple[float, float]:
    """Seconds of a conversion, and of its part from the first file on that it makes beside the output."""
    spent = []
    for _ in range(3):
        lay(folder, old)
        before, began = set(os.listdir(folder)), time.perf_counter()
        child = child_of(lambda: target.make(folder, 1))
        first = 0.0
        while not os.waitpid(child, os.WNOHANG)[0]:
            if not first and set(os.listdir(folder)) != before:
                first = time.perf_counter()
            time.sleep(1e-4)
        ended = time.perf_counter()
        spent.append((ended - began, ended - (first or ended)))
    return sorted(one for one, _ in spent)[1], sorted(one for _, one in spent)[1]


def lay(folder: Path, old: Path) -> None:
    """Make a folder a copy of another one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(old, folder)


def phase(found: Files, word: str) -> str:
    """How far the killed conversion had come."""
    if word == "new":
        return "after the rename"
    if word == "no index":
        return "putting shards in place"
    return "while it wrote" if any(name.startswith(".") for name in found) else "before it wrote"


def attack(target: Target, home: Path, kills: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill one target's conversions; what was seen, and what was wrong."""
    folders = [home / f"{target.name}-{number}" for number in range(2)]
    for number, one in enumerate(folders):
        one.mkdir()
        target.make(one, number)
    old, new = map(files, folders)
    folder = home / f"{target.name}-out"
    lasting, writing = durations(target, folder, folders[0])
    seen, wrong = Counter[str](), []
    done = 0
    while done < kills:
        late = done % 2 == 1
        lay(folder, folders[0])
        before = set(os.listdir(folder))
        child = child_of(lambda: target.make(folder, 1))
        delay = chance.random() * (writing if late else lasting)
        alive = kill(child, folder, before, delay, late, lasting)
        found = files(folder)
        word = state(found, old, new, target.sharded)
        if word.startswith("neither"):
            wrong.append(f"{target.name}: {word}: {sorted(found)}")
        seen[word] += 1
        seen[phase(found, word) if alive else "it had ended"] += 1
        target.make(folder, 1)
        if files(folder) != new:
            wrong.append(f"{target.name}: after the next run there is {sorted(files(folder))}")
        done += 1
    return seen, wrong


def main() -> int:
    """Kill, compare, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; without it, other ones each time")
    parser.add_argument("--only", default="", metavar="NAME", help="one output: m.npz")
    args = parser.parse_args()
    seed = random.randrange(1 << 30) if args.seed is None else args.seed
    chance, began = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        home = Path(folder)
        every = [one for one in targets(home) if not args.only or one.name.startswith(args.only)]
        total, wrong = Counter[str](), list[str]()
        for number, target in enumerate(every):
            own = args.kills * (number + 1) // len(every) - args.kills * number // len(every)
            seen, bad = attack(target, home, own, chance)
            total += seen
            wrong += bad
            print(
                f"{target.name:24} {own:5} kills  " + "  ".join(f"{k} {v}" for k, v in sorted(seen.items())), flush=True
            )
    print(f"\n{args.kills} kills, seed {seed}, {time.monotonic() - began:.0f} s")
    for word in ("old", "new", "no index"):
        print(f"  {total[word]:5} {WORDS[word]}")
    for word in ("before it wrote", "while it wrote", "putting shards in place", "after the rename", "it had ended"):
        print(f"  {total[word]:5} killed {word}" if word != "it had ended" else f"  {total[word]:5} had ended already")
    print(
        "\n".join([f"{len(wrong)} WRONG", *wrong[:20]])
        if wrong
        else "  nothing wrong, and nothing left after the next run"
    )
    records = os.environ.get("LAYOUTX_RECORDS")
    if records:
        line = {
            "faults": "SIGKILL at a random moment of a conversion",
            "tried": args.kills,
            "survived": args.kills - len(wrong),
        }
        with (Path(records) / f"faults-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if wrong else 0


WORDS = {
    "old": "the old output was intact",
    "new": "the new output was whole",
    "no index": "shards without an index, which the next run put in place",
}

if __name__ == "__main__":
    sys.exit(main())
