"""What came of one input: refused, opened, or a finding, with the signature by which equal ones are known."""

from __future__ import annotations

import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError

SECONDS = 2.0  # of computing, after which an input hangs
SLOW = 1.0  # of computing
BYTES = 200 << 20
CLEAR = Path("/proc/self/clear_refs")


class HangError(BaseException):
    """Nothing may catch it by accident."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is "refused", "opened", or what a finding is; `where` tells equal findings."""

    kind: str
    where: str = ""
    text: str = ""

    @property
    def found(self) -> bool:
        return self.kind not in ("refused", "opened")


def _store(path: Path, deep: bool) -> None:
    from layoutx.files.open import open_store
    from layoutx.inspect import inspect

    for tensor in open_store(path).tensors.values():
        tensor.read()
    if deep:
        inspect(path)


def _history(path: Path, deep: bool) -> None:
    from layoutx.history.reader import read

    found = read(path)
    found.to_dict()
    found.text(100)
    for track in found.tracks:
        for measure in (track.norms, track.largest, track.moved, track.units):
            str(measure)
        if track._whole:
            track[:]


def _mapping(path: Path, deep: bool) -> None:
    from layoutx.model.mapfile import read_map

    read_map(path)


def _layout(path: Path, deep: bool) -> None:
    from layoutx.lang.parse import parse
    from layoutx.lang.place import place, shape_of
    from layoutx.lang.tree import Axis, walk

    layout = parse(path.read_text(encoding="utf-8", errors="replace"))
    sizes = {dim.name: 2 + at % 5 for at, dim in enumerate(walk(layout.dims)) if isinstance(dim, Axis)}
    shape_of(layout, sizes)
    place(layout, sizes)


def _spec(path: Path, deep: bool) -> None:
    from layoutx.spec.check import check_kind
    from layoutx.spec.load import load_spec
    from layoutx.spec.schema import Kind

    kind = load_spec(path)
    if isinstance(kind, Kind) and check_kind(kind):
        raise LayoutxError("problems")


DEEDS: dict[str, Callable[[Path, bool], None]] = {
    "history": _history,
    "mapping": _mapping,
    "layout": _layout,
    "spec": _spec,
}


def verdict(reader: str, path: Path, deep: bool = True, patience: float = SECONDS) -> Verdict:
    """Open what a path holds, read all of it; where `deep`, follow the model's config too.

    Args:
        patience: seconds of computing; 0: any, while frameworks are imported, which nothing may interrupt.
    """
    if CLEAR.exists():
        CLEAR.write_text("5")
    before, began = _peak(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, patience)
    try:
        DEEDS.get(reader, _store)(path, deep)
        found = Verdict("opened")
    except LayoutxError as error:
        found = Verdict("refused", text=str(error))
    except HangError as error:
        found = Verdict("hang", _place(error), "".join(traceback.format_exception(error)))
    except BaseException as error:  # what must not come out
        found = Verdict(type(error).__name__, _place(error), "".join(traceback.format_exception(error)))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, grown = time.process_time() - began, _peak() - before
    if found.found or not patience:
        return found
    if grown > BYTES:
        return Verdict("memory", reader, f"{grown >> 20} MB")
    if seconds > SLOW:
        return Verdict("slow", reader, f"{seconds:.1f} s")
    return found


def _place(error: BaseException) -> str:
    """The innermost line of layoutx that an error passed, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/layoutx/" in f.filename] or frames
    return f"{own[-1].filename.rpartition('/layoutx/')[2]}:{own[-1].name}"


def _peak() -> int:
    """The most memory so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def armed() -> None:
    """Let SIGPROF end an input that computes too long."""

    def ring(number: int, frame: Any) -> None:
        raise HangError

    signal.signal(signal.SIGPROF, ring)
