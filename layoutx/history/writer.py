"""`lx.History`: a callback of Keras and a hook of torch that writes every layer's weights into one growing file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import UsageError, visible
from layoutx.history.callback import Callback
from layoutx.history.frames import HEAD, NOTE, STEP, append
from layoutx.history.place import Place
from layoutx.history.reader import Recorded, read
from layoutx.history.summary import summary, unit_norms
from layoutx.history.watched import SUMMARY, Array, Watched, dtype_of, watched
from layoutx.version import VERSION

WHAT = ("all", SUMMARY)
STORED = ("", "float16", "bfloat16")


class History(Callback):
    """Records how the weights of a model move; `lx.History.read(path)` gives them back as named arrays.

    With Keras 3 and tf_keras: `model.fit(..., callbacks=[lx.History("run.lxh")])`. With torch:
    `with lx.History("run.lxh").watch(module, optimizer): ...`, or `history.record(step, loss=...)` where it suits.
    The first moment is recorded before training. Each is handed to the system at once: what was recorded before a
    crash is there. A disk that is full ends the recording with a warning, never the training.

    Args:
        path: the file; one that is there is refused, or continued with `resume`.
        layers: names or patterns of the layers to record; all of them by default.
        every: how many epochs (or steps) lie between two moments.
        by: "epoch" or "step"; "" is epochs in Keras and the optimizer's steps in torch.
        what: "all", or "summary": norms, changes and a norm a unit, for models that are large.
        store: "float16" or "bfloat16" keeps floats in 16 bits; summaries are computed before.
        resume: continue the file of an earlier run of the same model.
        sync: wait until each moment is on the disk, so that it survives a loss of power too.

    Raises:
        UsageError: the file is there, or has no place; a word that is none of these.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        layers: Sequence[str] = (),
        every: int = 1,
        by: str = "",
        what: str = "all",
        store: str = "",
        resume: bool = False,
        sync: bool = False,
    ) -> None:
        if isinstance(layers, str):
            raise UsageError("layers is a list of texts, not one text", do=f"write layers=[{layers!r}]")
        for name, value, known in (("by", by, ("", "epoch", "step")), ("what", what, WHAT), ("store", store, STORED)):
            if value not in known:
                raise UsageError(f"{name}={value!r} is unknown", why=f"known: {', '.join(k for k in known if k)}")
        if every < 1:
            raise UsageError(f"every={every} records nothing", do="give the number of steps or epochs, 1 or more")
        self.place = Place(Path(path), resume, sync)
        self.layers, self.every, self.by, self.what, self.store = tuple(layers), every, by, what, store
        self.steps = self.epochs = 0  # of all runs together
        self.recorded = 0
        self._model: Any = None
        self._watched: Watched | None = None
        self._before: list[Array] | None = None
        self._logs: dict[str, float] = {}
        self._off: list[Callable[[], None]] = []
        self._last = -1
        self._failed = False
        self._late = ""
        if by == "step":
            self._look_at_steps()

    @staticmethod
    def read(path: str | PathLike[str]) -> Recorded:
        """What a file holds; one that a crash cut off gives everything before.

        Raises:
            UsageError: no such file. FileError: it is no history.
        """
        return read(path)

    def watch(self, model: Any, optimizer: Any = None) -> History:
        """Record a torch module now, and after every `every` steps of an optimizer.

        Args:
            model: a `torch.nn.Module` (or any live model that layoutx knows).
            optimizer: a `torch.optim.Optimizer`; None: only `record` records.
        """
        self._begin(model)
        self.record()
        if optimizer is not None:
            handle = optimizer.register_step_post_hook(lambda *_: self._stepped())
            self._off.append(handle.remove)
        return self

    def log(self, **values: float) -> None:
        """Values to record with the next moment: `history.log(loss=0.3)`."""
        self._logs |= {name: float(value) for name, value in values.items()}

    def record(self, step: int | None = None, *, epoch: int | None = None, **logs: float) -> None:
        """Record this moment; the same step is not recorded twice.

        Args:
            step: how many steps of the optimizer are done; None: as many as were counted.
            logs: metrics of this moment.

        Raises:
            UsageError: nothing is watched, or the step lies before the last one.
        """
        if self._watched is None:
            raise UsageError("nothing is watched yet", do="call history.watch(model) first")
        if step is not None and step < self._last:
            why = f"step {self._last} was recorded before"
            raise UsageError(f"step {step} cannot be recorded", why=why, do="count on, or use another file")
        self.log(**logs)
        self.steps = self.steps if step is None else int(step)
        self.epochs = self.epochs if epoch is None else int(epoch)
        if self.steps > self._last and not self._failed:
            self._write()

    def close(self) -> None:
        """Record the last moment, if it is not yet, and end: hooks removed, file closed. `watch` or `fit` go on."""
        while self._off:
            self._off.pop()()
        if self._watched is not None and self.place.is_open:
            self.record()
        self.place.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stepped(self) -> None:
        self.steps += 1
        if self.by != "epoch" and self.steps % self.every == 0:
            self.record()

    def _begin(self, model: Any) -> None:
        """Open the file for a model; its head says what every moment holds."""
        found = watched(model, self.layers, self.store)
        if not found.slots:
            raise UsageError("the model has no weights to record", do="build it, or call it once, before")
        head = {
            "format": 1, "layoutx": VERSION, "framework": found.framework, "what": self.what,
            "layers": [dict(layer) for layer in found.layers],
            "slots": [slot.to_dict(self.what) for slot in found.slots],
        }  # fmt: skip
        before = self.place.open(head)
        self._model, self._watched = model, found
        if before is not None:
            self.recorded, self._last = before.moments, before.last
            self.steps, self.epochs = max(self.steps, before.last), max(self.epochs, before.epoch)
            self._note(f"continued after step {before.last}")
        elif self.place.fresh:
            append(self.place.file, HEAD, {**head, "every": self.every, "by": self.by, "started": time.time()})
        if self._late:
            self._note(self._late)
            self._late = ""

    def _note(self, text: str) -> None:
        append(self.place.file, NOTE, {"text": text, "step": self.steps})

    def _write(self) -> None:
        assert self._watched is not None
        now = self._watched.now()
        before: Sequence[Array | None] = self._before or [None] * len(now)
        measures = [summary(x, y) for x, y in zip(now, before, strict=True)]
        text = {
            "step": self.steps, "epoch": self.epochs, "time": time.time(), "logs": self._logs, "measures": measures,
            "since": None if self._before is None else self.steps - self._last,
        }  # fmt: skip
        try:
            append(self.place.file, STEP, text, list(self._kept(now)))
            self.place.settle()
        except OSError as error:
            self._failed = True
            said = f"{self.place.path.name}: the history ends at step {self._last}: {error}"
            warnings.warn(visible(said), stacklevel=2)
            return
        self._before = [np.array(x) for x in now]  # a copy: training goes on in the memory that was read
        self._last, self._logs = self.steps, {}
        self.recorded += 1

    def _kept(self, now: Sequence[Array]) -> Sequence[Array]:
        assert self._watched is not None
        if self.what == SUMMARY:
            return [
                np.zeros(0, np.float32) if slot.unit is None else unit_norms(x, slot.unit)
                for slot, x in zip(self._watched.slots, now, strict=True)
            ]
        with np.errstate(over="ignore"):
            return [
                np.ascontiguousarray(x.astype(dtype_of(slot.stored), copy=False))
                for slot, x in zip(self._watched.slots, now, strict=True)
            ]

    # what Keras calls, see Callback

    def _training_begins(self, model: Any) -> None:
        if not _has_weights(model):
            self._late = "the model had no weights before its first step: the first moment comes after training began"
        else:
            self._begin(model)

    def _first(self, steps: int) -> None:
        self.steps = steps
        if self._watched is not None:
            self.record()

    def _training_goes_on(self, model: Any, steps: int, logs: Mapping[str, Any], *, epoch: bool) -> None:
        if self._watched is None:
            self._begin(model)
        self.steps = max(self.steps, steps)
        self.epochs += epoch
        due = self.epochs if epoch else self.steps
        if epoch == (self.by != "step") and due % self.every == 0:
            self.log(**{name: float(value) for name, value in logs.items() if _is_number(value)})
            self.record()


def _has_weights(model: Any) -> bool:
    """Whether a Keras model was built; one of tf_keras that was not refuses the question."""
    try:
        return bool(model.weights)
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
