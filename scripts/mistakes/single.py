"""Mistakes in one layer where no small whole model is natural: rotary attention, grouped queries, narrow numbers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "verify" / "diagnose"))

import planted_layers as layers
from planted import broken, rewritten, unknown
from planted_mistakes import MISTAKES, Mistake

from layoutx.diagnose import diagnose
from mistakes.case import REPAIRED, Case, Verdict

MODES = ("F3", "F5", "F19", "F21", "F23", "F24", "F26", "F30", "F32", "F37")


def cases() -> Iterator[tuple[Case, Mistake]]:
    """Those of the tests of the search that no whole model has here."""
    for mistake in MISTAKES:
        if any(mode in MODES for mode in mistake.modes):
            name = f"{mistake.name}, one layer: {'-'.join(map(str, mistake.layer))}"
            yield Case(mistake.modes[0], name, "layer", lambda: (None, None, None), mistake.modes[1:]), mistake
    yield from _lost()


def _lost() -> Iterator[tuple[Case, Mistake]]:
    """Two tensors lost at once, and nothing known of the source's weights."""
    ones: Any = {"weight": np.ones_like, "bias": np.zeros_like}
    statistics: Any = {"running_mean": np.zeros_like, "running_var": np.ones_like}
    norms = (("batch_norm", "scale and shift", ones), ("batch_norm", "statistics", statistics))
    for kind, what, changes in (*norms, ("layer_norm", "scale and shift", ones)):
        mistake = Mistake((kind, 11), what, ("F13", "F14"), rewritten(**changes))
        yield Case("F13", f"{what} not loaded, without weights: {kind}", "layer", lambda: (None, None, None), ("F14",)), mistake  # fmt: skip # noqa: E501


def judged(case: Case, mistake: Mistake) -> Verdict:
    """As for whole models."""
    suspect: Any = broken(layers.made(*mistake.layer), mistake.make)
    suspect = unknown(suspect) if "without weights" in case.name else suspect
    started = time.perf_counter()
    found = diagnose(suspect)
    seconds = time.perf_counter() - started
    first = found.explanations[0] if found.explanations else None
    scale = max(1.0, *(float(np.abs(a).max()) for a in suspect.expected.values()))
    named = first is not None and {e.mode for e in first.edits} <= {case.mode, *case.also}
    said = "; ".join(e.what for e in first.edits) if first else found.note
    return Verdict(case, first is not None, named, first is not None and first.after <= REPAIRED * scale, seconds, said)
