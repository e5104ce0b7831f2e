"""A live model's weights become another live model's, in place; proved layer by layer and by running both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import VerificationError
from layoutx.files.open import open_store
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.paired import plan_pair
from layoutx.job.run import Moved, move
from layoutx.job.seen import with_run
from layoutx.job.slots import narrower, slots_of, writable, write
from layoutx.job.tree_slots import changes, placed, tree_slots
from layoutx.model.keyed import Keyed
from layoutx.model.load import keyed_of, live_model, model_of, says_itself, with_forms
from layoutx.model.parametrized import settled
from layoutx.model.record import ModelRecord
from layoutx.model.state import state_records
from layoutx.model.tree import head, is_tree
from layoutx.model.tree_config import told
from layoutx.progress import Progress
from layoutx.report import Report, report_of
from layoutx.show.progress import reported
from layoutx.spec.registry import Registry, registry
from layoutx.verify.models import EndToEnd, compare_models
from layoutx.verify.running.export_module import runnable

ELSEWHERE = (
    "write a file with lx.convert(source, OUT, to=..., like=...), and load it as its framework does; a .pt2 file: "
    "program = torch.export.load(FILE), lx.port(source, program), torch.export.save(program, FILE)"
)


@reported
def port(
    source: Any,
    target: Any,
    inputs: Any = None,
    *,
    allow: Iterable[str] = (),
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    specs: Sequence[str | PathLike[str]] = (),
    live: bool = True,
    compare: bool = True,
    from_: str = "",
    materialise: bool = False,
    values: Mapping[str, Any] | None = None,
    map: str | PathLike[str] | None = None,
    progress: bool | Progress | None = None,
) -> Report:
    """Load the weights of one model into another, whose own layers, names and order stay.

    Args:
        source: a live Keras model, torch module, or module or variables of flax, nnx, haiku, equinox, mlx or paddle;
            or the path of a weights file.
        target: a live torch module, torch.export program, Keras model or module of nnx, mlx or paddle; changed in
            place, and only if everything holds. A flax (module, variables), bound module, equinox module or tree of
            parameters cannot be changed: the model with the weights is the report's `model`.
        inputs: what both models are run on, in the source's axis order: an array, a list of them, or None
            for random inputs of the source's own shapes. Channels-last maps are turned for a channels-first target.
            A file is run where it holds a whole model and its framework is installed.
        from_: whose names a bare mapping or file holds; materialise, values: as for `convert`.
        map: a mapping file that `layoutx match` wrote; what is given beside it counts before it.
        compare: run both models; False: only the layers are proved, each on its own.
        allow, skip, only, forms, pairs, ignore_keys, keep_order, specs, live: as for `convert`.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Returns:
        The report; `end_to_end` says how the outputs of the two models compare, `model` is the one with the weights:
        the target, or a new one.

    Raises:
        UsageError: not two models that can be paired.
        LayoutxError: everything that prevents the port, together; the target is then unchanged.
        VerificationError: the two models' outputs differ; the target has its old weights again.
    """
    tree = is_tree(target)
    if not tree:
        writable(target, "port", ELSEWHERE)
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values, map=map)
    known = registry(specs)
    here = _source(source, known, options, from_, inputs)
    there = live_model(target, known, inputs=inputs)
    here, there = with_run(here, source, there, inputs), with_run(there, target, here, inputs)
    job = plan_pair(here, there, known, options)
    moved = move(job, options, live=live)
    arrays = {**moved.arrays, **{tied: moved.arrays[kept] for tied, kept in job.tied.items() if kept in moved.arrays}}
    slots: Mapping[str, Any] = tree_slots(target) if tree else slots_of(target)
    _narrowed(narrower(arrays, slots, options), job, moved)
    about = {"file": _name(source), "format": "live", "framework": job.source, "tensors": _many(here, job)}
    report = report_of(job, moved, known, source=about, output=_name(target), target=job.target)
    old = {name: slots[name].read() for name in arrays}
    try:
        write(arrays, slots)
        ported = placed(target, slots) if tree else target
        end = _compared(source, ported, here, inputs, compare, job)
        return replace(report, end_to_end=end, certified=False, model=ported)
    except BaseException:
        write(old, slots)
        if tree and changes(target):
            placed(target, slots)
        raise


def _source(source: Any, known: Registry, options: Options, from_: str, inputs: Any = None) -> Keyed | ModelRecord:
    if isinstance(source, (str, Path)):
        store = open_store(source)
        if says_itself(store):
            return model_of(store, known, options.forms, values=options.values)
        found: Keyed | ModelRecord = keyed_of(store, from_)
    else:
        found = live_model(source, known, framework=from_, inputs=inputs)
    if isinstance(found, ModelRecord):
        return found
    found = settled(found, options.materialise, options.skip)
    if found.framework == "torch":
        return found
    records = told(state_records(found, known, options.values), found, known)
    return with_forms(records, known, options.forms, values=options.values)


def _many(model: Keyed | ModelRecord, job: Job) -> int:
    """How many tensors the source has; tied ones count where the target has a layer for each."""
    if isinstance(model, ModelRecord):
        return len(model.store.tensors)
    used = {tensor.name for layer in job.layers for tensor in layer.sources.values()}
    return len(used | set(model.distinct().tensors))


def _name(model: Any) -> str:
    return Path(model).name if isinstance(model, (str, Path)) else type(head(model)).__name__


def _narrowed(lost: Mapping[str, tuple[str, str]], job: Job, moved: Moved) -> None:
    """Tell the layers' results: what is rounded into the target does not come back as it was."""
    for layer in job.layers:
        name = layer.record.name
        own = {n: lost[full] for n, full in layer.targets.items() if full in lost}
        if own:
            moved.results[name].narrowed.update(own)
            moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: rounded")


def _compared(source: Any, target: Any, here: Keyed | ModelRecord, inputs: Any, compare: bool, job: Job) -> EndToEnd:
    """Run both models; what was left out by the user makes a comparison pointless.

    Raises:
        VerificationError: the outputs differ.
    """
    if not compare:
        return EndToEnd(note="not asked for")
    if job.skipped:
        return EndToEnd(note="layers were left out: the two models need not agree")
    if isinstance(source, (str, Path)):
        from layoutx.verify.running.whole import compare_file

        end = compare_file(Path(source), runnable(target), here, inputs)
    else:
        end = compare_models(runnable(source), runnable(target), here, inputs)
    if end.agrees is False:
        found = (
            end.note if end.largest is None else f"largest difference {end.largest:.3g}, outputs up to {end.scale:.3g}"
        )
        raise VerificationError(
            "the two models do not compute the same",
            where=f"{found} ({end.dtype})" if end.dtype else found,
            why=_where(source, target, inputs),
            do="`layoutx diagnose` tries the known mistakes; compare=False (--no-compare) ports without a run",
        )
    return end


def _where(source: Any, target: Any, inputs: Any) -> str:
    """Where two models part, layer by layer; where they cannot be compared so, what it has to be."""
    from layoutx.show.validation_text import reason
    from layoutx.validate import validate

    try:
        found = reason(validate(source, target, inputs))
    except Exception:  # whatever comes of it, the outputs differ, and that is what has to be said
        found = ""
    return found or "each layer was proved on its own: what differs lies between them (padding, activation, axes, eps)"
