"""What making an output showed, told to its layers: sums that were rounded, dtypes that lost range, shared tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from layoutx.errors import ConversionError, LayoutxError, VerificationError, raise_all
from layoutx.files.dtypes import Array, bits
from layoutx.files.hashes import leaves_of, together
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.job.moves import Moves
from layoutx.job.run import Moved, unproved, written_twice
from layoutx.move.cast import Lost, converted
from layoutx.move.moves import Move
from layoutx.plan.run import consent
from layoutx.plan.steps import Exactness
from layoutx.words import first

RANGE = "range"  # the consent to finite numbers that become infinite
BEFORE = "its outputs were compared before its numbers were rounded"


class Told(NamedTuple):
    """What was seen of one tensor; small, and fit to be sent by another process.

    Attributes:
        hash: of what it holds. leaves: in its place, the digests of the range that one of several workers made.
        rounded: the largest rounding error of its sums; None where none was rounded.
        lost: what a conversion of its dtype lost.
        sources: the source tensors that were read first for this one, with their hashes.
    """

    hash: str
    rounded: float | None = None
    lost: Lost | None = None
    sources: tuple[tuple[str, str], ...] = ()
    leaves: bytes = b""


def plain_hash(move: Move, array: Array, kind: str) -> str:
    """The hash that a move must have, from the array that the plain executor made."""
    flat = np.asarray(array, order="C").reshape(-1)
    if move.dtype != move.working:
        flat = converted(flat, move.dtype)[0]
    return together(move.dtype, move.shape, leaves_of(bits(flat), kind), kind)


def check_plain(told: Mapping[str, Told], expected: Mapping[str, str]) -> None:
    """Refuse an output whose bytes are not those that were proved.

    Raises:
        VerificationError: tensors that the fast way made otherwise than the plain one.
    """
    wrong = [name for name, one in expected.items() if told[name].hash != one]
    raise_all(
        [
            VerificationError(
                f"{name} was not written as it was proved",
                why="the plain executor gives other bytes",
                do="this is a fault of layoutx: please report it",
            )
            for name in wrong
        ],
        "the output is not what was proved",
    )


def check_shared(told: Mapping[str, Told], again: Iterable[tuple[Move, Told]]) -> None:
    """Refuse a tensor of the target that two layers share and the source keeps twice, with different numbers.

    Raises:
        ConversionError: each such tensor.
    """
    problems = [
        written_twice(name)
        for name in dict.fromkeys(move.name for move, other in again if told[move.name].hash != other.hash)
    ]
    raise_all(problems, f"{len(problems)} tensors would be written twice")


def in_dtype(arrays: Mapping[str, Array], moves: Moves, job: Job, moved: Moved, options: Options) -> dict[str, Array]:
    """Arrays in the dtypes of their moves, rounded once; what that lost is told to the layers.

    Raises:
        LayoutxError: as `settle`.
    """
    goals, found, told = {move.name: move.dtype for move in moves.tensors}, dict(arrays), dict[str, Told]()
    for name, array in arrays.items():
        if goals.get(name, array.dtype) != array.dtype:
            found[name], lost = converted(array, goals[name])
            told[name] = Told("", lost=lost)
    settle(job, moves, told, moved, options)
    return found


def settle(job: Job, moves: Moves, told: Mapping[str, Told], moved: Moved, options: Options) -> None:
    """Tell the layers what was seen, and ask for the consents that only the values show.

    Args:
        told: of the output's tensors; none where nothing is written.

    Raises:
        LayoutxError: sums that were rounded, and finite numbers that became infinite, without consent; all together.
    """
    layers = {layer.record.name: layer for layer in job.layers}
    problems: list[LayoutxError] = _out_of_range(moves, told, options)
    rounded: set[str] = set()
    for name, one in told.items():
        if one.rounded is not None and name in moves.owner:
            layer, slot = moves.owner[name]
            moved.results[layer].rounded[slot] = one.rounded
            rounded.add(layer)
    for layer in sorted(rounded):
        try:
            consent(layers[layer].plan, moved.results[layer], options.allow | layers[layer].allowed)
        except LayoutxError as error:
            problems.append(error.at(layers[layer].record.place))
    raise_all(problems, f"{len(problems)} layers were not converted")
    for name, dtypes in moves.narrowed.items():
        lost = told[name].lost if name in told else None
        if name not in moves.owner:
            if name in job.kept and (lost is None or lost.rounded):
                moved.rounded[name] = f"{dtypes[0]} became {dtypes[1]}" if lost is None else _text(lost, dtypes[1])
            continue
        layer, slot = moves.owner[name]
        moved.results[layer].narrowed[slot] = dtypes
        if lost is not None and lost.rounded:
            moved.results[layer].lost[slot] = _text(lost, dtypes[1])
    _unprove(moved, layers)
    moved.news += bool(rounded or moves.narrowed)


def foreseen(job: Job, moves: Moves, moved: Moved, options: Options) -> Moved:
    """What was moved, as if every sum had been rounded and every narrower dtype had lost something.

    Of that a certificate says the most, so it shows how long the real one may become.
    """
    sums = {layer.record.name: _sums_of(layer) for layer in job.layers if layer.plan.exactness is Exactness.ROUNDS}
    if not sums and not moves.narrowed:
        return moved
    results = dict(moved.results)
    for name in {*sums, *(moves.owner[one][0] for one in moves.narrowed if one in moves.owner)}:
        rounded = dict.fromkeys(sums.get(name, ()), 0.0)
        results[name] = replace(results[name], rounded=rounded, narrowed=dict(results[name].narrowed))
    found = replace(moved, results=results, proofs=dict(moved.proofs), rounded={}, news=-1)
    settle(job, moves, {}, found, options)
    found.news = -1  # told apart from all that is really seen
    return found


def _sums_of(layer: LayerJob) -> list[str]:
    """The target's tensors of a layer whose numbers may have to be rounded."""
    plan = layer.plan
    return [one.name for one in plan.target.tensors if plan.exactness_of(one.name) is Exactness.ROUNDS]


def _unprove(moved: Moved, layers: Mapping[str, LayerJob]) -> None:
    """The way back of what was rounded is not the way it came."""
    for name, result in moved.results.items():
        if result.narrowed:
            note = BEFORE if moved.proofs[name].method else moved.proofs[name].note
            moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: rounded", note=note)
        elif result.rounded and not moved.proofs[name].method:
            moved.proofs[name] = replace(unproved(layers[name], result), note=moved.proofs[name].note)


def _out_of_range(moves: Moves, told: Mapping[str, Told], options: Options) -> list[LayoutxError]:
    """The complaint about finite numbers that became infinite."""
    wrong = {name: one.lost for name, one in told.items() if one.lost is not None and one.lost.count_infinite}
    if not wrong or RANGE in options.allow:
        return []
    dtypes = {move.name: str(move.dtype) for move in moves.tensors}
    lines = [
        f"{name}: {lost.count_infinite} of {lost.count} numbers, the largest {lost.scale:.3g}, as {dtypes[name]}"
        for name, lost in wrong.items()
    ]
    return [
        ConversionError(
            "finite numbers would become infinite",
            where=first(lines),
            do="choose a dtype of more range (bf16 has that of f32), or allow it with --allow range",
        )
    ]


def _text(lost: Lost, dtype: str) -> str:
    parts = [f"{lost.rounded} of {lost.count} numbers were rounded to {dtype}"]
    parts += [f"{lost.count_zero} became zero"] if lost.count_zero else []
    parts += [f"{lost.count_infinite} became infinite"] if lost.count_infinite else []
    return ", ".join(parts) + f"; by at most {lost.error:.2g}, the largest is {lost.scale:.3g}"
