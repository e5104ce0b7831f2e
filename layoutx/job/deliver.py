"""A job carried out and delivered: proved as far as asked for, and written as one file, in shards, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layoutx.errors import LayoutxError, UsageError
from layoutx.files.certificate import check_checksum, label_of
from layoutx.files.dtypes import Array, DType, settled
from layoutx.files.hashes import WIDTHS, XXH3, hash_of
from layoutx.files.laid.lay import can_lay
from layoutx.files.laid.shards import partition, size_of
from layoutx.files.remote import url_of
from layoutx.files.remote_write import uploaded
from layoutx.files.save import save
from layoutx.files.spool import spooling
from layoutx.files.stacked import whole_of
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.job.levels import MOST_BYTES, check_level, computed, level_of, nbytes_of
from layoutx.job.moves import Moves, moves_for
from layoutx.job.near import brought, deliver_file
from layoutx.job.observed import Told, check_plain, check_shared, foreseen, in_dtype, plain_hash, settle
from layoutx.job.outputs import arrays_of
from layoutx.job.published import at_work, clear
from layoutx.job.run import Moved, move
from layoutx.job.shards import Run, make_shards, one_by_one
from layoutx.job.stream import Output, entries_of, told_of
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.move.cast import dtype_named
from layoutx.move.moves import Move
from layoutx.move.place import place_of
from layoutx.move.pool import carry_out, jobs_of
from layoutx.spec.memo import uncollected

if TYPE_CHECKING:
    from concurrent.futures import Executor

ROOM = 64  # bytes for each layer and tensor of which the certificate may say something else than was foreseen
Certified = Callable[[Moved], Mapping[str, str]]


@frozen
class How:
    """How an output is made.

    Attributes:
        verify: "auto", "layers", "bytes", "none": see `levels`.
        jobs: threads. dtype: what floating tensors become; None: what the plans give.
        most: the most bytes of a shard; None: one file.
        resume: take what an earlier run of the same job finished.
        run: how shards are made: one by one, or by an executor's workers. kind: of the hashes.
        dry: all is done but the writing.
    """

    verify: str = "auto"
    jobs: int = 1
    dtype: DType | None = None
    most: int | None = None
    resume: bool = False
    run: Run = one_by_one
    kind: str = XXH3
    dry: bool = False


def how_of(
    verify: str,
    jobs: int | None,
    dtype: str | None,
    most: str | int | None,
    resume: bool,
    executor: Executor | Callable[[], Executor] | None = None,
    checksum: str = "",
    dry: bool = False,
) -> How:
    """What callers write as `How`; see `layoutx.convert.convert`.

    Raises:
        UsageError: words and numbers that mean nothing.
    """
    threads = jobs_of(jobs)
    size = size_of(most) if isinstance(most, str) else most
    if size is not None and size < 1:
        raise UsageError(f"a shard of {size} bytes holds nothing", do="give max_shard_size='5GB', or bytes")
    run: Run = one_by_one
    if executor is not None:
        from layoutx.job.executors import MOST, over

        size, threads = size or MOST, jobs or 1  # an executor has a worker for each core
        run = over(executor, size)
    if resume and size is None:
        raise UsageError("there is nothing to resume without shards", do="give --max-shard-size as the first time")
    check_level(verify)
    check_checksum(checksum)
    kind = checksum or XXH3
    return How(verify, threads, None if dtype is None else dtype_named(dtype), size, resume, run, kind, dry)


def deliver(
    job: Job,
    target: Keyed | ModelRecord | None,
    options: Options,
    how: How,
    output: Path | None,
    certified: Certified,
    live: bool,
    unchanged: Callable[[], None],
    files: Collection[tuple[Path, str]] = (),
) -> Moved:
    """Carry out a job.

    Args:
        target: what the output is like. output: None: prove, and write nothing.
        certified: the metadata of the output, from what was made.
        live: compute proofs with the target's framework where all layers are proved.
        unchanged: refuses sources that changed since they were opened; asked when all is read, before it is put in
            its place.
        files: those of the sources, with their states.

    Raises:
        LayoutxError: everything that prevents it, together; no output is written then.
    """
    level = level_of(how.verify, job)
    template = target.store if isinstance(target, ModelRecord) else None
    if template is not None and job.stacked:  # a file is written in tensors, of which layers may be parts
        template = replace(template, tensors={t.name: t for t in whole_of(template.tensors.values())})
    if output is not None:
        _check_format(output, template, how, bool(job.stacked))
    output = None if how.dry else output
    if output is not None and (job.stacked or not can_lay(output, template)):
        moved = move(job, options, live=live and level == "layers", proved=computed(level, job))
        with uploaded(output, level != "none") as place:
            arrays = arrays_of(moved, job, target, options)
            if how.dtype is not None:
                arrays = in_dtype(arrays, moves_for(job, target, options, how.dtype), job, moved, options)
            moved.hashes = {name: hash_of(settled(array), how.kind) for name, array in arrays.items()}
            moved.origins = {t.name: hash_of(t.read(), how.kind) for t in _read(job)} if level != "none" else {}
            save(place, arrays, certified(moved), template, unchanged)
        return moved
    # thousands of small objects that all stay; whoever runs for minutes has its garbage collected
    with uncollected() if level != "layers" and nbytes_of(job) <= MOST_BYTES else nullcontext():
        return _laid(job, target, options, how, output, certified, live, unchanged, level, files)


def _laid(
    job: Job,
    target: Keyed | ModelRecord | None,
    options: Options,
    how: How,
    output: Path | None,
    certified: Certified,
    live: bool,
    unchanged: Callable[[], None],
    level: str,
    files: Collection[tuple[Path, str]],
) -> Moved:
    """The same for an output that is laid out before its numbers are known, or for none."""
    proved, template = computed(level, job), target.store if isinstance(target, ModelRecord) else None
    moves, read = moves_for(job, target, options, how.dtype), _read(job)
    by_name = {one.name: one for one in moves.tensors}
    expected: dict[str, str] = {}

    def taken(layer: LayerJob, arrays: Mapping[str, Array]) -> None:
        for slot, array in arrays.items():
            name = layer.targets[slot]
            if output is not None and moves.owner[name] == (layer.record.name, slot):
                expected[name] = plain_hash(by_name[name], array, how.kind)

    moved = move(job, options, live=live and level == "layers", proved=proved, taken=taken)
    moved.written = {*moves.owner, *job.kept}
    moved.nbytes = sum(one.nbytes for one in moves.tensors)
    moved.shards = len(partition(entries_of(moves.tensors), how.most)) if how.most is not None else 1

    def seen(told: Mapping[str, Told], again: Sequence[tuple[Move, Told]]) -> Mapping[str, str]:
        unchanged()
        check_shared(told, again)
        check_plain(told, expected)
        settle(job, moves, told, moved, options)
        moved.hashes = {name: one.hash for name, one in told.items()}
        found = {name: one for each in told.values() for name, one in each.sources}
        moved.origins = {t.name: found.get(t.name) or hash_of(t.read(), how.kind) for t in read} if found else {}
        return certified(moved)

    if output is None:
        unchanged()
        settle(job, moves, {}, moved, options)
    elif how.most is None or moved.nbytes <= how.most:
        moved.hashes = dict.fromkeys(by_name, "0" * 2 * WIDTHS[how.kind])
        moved.origins = dict.fromkeys((t.name for t in read), "0" * 2 * WIDTHS[how.kind])
        room = len(json.dumps(dict(certified(foreseen(job, moves, moved, options)))))
        room += ROOM * (len(job.layers) + len(moves.tensors) + 1)
        with _spooled(output):
            deliver_file(moves, Output(output, template, seen, room, level != "none", how.jobs, how.kind))
        clear(output)
    else:
        with _spooled(output), at_work(output):
            moved.there = _sharded(moves, output, label_of(job.target), how, level, seen, files)
    return moved


def _read(job: Job) -> list[Tensor]:
    """The source tensors that a job reads and the file holds, each once; of layers kept as one the whole tensor."""
    found = whole_of(job.read())
    return [tensor for tensor in found if not tensor.derived]


def _spooled(output: Path) -> AbstractContextManager[None]:
    """What has to be unpacked goes beside the output, unless that is on a remote store."""
    return spooling(output.parent) if url_of(output) is None else nullcontext()


def _sharded(
    moves: Moves,
    output: Path,
    label: Mapping[str, str],
    how: How,
    level: str,
    seen: Callable[[Mapping[str, Told], Sequence[tuple[Move, Told]]], Mapping[str, str]],
    files: Collection[tuple[Path, str]],
) -> int:
    """Make the shards and put them in place; how many were there from a stopped run."""
    assert how.most is not None
    again = level != "none"
    shards = make_shards(
        moves,
        output,
        how.most,
        label,
        jobs=how.jobs,
        again=again,
        resume=how.resume,
        run=how.run,
        kind=how.kind,
        files=files,
    )
    try:
        with brought(moves.again) as near:
            others = [place_of(one, how.jobs) for one in near]
            found = zip(others, carry_out(others, how.jobs, how.kind), strict=True)
            sums = [told_of(place, one) for place, one in found]
        metadata = seen(shards.told, list(zip(moves.again, sums, strict=True)))
    except LayoutxError:
        shards.drop()
        raise
    shards.publish(metadata)
    return shards.there


def _check_format(output: Path, template: Store | None, how: How, stacked: bool) -> None:
    """Refuse, before any work, what the output's format cannot be made with."""
    if stacked and (how.most is not None or how.dtype is not None):
        raise UsageError(
            f"{output.name} keeps many layers in one tensor, and is written whole, in the dtypes of its source",
            do="leave shards and --dtype out; convert the result once more to have them",
        )
    if how.most is not None and output.suffix != ".safetensors":
        raise UsageError(
            f"{output.name} cannot be written in shards",
            why="" if how.run is one_by_one else "the workers of an executor make shards",
            do="choose an output that ends in .safetensors",
        )
    if how.dtype is not None and template is not None and not can_lay(output, template):
        raise UsageError(
            f"{output.name} keeps the dtypes of the graph that it is written into",
            do="leave --dtype out, or convert to a file without a graph",
        )
