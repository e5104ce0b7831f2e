"""A file of one framework becomes a file of another: planned whole, moved, proved, written, re-read, put in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import ConsentError, ConversionError, LayoutxError, UsageError, raise_all
from layoutx.files.certificate import refuse_twice, sha256, to_metadata
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save
from layoutx.files.store import Store
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.named import plan_named
from layoutx.job.paired import plan_pair
from layoutx.job.run import Moved, move
from layoutx.model.keyed import Keyed
from layoutx.model.load import check_framework, config_of, is_keras_file, keyed_of, model_of, says_itself, template_of
from layoutx.model.parametrized import refusal, settled, sites
from layoutx.model.record import ModelRecord
from layoutx.report import Report, report_of
from layoutx.spec.registry import Registry, registry


def convert(
    source: str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    to: str,
    like: Any = None,
    config: Any = None,
    allow: Iterable[str] = (),
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    input_shape: Sequence[int] | None = None,
    specs: Sequence[str | PathLike[str]] = (),
    live: bool = True,
    from_: str = "",
    materialise: bool = False,
    values: Mapping[str, Any] | None = None,
) -> Report:
    """Convert a weights file.

    Args:
        source: `.keras`, `.weights.h5`, `.h5`, `.onnx`, `.safetensors`, its index, `.pt`, `.npz`, `.onnx`, `.msgpack`,
            `.pdparams`, an orbax folder.
        output: the ending says the format; None plans, moves and proves without writing.
        to: "torch", "keras", "onnx", "flax", "paddle" or any framework that the specs know.
        like: the target: a file with its names (a template), a live torch module, or "package.module:callable",
            which is imported and called. Needed, as a Keras file, for `to="keras"`; an ONNX
            model is written into the graph of a given one.
        config: the model's config where the source holds weights only: a Keras file, a JSON file, a mapping.
        allow: consent to results that are not bit-reversible: "rounds", "conditional".
        skip, only: patterns of layer names.
        forms: layer -> form, where the file cannot tell ("conv2d_1": "keras.Conv2DTranspose").
        pairs: layer -> module path of the target, where names and order do not decide.
        ignore_keys: config keys that layoutx does not know and that do not matter.
        keep_order: the target flattens channels-last, as Keras does: rows after a Flatten stay. True, or
            patterns of the layers of which that is so.
        input_shape: the model's input without batch, where the config does not say it.
        specs: more spec folders.
        live: compute the proof with the target's framework where it is installed.
        from_: whose names a file of named tensors holds ("flax", "mlx", ...), where it does not say.
        materialise: compute the weights that are stored as weight_norm or spectral_norm parts, rounded once.
        values: config values that the file does not say ({"release": "1.0.5"}), for all layers that read them.

    Returns:
        The report: layers, exactness, proofs, settings to carry, every key accounted for.

    Raises:
        UsageError: an impossible call. LayoutxError: everything that is wrong with the files, together; no
        output is written then.
    """
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values)
    started = perf_counter()
    known = registry(specs)
    _check_call(to, from_, options, known)
    path = Path(source)
    store = open_store(path)
    refuse_twice(store, to)
    from_keras = is_keras_file(store)
    if options.pairs and like is None:
        raise UsageError("--pair names places in a target", do="give the target with --like")
    if config is not None and not from_keras:
        raise UsageError(f"{path.name} is not a Keras file: a model config says nothing about it")
    target = template_of(like, to, known, NOTHING if from_keras else options.forms) if like is not None else None
    _check_target(target, to)
    template = target.store if isinstance(target, ModelRecord) else None
    if output is not None:
        can_write(output, template)
        _not_itself(path, Path(output))
    job = planned(store, to, target, known, options, input_shape, config, from_)
    if not job.layers:
        raise UsageError(
            f"nothing of {path.name} is left to convert", why="; ".join(map(": ".join, job.skipped.items()))
        )
    moved = move(job, options, live=live)
    arrays = _arrays(moved, job, target, options)
    report = report_of(job, moved, known, source=_about(store, job), output=str(output or ""), target=to)
    if output is not None:
        digest = {"sha256": sha256(path)} if path.is_file() else {}
        certificate = report.certificate(digest)
        save(output, arrays, to_metadata(certificate), template)
    return replace(report, seconds=perf_counter() - started)


def planned(
    store: Store,
    to: str,
    target: Keyed | ModelRecord | None,
    known: Registry,
    options: Options,
    input_shape: Sequence[int] | None = None,
    config: Any = None,
    from_: str = "",
) -> Job:
    """The job for a source file and a target.

    Raises:
        LayoutxError: what cannot be done, all of it together.
    """
    plain = partial(settled, materialise=options.materialise, skip=options.skip)
    lent = target if isinstance(target, ModelRecord) and target.framework != "onnx" and store.config is None else None
    if is_keras_file(store):
        given = config_of(config)
        model = model_of(
            store,
            known,
            options.forms,
            template=lent,
            config=given,
            input_shape=input_shape,
            framework=from_,
            values=options.values,
        )
    elif isinstance(target, ModelRecord) and not says_itself(store):
        if options.values:
            raise UsageError("--set adds to the configs of the source's layers", why=f"{store.path.name} has none")
        return plan_pair(plain(keyed_of(store, from_)), target, known, options)
    elif to == "keras" and target is None:
        raise _needs_like(to)
    else:
        model = model_of(store, known, options.forms, framework=from_, plain=plain, values=options.values)
        if model.framework == to:
            raise UsageError(
                f"{store.path.name} already holds names of {to}",
                do="choose another --to, or say whose names they are with --from (mlx, for one, marks no file)",
            )
    if target is not None:
        return plan_pair(model, target, known, options)
    if to == "keras":
        raise _needs_like(to)
    return plan_named(model, to, known, options)


def _check_target(target: Keyed | ModelRecord | None, to: str) -> None:
    """Refuse a template of another framework, and a live Keras model where a file's structure is needed."""
    if isinstance(target, ModelRecord) and target.framework.startswith("keras") and to != "keras":
        raise UsageError(
            f"the target of a conversion to {to} is not a Keras model",
            do="give the Keras model as --config if the source lacks it; --like names the target",
        )
    if isinstance(target, ModelRecord) and target.framework == "onnx" != to:
        raise UsageError(f"the target is an onnx model, the conversion one to {to}")
    if isinstance(target, ModelRecord) and not target.store.path.is_file():
        raise UsageError(
            "a Keras file is written in the structure of a Keras file, not of a live model",
            do='save the model first, model.save("template.keras"), or use lx.port(source, model)',
        )
    if isinstance(target, Keyed) and target.framework != to:
        raise UsageError(f"the target is a {target.framework} model, the conversion one to {to}")
    if isinstance(target, Keyed):
        problems = [refusal(replace(site, compute=None)) for site in sites(target)]
        raise_all(problems, "the target stores weights in parts")


def _needs_like(to: str) -> UsageError:
    return UsageError(
        f"a conversion to {to} needs the target model",
        why="a Keras weights file is written in the structure of its model",
        do="give it with --like model.keras",
    )


def _check_call(to: str, from_: str, options: Options, known: Registry) -> None:
    check_framework(to, known)
    if from_:
        check_framework(from_, known)
    for form in options.forms.values():
        known.form(form)


def _not_itself(source: Path, output: Path) -> None:
    if output.exists() and output.resolve() == source.resolve():
        raise UsageError("the output is the source itself", where=str(output), do="give another name with -o")


def _about(store: Store, job: Job) -> dict[str, Any]:
    size = store.path.stat().st_size if store.path.is_file() else sum(t.nbytes for t in store.tensors.values())
    return {
        "file": store.path.name,
        "format": store.format,
        "framework": job.source,
        "version": store.version,
        "tensors": len(store.tensors),
        "bytes": size,
    }


Arrays = dict[str, np.ndarray[Any, Any]]


def _arrays(moved: Moved, job: Job, target: Keyed | ModelRecord | None, options: Options) -> Arrays:
    """The output's tensors in the target's order; a Keras template lends what is no weight (seeds of dropout)."""
    arrays = {name: moved.arrays[name] for name in job.order if name in moved.arrays}
    if isinstance(target, Keyed):
        arrays.update({t.name: t.read() for t in target.tensors.values() if t.name not in arrays})
        arrays.update({tied: arrays[kept] for tied, kept in job.tied.items() if kept in arrays})
        order = dict.fromkeys((*(t.name for t in target.tensors.values()), *arrays))
        arrays = {name: arrays[name] for name in order if name in arrays}
    if isinstance(target, ModelRecord):
        arrays = _completed(_in_dtypes(arrays, job, moved, target, options), job, target, options)
    return arrays


def _in_dtypes(arrays: Arrays, job: Job, moved: Moved, target: ModelRecord, options: Options) -> Arrays:
    """Arrays in the dtypes of a Keras template, into which Keras would cast them silently when it loads the file.

    Raises:
        ConsentError: a narrower dtype without consent; all tensors together.
        ConversionError: a finite value that the narrower dtype turns into infinity.
    """
    wanted = target.store.tensors
    narrower = []
    for layer in job.layers:
        for name, full in layer.targets.items():
            have, want = arrays[full].dtype, wanted[full].dtype
            if have == want:
                continue
            if not np.can_cast(have, want, "safe"):
                narrower.append(f"{full}: {have} to {want}")
                moved.results[layer.record.name].narrowed[name] = (str(have), str(want))
            with np.errstate(over="ignore"):
                cast = arrays[full].astype(want)
            if have.kind == "f" and not np.isfinite(cast[np.isfinite(arrays[full])]).all():
                what = f"{full} does not fit into {want}"
                raise ConversionError(what, where=f"largest value {np.nanmax(np.abs(arrays[full])):.3g}, as {have}")
            arrays[full] = cast
    if narrower and "rounds" not in options.allow:
        raise ConsentError(
            f"the template's dtype is narrower for {len(narrower)} tensors",
            where=narrower[:6],
            do="allow it with --allow rounds (allow={'rounds'} in Python), or give a template of the source's dtype",
        )
    return arrays


def _completed(arrays: Arrays, job: Job, target: ModelRecord, options: Options) -> Arrays:
    from layoutx.files.keras_write import weights_of

    problems: list[LayoutxError] = []
    chosen = target.framework == "onnx" and bool(options.skip or options.only)  # it keeps what the user left out
    for name in weights_of(target.store):
        if name in arrays:
            continue
        owner = next((r for r in target.layers if any(t.name == name for t in r.tensors.values())), None)
        if owner is not None and owner.form and owner.name not in job.skipped and not chosen:
            problems.append(ConversionError(f"{name} of the template is not written", where=f"layer {owner.name}"))
        else:
            arrays[name] = target.store.tensors[name].read()
    raise_all(problems, "the template has tensors that nothing was found for")
    return arrays
