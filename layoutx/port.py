"""A live model's weights become another live model's, in place; proved layer by layer and by running both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import ConsentError, ConversionError, LayoutxError, UsageError, VerificationError, raise_all
from layoutx.files.open import open_store
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.paired import plan_pair
from layoutx.job.run import Moved, move
from layoutx.model.keras_live import dtype_of, is_keras, variables
from layoutx.model.keyed import Keyed, torch_tensor
from layoutx.model.load import keyed_of, live_model, model_of, says_itself, with_forms
from layoutx.model.parametrized import settled
from layoutx.model.record import ModelRecord
from layoutx.model.state import state_records
from layoutx.model.tree_config import told
from layoutx.plan.plan import Array
from layoutx.report import Report, report_of
from layoutx.spec.registry import Registry, registry
from layoutx.verify.models import EndToEnd, compare_models
from layoutx.verify.plain import is_torch


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
) -> Report:
    """Load the weights of one model into another, whose own layers, names and order stay.

    Args:
        source: a live Keras model, torch module, or module or variables of flax, nnx, haiku, equinox, mlx or paddle;
            or the path of a weights file.
        target: a live torch module or Keras model; changed in place, and only if everything holds.
        inputs: what both models are run on, in the source's axis order: an array, a list of them, or None
            for random inputs of the source's own shapes. Channels-last maps are turned for a channels-first target.
            A file is run where it holds a whole model and its framework is installed.
        from_: whose names a bare mapping or file holds; materialise, values: as for `convert`.
        map: a mapping file that `layoutx match` wrote; what is given beside it counts before it.
        compare: run both models; False: only the layers are proved, each on its own.
        allow, skip, only, forms, pairs, ignore_keys, keep_order, specs, live: as for `convert`.

    Returns:
        The report; `end_to_end` says how the outputs of the two models compare.

    Raises:
        UsageError: not two models that can be paired.
        LayoutxError: everything that prevents the port, together; the target is then unchanged.
        VerificationError: the two models' outputs differ; the target has its old weights again.
    """
    _writable(target)
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values, map=map)
    known = registry(specs)
    here = _source(source, known, options, from_)
    there = live_model(target, known)
    job = plan_pair(here, there, known, options)
    moved = move(job, options, live=live)
    arrays = {**moved.arrays, **{tied: moved.arrays[kept] for tied, kept in job.tied.items() if kept in moved.arrays}}
    slots = _slots(target)
    _narrowed(_fits(arrays, slots, options), job, moved)
    about = {"file": _name(source), "format": "live", "framework": job.source, "tensors": _many(here, job)}
    report = report_of(job, moved, known, source=about, output=_name(target), target=job.target)
    old = {name: slots[name].read() for name in arrays}
    try:
        _write(arrays, slots)
        end = _compared(source, target, here, inputs, compare, job)
        return replace(report, end_to_end=end, certified=False)
    except BaseException:
        _write(old, slots)
        raise


def _source(source: Any, known: Registry, options: Options, from_: str) -> Keyed | ModelRecord:
    if isinstance(source, (str, Path)):
        store = open_store(source)
        if says_itself(store):
            return model_of(store, known, options.forms, values=options.values)
        found: Keyed | ModelRecord = keyed_of(store, from_)
    else:
        found = live_model(source, known, framework=from_)
    if isinstance(found, ModelRecord):
        return found
    found = settled(found, options.materialise, options.skip)
    if found.framework == "torch":
        return found
    records = told(state_records(found, known, options.values), found, known)
    return with_forms(records, known, options.forms, values=options.values)


def _writable(target: Any) -> None:
    """Refuse a target whose weights cannot be set in place.

    Raises:
        UsageError: it is no live torch module or Keras model.
    """
    if not is_keras(target) and not is_torch(target):
        raise UsageError(
            f"port does not write into a {type(target).__name__}",
            why="the target of port is a live torch module or Keras model, whose weights are set in place",
            do="use lx.convert(source, to=..., like=...) for flax, nnx, haiku, equinox, mlx, paddle and files",
        )


def _many(model: Keyed | ModelRecord, job: Job) -> int:
    """How many tensors the source has; tied ones count where the target has a layer for each."""
    if isinstance(model, ModelRecord):
        return len(model.store.tensors)
    used = {tensor.name for layer in job.layers for tensor in layer.sources.values()}
    return len(used | set(model.distinct().tensors))


def _name(model: Any) -> str:
    return Path(model).name if isinstance(model, (str, Path)) else type(model).__name__


class _Slot:
    """One variable of a live model: read as an array, written from one."""

    def __init__(self, variable: Any, torch: bool) -> None:
        self.variable = variable
        self.torch = torch

    def read(self) -> Array:
        """A copy of its values."""
        import numpy as np

        if not self.torch:
            return np.asarray(self.variable).copy()
        return torch_tensor("", self.variable).read().copy()

    @property
    def dtype(self) -> Any:
        """Its dtype as NumPy sees it."""
        if not self.torch:
            return dtype_of(self.variable)
        return torch_tensor("", self.variable).dtype

    def write(self, array: Array) -> None:
        """Copy an array into it; wider floats are filled exactly."""
        if not self.torch:
            self.variable.assign(array)
            return
        import torch

        from layoutx.files.torch_file import torch_of

        with torch.no_grad():
            self.variable.copy_(torch_of(torch, "", array.copy()))


def _slots(target: Any) -> dict[str, _Slot]:
    if is_keras(target):
        return {name: _Slot(value, False) for name, value in variables(target).items()}
    state = target.state_dict(keep_vars=True)
    return {name: _Slot(value, True) for name, value in state.items() if hasattr(value, "copy_")}


def _fits(arrays: Mapping[str, Array], slots: Mapping[str, _Slot], options: Options) -> dict[str, tuple[str, str]]:
    """Refuse missing slots, and narrower dtypes without consent, before anything is written; what becomes narrower."""
    import numpy as np

    problems: list[LayoutxError] = []
    narrower: dict[str, tuple[str, str]] = {}
    for name, array in arrays.items():
        if name not in slots:
            problems.append(ConversionError(f"the target has no variable {name}"))
        elif array.dtype != slots[name].dtype and not np.can_cast(array.dtype, slots[name].dtype, "safe"):
            narrower[name] = (str(array.dtype), str(slots[name].dtype))
    raise_all(problems, "the target does not take these weights")
    if narrower and "rounds" not in options.allow:
        raise ConsentError(
            f"the target's dtype is narrower for {len(narrower)} tensors",
            where=[f"{name}: {a} to {b}" for name, (a, b) in list(narrower.items())[:6]],
            do="allow it with allow={'rounds'}, or widen the target first",
        )
    return narrower


def _narrowed(narrower: Mapping[str, tuple[str, str]], job: Job, moved: Moved) -> None:
    """Tell the layers' results: what is rounded into the target does not come back as it was."""
    for layer in job.layers:
        name = layer.record.name
        own = {n: narrower[full] for n, full in layer.targets.items() if full in narrower}
        if own:
            moved.results[name].narrowed.update(own)
            moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: rounded")


def _write(arrays: Mapping[str, Array], slots: Mapping[str, _Slot]) -> None:
    for name, array in arrays.items():
        slots[name].write(array)


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

        end = compare_file(Path(source), target, here, inputs)
    else:
        end = compare_models(source, target, here, inputs)
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
