"""A live model's weights become another live model's, in place; proved layer by layer and by running both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import VerificationError
from layoutx.job.between import Planned, planned_between
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.levels import check_level, computed, level_of
from layoutx.job.narrowed import narrowed
from layoutx.job.run import Moved, move
from layoutx.job.slots import check_slots, slots_of, writable, write
from layoutx.job.straight import fill, same, tried, ways
from layoutx.job.tree_slots import changes, placed, tree_slots
from layoutx.model.beginning import beginning
from layoutx.model.keras_live import is_keras
from layoutx.model.onnx_live import is_onnx
from layoutx.model.record import ModelRecord
from layoutx.model.tree import is_tree, name_of
from layoutx.move.pool import jobs_of
from layoutx.plan.plan import Plan
from layoutx.progress import Progress
from layoutx.report import Report, report_of
from layoutx.show.progress import reported
from layoutx.spec.registry import registry
from layoutx.verify.made import FAR
from layoutx.verify.models import compare_models
from layoutx.verify.outcome import UNASKED, EndToEnd
from layoutx.verify.running.export_module import runnable
from layoutx.verify.running.inputs_file import inputs_of

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
    verify: str = "auto",
    from_: str = "",
    materialise: bool = False,
    values: Mapping[str, Any] | None = None,
    config: Any = None,
    map: str | PathLike[str] | None = None,
    progress: bool | Progress | None = None,
) -> Report:
    """Load the weights of one model into another, whose own layers, names and order stay.

    Args:
        source: a live Keras model, torch module, or module or variables of flax, nnx, haiku, equinox, mlx or paddle;
            an `onnx.ModelProto`; or the path of a weights file. Of haiku `(transformed, params)` or
            `(transformed, params, state)`, which is traced and run, or the trees alone.
        target: a live torch module, torch.export program, Keras model or module of nnx, mlx or paddle; changed in
            place, and only if everything holds. A flax (module, variables), bound module, model of haiku or equinox, or
            tree of parameters cannot be changed: the model with the weights is the report's `model`.
        inputs: what both models are run on, in the source's axis order: an array, a list of them, a mapping by the
            names of the inputs, a file of them (.npy, .npz, .safetensors), or None for random inputs of the source's
            own shapes. Channels-last maps are turned for a channels-first target.
            A file is run where it holds a whole model and its framework is installed.
        from_: whose names a bare mapping or file holds; materialise, values, config: as for `convert`.
        map: a mapping file that `layoutx match` wrote; what is given beside it counts before it.
        compare: run both models; False: only the layers are proved, each on its own.
        verify: "layers": every layer is computed on both sides before anything is written, and the target read back;
            "bytes": it is read back and compared with what the plain executor makes; "none": nothing is read back.
            "auto": "layers" for all but large models, of which one layer for each pair of forms is computed. With
            "none" and compare=False there is no copy of the old weights, to come back to when the writing itself
            fails.
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
    check_level(verify)
    inputs = inputs_of(inputs)
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values, map=map)
    planned = planned_between(source, target, registry(specs), options, from_, inputs, config)
    carry_out = _into_tree if tree else _into_variables
    return carry_out(source, target, inputs, planned, options, live=live, compare=compare, verify=verify)


def _into_variables(
    source: Any,
    target: Any,
    inputs: Any,
    planned: Planned,
    options: Options,
    *,
    live: bool,
    compare: bool,
    verify: str,
) -> Report:
    """All is looked at, then written where it belongs; what can still fail afterwards has the old numbers beside it."""
    job = planned.job
    slots = slots_of(target, job.stacked)
    check_slots(job, slots)
    level, found = level_of(verify, job), ways(job, slots)
    moved, sums, lost = tried(found, job, options, slots, level, computed(level, job), live)
    _narrowed(lost, job, moved)
    names = [] if level == "none" and not compare else sorted(moved.written)
    old = {name: slots[name].read() for name in names}
    report = _report(planned, moved, source, target)
    try:
        fill(found, slots, jobs_of(None))
        same(sums, slots)
        end = _compared(source, target, planned, inputs, compare, options, report)
        return replace(report, end_to_end=end, certified=False, model=target)
    except BaseException:
        write(old, slots)
        raise


def _into_tree(
    source: Any,
    target: Any,
    inputs: Any,
    planned: Planned,
    options: Options,
    *,
    live: bool,
    compare: bool,
    verify: str,
) -> Report:
    """A tree of jax, mlx or paddle gets new arrays, all at once."""
    job, slots = planned.job, tree_slots(target, planned.job.stacked)
    check_slots(job, slots)
    moved = move(job, options, live=live, proved=computed(level_of(verify, job), job))
    arrays = {**moved.arrays, **{tied: moved.arrays[kept] for tied, kept in job.tied.items() if kept in moved.arrays}}
    _narrowed(narrowed(arrays, {n: slots[n].dtype for n in arrays}, options.allow, "target"), job, moved)
    report = _report(planned, moved, source, target)
    old = {name: slots[name].read() for name in arrays}
    try:
        write(arrays, slots)
        ported = placed(target, slots)
        end = _compared(source, ported, planned, inputs, compare, options, report)
        return replace(report, end_to_end=end, certified=False, model=ported)
    except BaseException:
        write(old, slots)
        if changes(target):
            placed(target, slots)
        raise


def _report(planned: Planned, moved: Moved, source: Any, target: Any) -> Report:
    """The report; lines of layers of which the same was seen as in an earlier call are that call's."""
    more = planned.kept.more
    seen = moved.results, moved.proofs
    lines = more["lines"] if not moved.arrays and more.get("seen") == seen else None
    job = planned.job
    about = {"file": name_of(source), "format": "live", "framework": job.source, "tensors": planned.kept.many}
    report = report_of(job, moved, source=about, output=name_of(target), target=job.target, lines=lines)
    if not moved.arrays:
        more.update(seen=seen, lines=report.layers)
    return report


def _narrowed(lost: Mapping[str, tuple[str, str]], job: Job, moved: Moved) -> None:
    """Tell the layers' results: what is rounded into the target does not come back as it was."""
    for layer in job.layers:
        name = layer.record.name
        own = {n: lost[full] for n, full in layer.targets.items() if full in lost}
        if own:
            moved.results[name].narrowed.update(own)
            moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: rounded")


def _compared(
    source: Any, target: Any, planned: Planned, inputs: Any, compare: bool, options: Options, report: Report
) -> EndToEnd:
    """Run both models; where layers were left out they need not agree, unless these stand at a model's inputs.

    Raises:
        VerificationError: the outputs differ, and nothing was left out.
    """
    if not compare:
        return EndToEnd(note=UNASKED)
    here = planned.here()
    there = planned.there() if options.skip and is_keras(target) else None
    sides = [side for side in (here, there) if side is not None]
    first = {name for side in sides for way in beginning(side, options.skip).values() for name in way}
    left = planned.job.left_out.keys() - first
    if left and options.only:
        return EndToEnd(note="layers were left out: the two models need not agree")
    low = max((_padding(layer.plan) for layer in planned.job.layers), default=0)
    read = here.store if is_onnx(source) and isinstance(here, ModelRecord) else None  # it was written to be read
    file = read.path if read is not None else Path(source) if isinstance(source, (str, Path)) else None

    def run(far: float = 1.0) -> EndToEnd:
        if file is not None:
            from layoutx.verify.running.whole import compare_file

            return compare_file(file, runnable(target), here, inputs, options.skip, there, far)
        return compare_models(runnable(source), runnable(target), here, inputs, options.skip, there, low, far)

    end = run()
    if inputs is None and end.largest is not None and end.agrees is not False:
        larger = run(FAR)
        if larger.agrees is False and not left:
            from layoutx.parting import same_on_larger

            same_on_larger(source, target, options, planned.registry)
        elif larger.agrees and not end.agrees:  # what is lost in biases on plain inputs shows on larger ones
            end = larger
    if end.agrees is not False:
        return end
    return _parted(source, target, planned, inputs, options, report, end, bool(left))


def _parted(
    source: Any, target: Any, planned: Planned, inputs: Any, options: Options, report: Report, end: EndToEnd, left: bool
) -> EndToEnd:
    """Outputs that differ, where they may: up to rounding, time first, or since layers were left out."""
    from layoutx.parting import DIFFERS, NEAR, parting
    from layoutx.show.settings_text import other_settings
    from layoutx.show.validation_text import time_first

    near = end.largest is not None and end.largest <= NEAR * end.scale
    why, same = parting(source, target, inputs, options, planned.registry, near)
    if same is not None:
        worst = max(check.largest or 0.0 for check in same.end_to_end)
        if time_first(same):
            return EndToEnd(worst, end.scale, same.source["dtype"], True, "; ".join(same.notes), late=True)
        if end.largest is not None:  # outputs of other shapes, or more of them, are no rounding
            said = (end.note, f"rounding: in float64 the largest difference is {worst:.2g}")
            return replace(end, agrees=True, note="; ".join(filter(None, said)))
    if left:
        return replace(end, note="; ".join(filter(None, (end.note, "layers were left out: they need not agree"))))
    size = end.largest is not None and f"largest difference {end.largest:.3g}, outputs up to {end.scale:.3g}"
    raise VerificationError(
        "the two models do not compute the same",
        where=[
            f"{size or end.note}{f' ({end.dtype})' * bool(end.dtype)}",
            *other_settings(report.layers, why),
            *why.split("\n"),  # one entry a line: the command line spells out an end of line
        ],
        do=DIFFERS,
    )


def _padding(plan: Plan) -> int:
    """How many rows lie before the first position of a table: as many ids are padding, or none of the words."""
    return max(side.sizes.get("front", 0) for side in (plan.source, plan.target))
