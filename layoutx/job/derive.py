"""A conversion done again without writing: is a file what its source, its options and its frameworks give?"""

from __future__ import annotations

from pathlib import Path

from layoutx.files.certified import DIFFERS, MISSING, OK
from layoutx.files.dtypes import DType, settled
from layoutx.files.hashes import SHA256, hash_of
from layoutx.files.laid.lay import can_lay
from layoutx.files.store import Store
from layoutx.job.jobs import Job, Options
from layoutx.job.moves import moves_for
from layoutx.job.near import brought
from layoutx.job.outputs import arrays_of
from layoutx.job.run import move
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.move.place import place_of
from layoutx.move.pool import carry_out
from layoutx.move.stored import hashes_of

LENT = "lent by the template"


def rederived(
    job: Job, target: Keyed | ModelRecord | None, options: Options, dtype: DType | None, file: Store, jobs: int
) -> dict[str, str]:
    """Name -> OK, DIFFERS or MISSING for all that the job makes, LENT for what only a template can have lent.

    Both sides are compared by SHA-256, so that a file made to deceive does not pass; nothing is kept in memory but what
    a graph of ONNX or a stack of layers takes.

    Args:
        target: the file itself, where the conversion had a template.

    Raises:
        LayoutxError: a job that cannot be carried out.
    """
    template = target.store if isinstance(target, ModelRecord) else None
    if not job.stacked and (template is None or can_lay(Path(file.path.name.removesuffix(".index.json")), template)):
        made = _streamed(job, target, options, dtype, jobs)
    else:
        made = _in_memory(job, target, options)
    held = [tensor for name, tensor in file.tensors.items() if made.get(name)]
    found = {tensor.name: one for tensor, one in zip(held, hashes_of(held, jobs, SHA256), strict=True)}
    states = {name: LENT if not one else _state(one, found.get(name)) for name, one in made.items()}
    return {**states, **{name: LENT for name in file.tensors if name not in states}}


def _state(made: str, found: str | None) -> str:
    return MISSING if found is None else OK if made == found else DIFFERS


def _streamed(
    job: Job, target: Keyed | ModelRecord | None, options: Options, dtype: DType | None, jobs: int
) -> dict[str, str]:
    """Output name -> its hash, "" for what is lent; made piece by piece."""
    moves = moves_for(job, target, options, dtype)
    own = [one for one in moves.tensors if one.name in moves.owner or one.name in job.tied or one.name in job.kept]
    with brought(own) as near:
        seen = carry_out([place_of(one, jobs) for one in near], jobs, SHA256)
    pairs = zip(near, seen, strict=True)
    made = {one.name: told.hash for one, told in pairs}
    return {one.name: made.get(one.name, "") for one in moves.tensors}


def _in_memory(job: Job, target: Keyed | ModelRecord | None, options: Options) -> dict[str, str]:
    moved = move(job, options, live=False, proved=())
    own = {*moved.arrays, *job.tied}
    own |= {part.whole.name for name, part in job.stacked.items() if name in own}
    arrays = arrays_of(moved, job, target, options)
    return {name: hash_of(settled(array), SHA256) if name in own else "" for name, array in arrays.items()}
