"""A file of one framework becomes a file of another: planned whole, moved, proved, written, re-read, put in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.blob import bytes_of, files_of, unchanged
from layoutx.files.certificate import KEY, digest_of, sha256, to_metadata
from layoutx.files.certified import hashed
from layoutx.files.guarded import broken
from layoutx.files.open import open_store
from layoutx.files.remote import located
from layoutx.files.save import can_write
from layoutx.files.store import Store
from layoutx.job.asked import check_call, check_ending, check_target, check_types, not_itself
from layoutx.job.deliver import deliver, how_of
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.named import plan_named
from layoutx.job.recognised import held, way_back
from layoutx.job.run import Moved
from layoutx.job.said import said_of
from layoutx.job.same import already, is_same, plan_same, refuse_same, still_noted
from layoutx.model.callables import built
from layoutx.model.config import config_of
from layoutx.model.in_parts import settled
from layoutx.model.keyed import Keyed
from layoutx.model.load import (
    is_keras_file,
    keyed_of,
    live_source,
    model_of,
    says_itself,
    template_of,
)
from layoutx.model.record import ModelRecord
from layoutx.model.stacked import check_stacked
from layoutx.progress import Progress
from layoutx.report import Report, report_of
from layoutx.show.progress import reported
from layoutx.spec.memo import uncollected
from layoutx.spec.registry import Registry, registry

if TYPE_CHECKING:
    from concurrent.futures import Executor  # it loads logging, which a small conversion does not need


@reported
def convert(
    source: Any,
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
    map: str | PathLike[str] | None = None,
    progress: bool | Progress | None = None,
    verify: str = "auto",
    jobs: int | None = None,
    dtype: str | None = None,
    max_shard_size: str | int | None = None,
    resume: bool = False,
    executor: Executor | Callable[[], Executor] | None = None,
    checksum: str = "",
    dry_run: bool = False,
) -> Report:
    """Convert a weights file, or the weights of a live model.

    Args:
        source: a live model as `port` takes it, or a file: `.keras`, `.weights.h5`, `.h5`, `.onnx`, `.safetensors`,
            its index or their folder, `.pt`, `.npz`, `.msgpack`, `.pdparams`, an orbax or DCP folder; also at
            `s3://...`.
        output: the ending says the format; None plans, moves and proves without writing.
        to: "torch", "keras", "onnx", "flax", "paddle" or any framework that the specs know.
        like: the target: a file with its names (a template), a live torch module, or "package.module:callable",
            which is imported and called. Needed, as a Keras file, for `to="keras"`; an ONNX
            model is written into the graph of a given one.
        config: the model's config where the source holds weights only: a Keras file, a JSON file, a mapping.
        allow: consent to results that are not bit-reversible: "rounds", "conditional"; "range": finite numbers that
            `dtype` makes infinite; "modules": the layer that `layoutx.torch` has where the target has none.
        skip, only: patterns of layer names.
        forms: layer or pattern -> form, where the file cannot tell ("conv2d_1": "keras.Conv2DTranspose").
        pairs: layer -> module path of the target, where names and order do not decide; a `*` in both stands for the
            same text: `layers.*.wq` -> `blocks.*.query`.
        ignore_keys: config keys that layoutx does not know and that do not matter.
        keep_order: the target flattens channels-last, as Keras does: rows after a Flatten stay. True, or
            patterns of the layers of which that is so.
        input_shape: the model's input without batch, where the config does not say it.
        specs: more spec folders.
        live: compute the proof with the target's framework where it is installed.
        from_: whose names a file of named tensors holds ("flax", "mlx", ...), where it does not say.
        materialise: compute the weights that are stored as weight_norm or spectral_norm parts, fold the batch norms
            that an ONNX target has folded into its convolutions, and take a bias that the target's layer has no place
            for off the mean of the batch norm after it; rounded once.
        values: config values that the file does not say: {"release": "1.0.5"} for all layers that read it,
            {"up.transpose_kernel": True} for one, {"block*.num_groups": 4} for those of a pattern.
        map: a mapping file that `layoutx match` wrote; what is given beside it counts before it.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).
        verify: "layers": every layer's outputs are compared, and every written byte; "bytes": every written byte, by
            checksums; "none"; "auto": "layers" up to 256 MB and 512 layers, above it "bytes" and the smallest layer of
            each pair of forms.
        jobs: threads; None: one for each core, up to eight.
        dtype: "bf16", "f16", "f32", "f64": what floating tensors become, rounded once.
        max_shard_size: "5GB", or bytes: the output is written in shards with an index (safetensors).
        resume: take the shards that an earlier, stopped run of the same conversion finished.
        executor: makes the shards (of 5 GB where no size is given), each with `jobs` threads (1): any
            concurrent.futures.Executor, or a function that makes one and so replaces it where it breaks.
        checksum: "sha256": of the source's file, whatever its size (without it only up to 64 MB), of the output's, and
            in the certificate, instead of xxh3, of every tensor of both.
        dry_run: check the output's place and format, plan, move and prove, and write nothing.

    Returns:
        The report: layers, exactness, proofs, settings to carry, every key accounted for.

    Raises:
        UsageError: an impossible call. LayoutxError: everything that is wrong with the files, together; no
        output is written then.
    """
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values, map)
    how = how_of(verify, jobs, dtype, max_shard_size, resume, executor, checksum, dry_run)
    started, began = perf_counter(), broken()
    known = registry(specs)
    check_types(output, to)
    check_call(to, from_, options, known)
    plain = partial(settled, materialise=options.materialise, skip=options.skip)
    given = None
    if not isinstance(source, (str, PathLike)):
        given = live_source(source, known, options.forms, options.values, from_, plain)
    place = None if output is None else located(output)
    final = None if dry_run else place
    store = open_store(located(source)) if given is None else given.store
    path = store.path
    if like is None and is_same(store, to, from_):
        refuse_same(store, to, place, options, how)
    from_keras = given is None and is_keras_file(store)
    if options.pairs and like is None:
        raise UsageError("--pair names places in a target", do="give the target with --like")
    if config is not None and not from_keras:
        raise UsageError(f"{path.name} is not a Keras file: a model config says nothing about it")
    like = built(like)
    target = None
    if like is not None:
        target = template_of(like, to, known, NOTHING if from_keras else options.forms, options.values)
    check_target(target, to)
    template = target.store if isinstance(target, ModelRecord) else None
    if place is not None:
        check_ending(output, to)
        can_write(place, template)
        not_itself(store, place, how.most is not None)
    if given is not None and given.framework == "torch" and isinstance(target, ModelRecord):
        from layoutx.job.between import planned_into

        job = planned_into(source, target, known, options, from_)
    else:
        job = planned(store, to, target, known, options, input_shape, config, from_, given, like)
    if not job.layers and not job.kept:
        raise UsageError(
            f"nothing of {path.name} is left to convert",
            why="; ".join(f"{name}: {why}" for name, why in job.skipped.items()),
        )
    digest = digest_of(store, checksum) if final is not None else {}
    said = said_of(options, like=like, config=config, from_=from_, input_shape=input_shape, dtype=dtype)

    name, before_it = "" if final is None else str(output), still_noted(store, job)
    reports: dict[int, Report] = {}

    def told(moved: Moved) -> Report:
        if moved.news not in reports:
            about = _about(store, job)
            reports[moved.news] = report_of(job, moved, source=about, output=name, target=to)
        return reports[moved.news]

    before, written = held(final) if final is not None else "", dict[str, str]()

    certificates: dict[int, dict[str, Any]] = {}

    def noted(moved: Moved) -> Mapping[str, str]:
        if moved.news not in certificates:
            certificates[moved.news] = told(moved).certificate(digest)
        hashes = hashed(how.kind, moved.hashes, moved.origins)
        written.update(to_metadata({**certificates[moved.news], **before_it, **hashes, "options": said}))
        return written

    moved = deliver(
        job,
        target,
        options,
        how,
        place,
        noted,
        live,
        lambda: unchanged(began, store, template),
        [*files_of(store), *(files_of(template) if template is not None else ())],
    )
    made = sha256(Path(name)) if checksum and name and Path(name).is_file() else ""
    again = bool(before) and before == written[KEY]
    back = None if job.kept else way_back(store, to, moved.hashes, how.kind)
    there = moved.there if resume else None
    return replace(told(moved), seconds=perf_counter() - started, sha256=made, again=again, back=back, there=there)


@uncollected()
def planned(
    store: Store,
    to: str,
    target: Keyed | ModelRecord | None,
    known: Registry,
    options: Options,
    input_shape: Sequence[int] | None = None,
    config: Any = None,
    from_: str = "",
    given: ModelRecord | None = None,
    live: Any = None,
) -> Job:
    """The job for a source file, or a live model that was read, and a target.

    Args:
        live: what the target was read from.

    Raises:
        LayoutxError: what cannot be done, all of it together.
    """
    there = target.framework if isinstance(target, Keyed) else ""
    theirs = [form for form in known.forms.values() if form.framework == there] if there else []
    elsewhere = {key for form in theirs for key in form.config}
    plain = partial(settled, materialise=options.materialise, skip=options.skip)
    read = partial(model_of, store, known, options.forms, framework=from_, values=options.values, elsewhere=elsewhere)
    lent = target if isinstance(target, ModelRecord) and target.framework != "onnx" and store.config is None else None
    if given is not None:
        model = _other(given, target, to)
    elif is_keras_file(store):
        model = read(template=lent, config=config_of(config), input_shape=input_shape)
    elif isinstance(target, ModelRecord) and not says_itself(store):
        return _paired(plain(keyed_of(store, from_, known, options.values)), target, known, options)
    elif to == "keras" and target is None:
        raise _needs_like(to)
    elif target is None and is_same(store, to, from_):
        return plan_same(store, to, options, plain)
    else:
        model = _other(read(plain=plain), target, to)
    if target is not None:
        from layoutx.job.seen import with_run

        return _paired(model, with_run(target, live, model), known, options)
    if to == "keras":
        raise _needs_like(to)
    check_stacked(options.values, model)
    return plan_named(model, to, known, options)


def _paired(model: Keyed | ModelRecord, target: Keyed | ModelRecord, known: Registry, options: Options) -> Job:
    from layoutx.job.paired import plan_pair  # matching is a third of all modules, and names alone need none of it

    return plan_pair(model, target, known, options)


def _other(model: ModelRecord, target: Keyed | ModelRecord | None, to: str) -> ModelRecord:
    """The source's layers, refused where nothing would change: no target, and names of the target's framework."""
    if model.framework == to and target is None:
        raise already(model.store, to)
    return model


def _needs_like(to: str) -> UsageError:
    return UsageError(
        f"a conversion to {to} needs the target model",
        why="a Keras weights file is written in the structure of its model",
        do="give it with --like model.keras",
    )


def _about(store: Store, job: Job) -> dict[str, Any]:
    return {
        "file": store.path.name,
        "format": store.format,
        "framework": job.source,
        "version": store.version,
        "tensors": len(store.tensors),
        "bytes": bytes_of(store),
    }
