"""A history read back: steps, metrics, and each tensor as a named array over the moments, read when it is asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.history.frames import NOTE, STEP, Frame, whole
from layoutx.history.sound import check
from layoutx.history.summary import MEASURES, unit_norms
from layoutx.history.watched import SUMMARY, Array, dtype_of
from layoutx.words import near


@dataclass(frozen=True)
class Track:
    """One tensor over the moments: `track[3]` and `track[-1]` are single ones, `np.asarray(track)` is all of them.

    Attributes:
        axes: ("step", "input", "output"); state: moved by data, without a gradient; about: what it holds.
    """

    layer: str
    name: str
    key: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: np.dtype[Any]
    state: bool
    about: str
    _path: Path = field(repr=False)
    _frames: tuple[Frame, ...] = field(repr=False)
    _index: int = field(repr=False)
    _offset: int = field(repr=False)
    _kept: tuple[int, ...] = field(repr=False)
    _unit: int | None = field(repr=False)
    _whole: bool = field(repr=False)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, at: int | slice) -> Array:
        """One moment (the tensor's own shape), or several (step first).

        Raises:
            UsageError: the file holds summaries only. FileError: the numbers are not those that were written.
        """
        self._check()
        return self._read(at)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    @property
    def norms(self) -> Array:
        """(step) Euclidean norm of the finite numbers; NaN where there are none."""
        return self._measure("norm")

    @property
    def largest(self) -> Array:
        """(step) largest absolute value of the finite numbers; NaN where there are none."""
        return self._measure("largest")

    @property
    def broken(self) -> Array:
        """(step) how many numbers are NaN or infinite."""
        return self._measure("broken")

    @property
    def moved(self) -> Array:
        """(step) norm of the change since the moment before; NaN for the first."""
        return self._measure("moved")

    @property
    def update(self) -> Array:
        """(step) norm of the change by the norm before, a step of the optimizer; NaN where that is not known.

        The change between two moments, by the number of steps between them: a single step moved at least as far.
        """
        since = np.array([f.text.get("since") or np.nan for f in self._frames], np.float64)
        past = np.concatenate([[np.nan], self.norms[:-1]])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(past > 0, self.moved / past, np.nan) / since)

    @property
    def unit(self) -> str:
        """The axis that counts units; "" where it is not known."""
        return "" if self._unit is None else self.axes[1 + self._unit]

    def units(self) -> Array:
        """(step, unit) the norm of each unit's numbers.

        Raises:
            UsageError: which axis counts units is not known.
        """
        if self._unit is None:
            raise UsageError(f"which axis of {self.layer} {self.name} counts units is not known")
        if not self._whole:
            return self._read(slice(None))
        return np.stack([unit_norms(self._read(i), self._unit) for i in range(len(self))])

    def _measure(self, name: str) -> Array:
        at = MEASURES.index(name)
        values = [f.text["measures"][self._index][at] for f in self._frames]
        found = np.array([np.nan if v is None else v for v in values], np.float64)
        size = int(np.prod(self.shape[1:], dtype=np.int64))
        return found if name == "broken" or not size else np.where(self.broken < size, found, np.nan)

    def _check(self) -> None:
        if not self._whole:
            do = "use .norms, .update and .units(), or record with what='all'"
            raise UsageError(f"{self._path.name} holds summaries, and not {self.layer} {self.name} itself", do=do)

    def _read(self, at: int | slice) -> Array:
        if isinstance(at, slice):
            chosen = [self._read(i) for i in range(len(self))[at]]
            return np.stack(chosen) if chosen else np.empty((0, *self._kept), self.dtype)
        frame = self._frames[at]
        count = int(np.prod(self._kept, dtype=np.int64))
        with self._path.open("rb") as file:
            file.seek(frame.start + self._offset)
            data = file.read(count * self.dtype.itemsize)
        if zlib.crc32(data) != frame.text["crc"][self._index]:
            raise FileError(
                f"{self._path.name} is damaged",
                where=f"{self.layer} {self.name} at step {frame.text['step']}",
                why="its checksum does not agree",
            )
        return np.frombuffer(data, self.dtype).reshape(self._kept)


@dataclass(frozen=True)
class LayerTrack:
    """One layer: `h["dense_1"]["kernel"]`; a layer without weights has no tensors."""

    name: str
    class_name: str
    form: str
    tensors: Mapping[str, Track]

    def __getitem__(self, name: str) -> Track:
        if name not in self.tensors:
            known = ", ".join(self.tensors) or "none"
            raise UsageError(f"{self.name} has no tensor {name!r}", why=f"recorded were: {known}")
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def keys(self) -> list[str]:
        """The names of its tensors."""
        return list(self.tensors)


@dataclass(frozen=True)
class Recorded:
    """A whole history; `h["dense_1"]["kernel"]` is one tensor, `print(h)` a table, `h.plot("run.png")` a picture.

    Attributes:
        framework: of the model. what: "all" or "summary".
        layers: name -> layer, in the model's order. notes: what the writer had to say.
        torn: bytes behind the last whole moment, which a crash left.
    """

    path: Path
    framework: str
    what: str
    layers: Mapping[str, LayerTrack]
    notes: tuple[str, ...]
    torn: int
    frames: tuple[Frame, ...]

    def __getitem__(self, name: str) -> LayerTrack:
        if name not in self.layers:
            raise UsageError(f"no layer is called {name!r}", why=near(name, self.layers, "recorded were"))
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def steps(self) -> Array:
        """(moment) how many steps of the optimizer were done."""
        return np.array([f.text["step"] for f in self.frames], np.int64)

    @cached_property
    def epochs(self) -> Array:
        """(moment) how many epochs were done."""
        return np.array([f.text["epoch"] for f in self.frames], np.int64)

    @cached_property
    def seconds(self) -> Array:
        """(moment) since the first one."""
        times = np.array([f.text["time"] for f in self.frames], np.float64)
        return np.asarray(times - times[0]) if len(times) else times

    @cached_property
    def logs(self) -> dict[str, Array]:
        """Metric -> (moment) its values; NaN where it was not said."""
        names = dict.fromkeys(name for f in self.frames for name in f.text["logs"])
        return {n: np.array([f.text["logs"].get(n, np.nan) for f in self.frames], np.float64) for n in names}

    @property
    def tracks(self) -> list[Track]:
        """All tensors, in the model's order."""
        return [track for layer in self.layers.values() for track in layer.tensors.values()]

    def plot(self, path: str | PathLike[str]) -> Path:
        """Draw metrics, norms, update ratios and the evolution of units into one PNG (or .svg, .pdf).

        Raises:
            UsageError: matplotlib is missing.
        """
        from layoutx.history.plots import plot

        return plot(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the numbers of the tensors, for JSON."""
        from layoutx.show.history_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """As a terminal shows it."""
        from layoutx.show.history_text import history_text

        return history_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def read(path: str | PathLike[str], only: Sequence[str] = ()) -> Recorded:
    """What a file holds, or some layers of it.

    Raises:
        UsageError: no such file, or no such layer. FileError: it is no history.
    """
    place = Path(path)
    frames, torn = whole(place)
    head = frames[0].text
    if head.get("format") != 1:
        raise FileError(f"{place.name} is of a newer layoutx", why=f"its format is {str(head.get('format'))[:40]}")
    check(frames, place)
    moments = tuple(f for f in frames if f.kind == STEP)
    names = [layer["name"] for layer in head["layers"]]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no layer is called {pattern!r}", why=near(pattern, names, "recorded were"))
    kept = [n for n in names if not only or any(fnmatchcase(n, p) for p in only)]
    found: dict[str, dict[str, Track]] = {name: {} for name in kept}
    offset = 0
    for index, slot in enumerate(head["slots"]):
        if slot["layer"] in found:
            found[slot["layer"]][slot["name"]] = _track(slot, place, moments, index, offset, head["what"])
        offset += slot["nbytes"]
    layers = {
        e["name"]: LayerTrack(e["name"], e["class"], e["form"], found[e["name"]])
        for e in head["layers"]
        if e["name"] in found
    }
    notes = tuple(f.text["text"] for f in frames if f.kind == NOTE)
    return Recorded(place, head["framework"], head["what"], layers, notes, torn, moments)


def _track(slot: Mapping[str, Any], path: Path, moments: tuple[Frame, ...], index: int, at: int, what: str) -> Track:
    return Track(
        slot["layer"], slot["name"], slot["key"], (len(moments), *slot["shape"]), ("step", *slot["axes"]),
        dtype_of(slot["stored"]), slot["state"], slot["about"], path, moments, index, at, tuple(slot["kept"]),
        slot["unit"], what != SUMMARY,
    )  # fmt: skip
