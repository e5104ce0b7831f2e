"""A process of its own that opens what a test gives it, and says what came of it: error, seconds, memory.

One line of JSON in, one out. A crash or a hang is then an answer too, and no end of the test run. Time in which a busy
machine ran other programs is nobody's.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError


def _opened(path: str) -> str:
    """Open a file and read every tensor of it."""
    from layoutx.files.open import open_store

    store = open_store(path)
    for tensor in store.tensors.values():
        tensor.read()
    return f"{len(store.tensors)} tensors"


def _imported(name: str) -> str:
    """Import a module beforehand, so that its time and memory are nobody's."""
    return str(__import__(name))


def _mapping(path: str) -> str:
    """Read a mapping file."""
    from layoutx.model.mapfile import read_map

    return f"{len(read_map(path).pairs)} pairs"


def _spec(path: str) -> str:
    """Load a spec file, or a folder of them as users give it."""
    from layoutx.spec.load import load_spec
    from layoutx.spec.registry import load_registry

    if Path(path).is_dir():
        return f"{len(load_registry([Path(path)]).forms)} forms"
    return load_spec(Path(path)).name


def _modelled(path: str) -> str:
    """Find the layers of a file, and read every tensor that they have or that its graph computes."""
    from layoutx.files.open import open_store
    from layoutx.model.load import model_of
    from layoutx.spec.registry import registry

    model = model_of(open_store(path), registry(), {})
    for tensor in model.store.tensors.values():
        tensor.read()
    return f"{len(model.layers)} layers"


def _inspected(path: str) -> str:
    """Say what layers a file has."""
    from layoutx.inspect import inspect

    return inspect(path).text()


def _converted(path: str) -> str:
    """Convert a file for torch, proved without any framework and not written."""
    from layoutx.convert import convert

    return convert(path, to="torch", live=False, dry_run=True).exactness


DEEDS = {
    "convert": _converted,
    "inspect": _inspected,
    "open": _opened,
    "model": _modelled,
    "import": _imported,
    "mapping": _mapping,
    "spec": _spec,
}


def _peak() -> int:
    """The most memory so far that is no file's, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return 0


def _kept_waiting() -> float:
    """Seconds for which this process or a child of it was ready to run, and the machine ran others (Linux)."""
    own = Path("/proc/self/task", str(os.getpid()), "children")
    children = own.read_text().split() if own.exists() else []
    total = 0
    for who in ("self", *children):
        with contextlib.suppress(OSError):  # a child that has just ended
            total += int(Path(f"/proc/{who}/schedstat").read_text().split()[1])
    return total / 1e9


def answer(deed: str, argument: str) -> dict[str, Any]:
    """What one deed ends in."""
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")
    before, waited, began = _peak(), _kept_waiting(), time.perf_counter()
    try:
        found = {"kind": "fine", "text": DEEDS[deed](argument)}
    except LayoutxError as error:
        found = {"kind": type(error).__name__, "text": str(error)}
    except BaseException as error:  # what must not come out
        found = {"kind": f"{type(error).__name__}, not layoutx's own", "text": str(error)[:500]}
    took = time.perf_counter() - began
    return {**found, "seconds": took - max(0.0, _kept_waiting() - waited), "bytes": _peak() - before}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        deed, argument = json.loads(line)
        print(json.dumps(answer(deed, argument)), file=out, flush=True)


if __name__ == "__main__":
    main()
