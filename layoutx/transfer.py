"""Chosen layers of one model or several become those of another, which keeps all its other numbers; every key told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, UsageError, VerificationError, raise_all
from layoutx.files.atomic import not_over
from layoutx.files.blob import unchanged
from layoutx.files.certificate import to_metadata
from layoutx.files.certified import of_arrays
from layoutx.files.guarded import broken, intact
from layoutx.files.save import can_write, save
from layoutx.files.stacked import whole_of
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.accounts import kept, keys, missing, written, written_twice
from layoutx.job.jobs import Job, Options, options_of
from layoutx.job.outputs import arrays_of, in_dtypes
from layoutx.job.part import Model, Part, job_of_part, means, names_in, part
from layoutx.job.run import Moved, move
from layoutx.job.slots import slots_of, writable, write
from layoutx.match import check_said, place_of, seen
from layoutx.model.in_parts import computed
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.model.said import stacks_said
from layoutx.model.stacked import check_stacked, parts_of
from layoutx.model.tree import name_of
from layoutx.plan.plan import Array
from layoutx.show.report_lines import layer_line
from layoutx.spec.registry import Registry, registry
from layoutx.transferred import Copied, Transfer

ELSEWHERE = "for flax, nnx, haiku, equinox, mlx and paddle save the target to a file and give output=..."


@intact()
def transfer(
    source: Any,
    target: Any,
    output: str | PathLike[str] | None = None,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    pairs: Mapping[str, str] | None = None,
    map: str | PathLike[str] | None = None,
    forms: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    allow: Iterable[str] = (),
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    materialise: bool = False,
    specs: Sequence[str | PathLike[str]] = (),
    live: bool = True,
    from_: str = "",
    to: str = "",
    config: Any = None,
    input_shape: Sequence[int] | None = None,
) -> Transfer:
    """Copy chosen layers into a model that keeps the rest: transfer learning, or one model of two checkpoints.

    Args:
        source: a file, a live model, or "package.module:callable"; a list of them; or patterns of the target's
            layers, each with its source: `{"encoder.*": "a.h5", "head.*": "b.safetensors"}`.
        target: a live torch module or Keras model, changed in place; or a file, which stays as it is.
        output: the file to write where the target is one, in the target's own structure and dtypes.
        only, skip: patterns of layers, modules or tensors, of either side. Without `only`, every layer of the target
            (of those that the patterns of `source` name) must get its numbers or be in `skip`.
        pairs: source layer -> target layer, where names and order do not decide. map: a mapping file.
        forms, values, allow, ignore_keys, keep_order, specs, live: as for `convert`.
        materialise: compute the weights of sources that are stored in parts (weight_norm).
        from_, to: whose names bare files of sources and target hold. config, input_shape: as for `match`.

    Returns:
        What was copied, what the target kept and why, what of each source was not taken and why.

    Raises:
        UsageError: an impossible call, a pattern that means nothing.
        LayoutxError: everything that prevents the transfer, together; nothing is written then.
    """
    options = options_of(allow, skip, only, forms, pairs, ignore_keys, keep_order, materialise, values, map)
    known, began = registry(specs), broken()
    file = isinstance(target, (str, Path)) and Path(target).exists()
    _check(target, output, file)
    there = seen(target, known, {}, stacks_said(options.values), to, config, input_shape)
    said = (known, options.forms, options.values, from_, config, input_shape)
    sources = [replace(one, seen=seen(one.model, *said)) for one in _given(source)]
    sources = [replace(one, seen=computed(one.known, options.skip)) for one in sources] if materialise else sources
    check_said(config, input_shape, there, *(one.known for one in sources))
    _check_patterns(sources, there, options)
    check_stacked(options.values, there, *(one.known for one in sources))
    if output is not None:
        can_write(output, there.store if isinstance(there, ModelRecord) else None)
        not_over(Path(output), [target, *(one.model for one in sources)])
    found = _joined(sources, there, known, options)
    moved, arrays = _moved(found, sources, there, options, live)
    result = _result(found, moved, sources, there, name_of(target), options)
    if file:
        stores = [one.known.store for one in sources]
        jobs = [job for job, _ in moved] if len(moved) == 1 else []  # of several sources, names say too little
        read = {t.name: t for job in jobs for layer in job.layers for t in layer.sources.values()}
        same = lambda: unchanged(began, there.store, *stores)  # noqa: E731
        return _saved(result, arrays, there, options, output, same, whole_of(read.values()))
    _in_place(target, arrays)
    return result


@frozen
class _Source:
    places: tuple[str, ...]
    model: Any
    seen: Model | None = None

    @property
    def known(self) -> Model:
        assert self.seen is not None
        return self.seen


def _given(source: Any) -> list[_Source]:
    """The sources of a call, each with the patterns of the target's layers that are for it."""
    if isinstance(source, (list, tuple)):
        return [_Source((), one) for one in source]
    if isinstance(source, Mapping):
        leaf = any(isinstance(one, Mapping) or hasattr(one, "shape") for one in source.values())
        if not leaf:  # else a state dict, or variables of jax
            return [_Source((str(places),), one) for places, one in source.items()]
    return [_Source((), source)]


def _check(target: Any, output: Any, file: bool) -> None:
    """Refuse a live target with an output, a file without one, and what is neither."""
    if file and output is None:
        raise UsageError(
            "there is no output",
            why=f"{Path(target).name} itself is never changed",
            do="name the file to write: output=..., or -o OUT",
        )
    if isinstance(target, (str, Path)) and not file:
        raise UsageError(f"no such file: {target}", do="give a file, or a live model, which is changed in place")
    if not file:
        writable(target, "transfer", ELSEWHERE)
        if output is not None:
            raise UsageError("a live target is changed in place", do="leave the output out, and save the model")


def _check_patterns(sources: Sequence[_Source], there: Model, options: Options) -> None:
    """Refuse patterns that mean nothing at all, all of them together."""
    target = [x for pair in names_in(there).items() for x in pair]
    names = [*target, *(x for one in sources for pair in names_in(one.known).items() for x in pair)]
    problems: list[LayoutxError] = []
    for pattern in (*options.only, *options.skip):
        if not means([pattern], *names):
            problems.append(UsageError(f"no layer of either side is called {pattern!r}", why=_layers(names_in(there))))
    for one in sources:
        if one.places and not means(one.places, *target):
            why = f"before a source stands a pattern of the target's layers; {_layers(names_in(there))}"
            problems.append(UsageError(f"no layer of the target is called {one.places[0]!r}", why=why))
    raise_all(problems, "patterns that mean nothing")


def _layers(names: Mapping[str, str]) -> str:
    found = list(dict.fromkeys(filter(None, names.values())))
    return f"the target's layers are {', '.join(found[:20])}{', ...' if len(found) > 20 else ''}"


def _joined(sources: Sequence[_Source], there: Model, known: Registry, options: Options) -> list[Part]:
    """Every source joined with its part of the target; all that prevents it together.

    Raises:
        LayoutxError: pairs without a plan, layers of the target that nothing fits, two sources for one layer.
    """
    found: list[Part] = []
    for one in sources:
        own = {a: b for a, b in options.pairs.items() if _has(one.known, a) or len(sources) == 1}
        found.append(part(name_of(one.model), one.known, there, known, replace(options, pairs=own), one.places))
    problems = [problem for one in found for problem in one.problems]
    problems += written_twice(found)
    problems += missing(found, _places(sources), there, options)
    raise_all(problems, "the transfer cannot be done")
    if not any(one.chosen for one in found):
        raise UsageError("nothing is left to transfer", why="; ".join(dict.fromkeys(found[0].untaken.values())))
    return found


def _places(sources: Sequence[_Source]) -> list[str]:
    return [place for one in sources for place in one.places]


def _untaken(found: Sequence[Part]) -> dict[str, dict[str, str]]:
    """What no part takes of each source; one file may stand before several parts."""
    rest: dict[str, dict[str, str]] = {}
    for one in found:
        own = rest.get(one.name)
        rest[one.name] = {t: why for t, why in one.untaken.items() if own is None or t in own}
    return rest


def _has(model: Model, layer: str) -> bool:
    return any(means([layer], name, own) for name, own in names_in(model).items())


def _moved(
    found: Sequence[Part], sources: Sequence[_Source], there: Model, options: Options, live: bool
) -> tuple[list[tuple[Job, Moved]], dict[str, Array]]:
    """Every part carried out in memory and proved, in the target's dtypes.

    Raises:
        LayoutxError: guards that do not hold, missing consent, a proof that fails; of all sources together.
    """
    tensors = there.tensors if isinstance(there, Keyed) else there.store.tensors
    wanted = {t.name: t for t in tensors.values()}
    moved: list[tuple[Job, Moved]] = []
    arrays: dict[str, Array] = {}
    problems: list[LayoutxError] = []
    for one, source in zip(found, sources, strict=True):
        job = job_of_part(one, (source.known.framework, there.framework))
        try:
            done = move(job, options, live=live)
            arrays |= in_dtypes(dict(done.arrays), job, done, wanted, options)
            moved.append((job, done))
        except LayoutxError as error:
            problems.append(error)
    raise_all(problems, "the transfer cannot be done")
    return moved, arrays


def _result(
    found: Sequence[Part], moved: Sequence[tuple[Job, Moved]], sources: Sequence[_Source], there: Model,
    name: str, options: Options,
) -> Transfer:  # fmt: skip
    copied = []
    for one, (job, done) in zip(found, moved, strict=True):
        for pair, layer in zip(one.chosen, job.layers, strict=True):
            line = layer_line(layer, done, settled=False)
            copied.append(Copied(one.name, pair.source.name, place_of(pair), tuple(keys(pair.source.tensors)), line))
    return Transfer(
        sources=tuple(one.name for one in found),
        frameworks=tuple(source.known.framework for source in sources),
        target=name,
        framework=there.framework,
        copied=tuple(copied),
        kept=kept(found, _places(sources), there, options),
        untaken=_untaken(found),
        tied={key: first for key, first in written(found, there).items() if first},
    )


def _saved(
    result: Transfer,
    arrays: dict[str, Array],
    there: Model,
    options: Options,
    output: Any,
    unchanged: Callable[[], None],
    read: Iterable[Tensor],
) -> Transfer:
    """The target's file with the new numbers, written beside and renamed; the certificate is in it."""
    rest = {layer: "kept" for tensor, layer in names_in(there).items() if tensor in result.kept}
    tied = dict(result.tied)
    parts = parts_of(there)
    job = Job("", there.framework, (), skipped=rest, order=tuple(arrays), tied=tied, stacked=parts)
    chosen = replace(options, skip=("*",)) if result.kept else options
    whole = arrays_of(Moved(dict(arrays)), job, there, chosen)
    template = there.store if isinstance(there, ModelRecord) else None
    own = of_arrays(whole, read)
    save(output, whole, to_metadata({**result.certificate({}), **own}), template, unchanged)
    held = {name for name in result.kept if (parts[name].whole.name if name in parts else name) in whole}
    gone = {name: why for name, why in result.kept.items() if name not in held}
    still = {name: why for name, why in result.kept.items() if name in held}
    return replace(result, output=str(output), kept=still, dropped=gone)


def _in_place(target: Any, arrays: Mapping[str, Array]) -> None:
    """Write all or nothing, and read it back.

    Raises:
        VerificationError: a variable does not hold what was written; the target has its old numbers again.
    """
    slots = slots_of(target)
    missing = [name for name in arrays if name not in slots]
    raise_all([UsageError(f"the target has no variable {name}") for name in missing], "the target does not take them")
    old = {name: slots[name].read() for name in arrays}
    try:
        write(arrays, slots)
        for name, array in arrays.items():
            if slots[name].look().tobytes() != array.tobytes():
                raise VerificationError(f"{name} does not hold what was written into it")
    except BaseException:
        write(old, slots)
        raise
