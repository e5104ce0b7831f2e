"""Runs that were recorded: what shows without any weights, and what a file of the source's weights adds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from layoutx.verify.running.opened import opened
from mistakes import between, recurrent, training, wiring
from mistakes.case import FLOAT32, Case, Made, changed
from mistakes.conv import SIZES, planted, rows

FOLDER = tempfile.TemporaryDirectory()  # of the weights; removed at the end


def recorded(made: Made, live: bool = False) -> Made:
    """The source recorded, and the target too, or live."""
    source, target, inputs = made
    there = np.moveaxis(inputs, -1, 1) if inputs.ndim > 3 else inputs
    return opened(source).record(inputs), target if live else opened(target).record(there), None


def weighed(made: Made) -> Made:
    """The source recorded, with a file of its weights; a live target."""
    path = Path(FOLDER.name) / f"{len(list(Path(FOLDER.name).iterdir()))}.keras"
    made[0].save(path)
    return (*recorded(made, live=True), path)


def units(w: Any) -> Any:
    """Units in reversed order."""
    return w[::-1]


def cases() -> Iterator[Case]:
    """All of them, with two recordings and with a live target."""
    for live, name in ((False, "two recordings"), (True, "a live target")):
        for mode, what, make, more in _planted():
            yield Case(mode, f"{what}, {name}", "", lambda m=make, live=live: recorded(m(), live), **more)
    for mode, what, where, make in _weighed():
        yield Case(mode, f"{what}, a live target and the source's weights", where, lambda m=make: weighed(m()))


def _planted() -> Iterator[tuple[str, str, Callable[[], Made], dict[str, Any]]]:
    for name, z in SIZES.items():
        yield "F8", f"batch norm 1e-5, {name}", lambda z=z: planted(z, eps=1e-5), {}
        yield "F38", f"units reversed, {name}", lambda z=z: planted(z, changed("d2.weight|d2.bias", units)), {"also": ("F34",)}  # fmt: skip # noqa: E501
        yield "F14", f"a bias not loaded, {name}", lambda z=z: planted(z, changed("d2.bias", np.zeros_like)), {}
    yield "F27", "average for max pooling", lambda: planted(SIZES["primes"], pool=lambda x: F.avg_pool2d(x, 2)), {"also": ("F7",)}  # fmt: skip # noqa: E501
    yield "F27", "two poolings on one path", lambda: wiring.path(wiring.mean, wiring.mean), {}
    yield "F18", "run from the end", lambda: recurrent.single("lstm", recurrent.SIZES["primes"], turned=True), {}
    yield "-", "a residual missing", lambda: wiring.steps("missing"), {}
    yield "-", "a residual from the wrong place", lambda: wiring.steps("from y"), {}
    yield "F10", "dropout as a function, always on", lambda: training.dropped(True), {"limit": float("inf")}
    yield "F28", "aligned corners", _corners, {"limit": FLOAT32}
    yield "F19", "the activation forgotten", lambda: planted(SIZES["primes"], act=lambda x: x), {}
    yield "F34", "B G R inputs", lambda: planted(SIZES["primes"], before=lambda x: x.flip(1)), {}


def _weighed() -> Iterator[tuple[str, str, str, Callable[[], Made]]]:
    for name, z in SIZES.items():
        yield "F1", f"rows of the kernel, {name}", "d1", lambda z=z: planted(z, rows(z))
        yield "F8", f"batch norm 1e-5, {name}", "bn", lambda z=z: planted(z, eps=1e-5)
    gates = recurrent.order([0, 2, 1, 3])
    yield "F3", "gates i c f o", "cell", lambda: recurrent.single("lstm", recurrent.SIZES["primes"], gates)
    yield "F27", "two poolings on one path", "", lambda: wiring.path(wiring.mean, wiring.mean)


def _corners() -> Made:
    return next(case for case in between.pooling() if case.name == "aligned corners").make()
