"""What the weights of a model show when something is wrong: numbers by tensor, norms by layer, findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.show.views import LayerView, ModelView
from layoutx.verify.stats.depth import Gain, depth_findings
from layoutx.verify.stats.finding import LEVELS, WRONG, Finding
from layoutx.verify.stats.gates import gate_findings
from layoutx.verify.stats.look import Look, Matrix, floats, look, matrices
from layoutx.verify.stats.norms import norm_findings
from layoutx.verify.stats.numbers import Numbers, numbers
from layoutx.verify.stats.spectral import spectral_norm
from layoutx.verify.stats.start import start_findings
from layoutx.verify.stats.units import unit_findings
from layoutx.words import listed

LARGEST = 1 << 28  # numbers of a layer; of a larger one only the numbers of its tensors are told
RULES = (unit_findings, norm_findings, gate_findings, start_findings)


@frozen
class TensorStats:
    """One stored tensor: its name, its key in the file, its axes as text, its numbers; spectral: of its kernel."""

    name: str
    key: str
    text: str
    numbers: Numbers
    spectral: float | None = None


@frozen
class LayerStats:
    """One layer with weights.

    Attributes:
        form: "" where it is unknown: the numbers are told, and nothing else.
        spectral: the largest singular value of its kernels; gain: see `Gain`. None where neither can be told.
        note: why less than everything is told.
    """

    name: str
    class_name: str
    form: str
    tensors: tuple[TensorStats, ...]
    spectral: float | None = None
    gain: float | None = None
    note: str = ""


@frozen
class Stats:
    """The numbers of a model; `print(stats)` shows the findings first, then a table; `to_dict()` is JSON."""

    file: str
    framework: str
    layers: tuple[LayerStats, ...]
    findings: tuple[Finding, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what is suspect or noted does not count."""
        return all(finding.level != WRONG for finding in self.findings)

    def __getitem__(self, name: str) -> LayerStats:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def of(self, rule: str) -> tuple[Finding, ...]:
        """The findings of one rule: `stats.of("dead units")`."""
        return tuple(finding for finding in self.findings if finding.rule == rule)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.show.stats_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """Findings and a table for a terminal, at most `width` columns."""
        from layoutx.show.stats_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def stats(view: ModelView) -> Stats:
    """Read every tensor once, layer by layer, and look at it."""
    started = perf_counter()
    layers: list[LayerStats] = []
    findings: list[Finding] = []
    gains: list[Gain] = []
    for layer in view.layers:
        if layer.tensors:
            found, own = _layer(layer)
            layers.append(found)
            findings += own
            if layer.bound is not None and (found.gain is not None or "norm" in layer.bound.kind.name):
                gains.append(Gain(found.name, found.gain, found.spectral))
    findings += depth_findings(gains)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Stats(view.file, view.framework, tuple(layers), tuple(findings), perf_counter() - started)


def _layer(layer: LayerView) -> tuple[LayerStats, list[Finding]]:
    """One layer: its tensors are read once and dropped again."""
    size, note = layer.parameters, ""
    if layer.bound is None or size > LARGEST:
        tensors = [(t, numbers(layer.sources[t.name].read())) for t in layer.tensors]
        note = layer.problem or "; ".join(layer.notes) or "its form is not known"
        note = f"{note}: only the numbers of its tensors are told" if layer.bound is None else "too large to look at"
        own = tuple(TensorStats(t.name, t.key, t.text, n) for t, n in tensors)
        plain = LayerStats(layer.name, layer.class_name, layer.form, own, note=note)
        return plain, [f for t in own for f in _not_finite(layer.name, t)]
    arrays = layer.arrays()
    seen, note = None, ""
    try:
        seen = look(layer.name, layer.bound, arrays, layer.last)
    except LayoutxError as error:
        note = error.what
    norms = {one.role: (one, spectral_norm(one)) for one in (matrices(seen) if seen is not None else ())}
    own = tuple(
        TensorStats(t.name, t.key, t.text, numbers(arrays[t.name]), _spectral(layer, t.name, norms))
        for t in layer.tensors
    )
    findings = [f for t in own for f in _not_finite(layer.name, t)]
    if seen is not None and not findings:
        findings = [finding for rule in RULES for finding in rule(seen)]
    elif seen is not None:
        findings = list(_placed(seen)) or findings
    largest = max((norm for _, norm in norms.values() if norm is not None), default=None)
    found = LayerStats(layer.name, layer.class_name, layer.form, own, largest, _gain(seen, norms), note)
    return found, findings


def _spectral(layer: LayerView, tensor: str, norms: Mapping[str, tuple[Matrix, float | None]]) -> float | None:
    """The norm of the one kernel that a tensor holds."""
    assert layer.bound is not None
    held = [t for t in layer.bound.tensors if t.name == tensor]
    found = {block.role for t in held for block in t.blocks} & norms.keys()
    return norms[found.pop()][1] if len(found) == 1 else None


def _gain(seen: Look | None, norms: Mapping[str, tuple[Matrix, float | None]]) -> float | None:
    """The root of fan-in times the mean square of a layer's only kernel; of several nobody can tell how they act."""
    if len(norms) != 1 or seen is None or seen.bound.kind.name == "embedding":
        return None
    ((found, _),) = norms.values()
    norm = float(np.linalg.norm(floats(found.array).reshape(-1)))
    return norm / (found.array.shape[0] * found.array.shape[1]) ** 0.5 if np.isfinite(norm) else None


def _not_finite(layer: str, tensor: TensorStats) -> Iterator[Finding]:
    counts = [f"{n} {word}" for n, word in ((tensor.numbers.nan, "NaN"), (tensor.numbers.inf, "infinite")) if n]
    if counts:
        yield _wrong(layer, tensor.name, " and ".join(counts), tensor.numbers.size, tensor.key)


def _placed(seen: Look) -> Iterator[Finding]:
    """Numbers that are not finite, by the names of their axes."""
    for role in sorted(seen.stored & seen.values.keys()):
        array = seen.values[role]
        if array.dtype.kind in "iub":
            continue
        wrong = ~np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array)
        if wrong.any():
            names = [seen.element(role, tuple(map(int, at))) for at in np.argwhere(wrong)[:20]]
            count = int(wrong.sum())
            words = listed([*names, *[""] * (count - len(names))], 3)
            yield _wrong(seen.name, role, f"{count} not finite (NaN or infinite)", array.size, words)


def _wrong(layer: str, name: str, counts: str, size: int, where: str) -> Finding:
    return Finding(
        "not finite",
        WRONG,
        layer,
        f"{name}: {counts} of {size} numbers",
        where,
        "every output that they reach is NaN or infinite",
        "go back to a checkpoint before it; look for a division by zero, a log of zero, a learning rate too high",
    )
