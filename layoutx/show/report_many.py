"""The lines of a report, each made when somebody looks at it: of a hundred thousand layers nobody looks at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from layoutx.job.jobs import Job, LayerJob
from layoutx.job.run import Moved
from layoutx.plan.run import Result
from layoutx.show.report_lines import UNPROVED, LayerLine, layer_line
from layoutx.verify.outcome import Proof


class Lines(Sequence[LayerLine]):
    """A line for each layer of a job, in model order; read like a tuple."""

    def __init__(self, job: Job, moved: Moved, settled: Callable[[LayerJob], bool]) -> None:
        """`settled`: whether the source tells a layer's settings, see `layer_line`."""
        self._job, self._moved, self._settled = job, moved, settled
        self._made: dict[int, LayerLine] = {}

    def __len__(self) -> int:
        return len(self._job.layers)

    @overload
    def __getitem__(self, at: int) -> LayerLine: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[LayerLine, ...]: ...
    def __getitem__(self, at: int | slice) -> LayerLine | tuple[LayerLine, ...]:
        if isinstance(at, slice):
            return tuple(self[number] for number in range(*at.indices(len(self))))
        number = range(len(self))[at]
        if number not in self._made:
            layer = self._job.layers[number]
            self._made[number] = layer_line(layer, self._moved, self._settled(layer))
        return self._made[number]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (Lines, tuple)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def proofs(self) -> Iterator[tuple[str, Proof]]:
        """Each layer's name and what was shown of it; no line is made for that."""
        for layer in self._job.layers:
            yield layer.record.name, self._moved.proofs.get(layer.record.name, UNPROVED)

    def briefs(self) -> Iterator[dict[str, Any]]:
        """Each layer's name, forms and exactness, for the certificate of a large model."""
        for layer in self._job.layers:
            result = self._moved.results.get(layer.record.name) or Result({})
            yield {
                "name": layer.record.name,
                "source": layer.plan.source.form.name,
                "target": layer.plan.target.form.name,
                "exactness": str(result.exactness(layer.plan)),
            }
