"""The target's trained tensors that nothing is moved into: with --skip and --only they keep what the target held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layoutx.errors import ConversionError, raise_all
from layoutx.job.jobs import Job
from layoutx.model.constants import untrained
from layoutx.model.keyed import Keyed
from layoutx.model.match import MOST_READ, Pair, unused_names
from layoutx.model.record import ModelRecord


def names_left(pairs: Sequence[Pair], target: Keyed) -> tuple[str, ...]:
    """Those of a model that is known by its names; tied ones are written where one of them is."""
    rest = {name: target.tensors[name] for name in unused_names(pairs, target)}
    free = untrained(rest) if len(rest) <= MOST_READ else {}
    return tuple(tensor.name for name, tensor in rest.items() if name not in free)


def tensors_left(target: ModelRecord, job: Job) -> tuple[str, ...]:
    """Those of a model with a config: of its layers that have a form."""
    written = set(job.order)
    owned = (tensor.name for record in target.layers if record.form for tensor in record.tensors.values())
    return tuple(name for name in owned if name not in written)


def lent_by(target: ModelRecord, names: Iterable[str], job: Job, left: bool = False) -> list[str]:
    """Of a template's tensors that nothing is moved into, those that it keeps: of layers left out or without a form.

    Args:
        names: of these tensors. left: all of them are meant to stay.

    Raises:
        ConversionError: tensors of layers that nothing was found for; all of them together.
    """
    bare = {
        tensor.name: record.name
        for record in reversed(target.layers)
        if record.form and record.name not in job.skipped
        for tensor in record.tensors.values()
    }
    found = list(names)
    problems = [
        ConversionError(f"{name} of the template is not written", where=f"layer {bare[name]}")
        for name in found
        if name in bare and not left
    ]
    raise_all(problems, "the template has tensors that nothing was found for")
    return found
