"""Two weight files of one model: for each tensor the exact relation between them, from the numbers alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.job.jobs import Options, bound_layers, options_of
from layoutx.job.joined import Joined, Joint
from layoutx.job.joint import joint, records_of
from layoutx.lang.show import show
from layoutx.match import check_said, seen
from layoutx.model.in_parts import settled
from layoutx.model.keyed import Keyed
from layoutx.model.mapfile import MapFile
from layoutx.model.record import UNTRAINED, ModelRecord
from layoutx.model.tree import name_of
from layoutx.progress import Progress, steps
from layoutx.show.progress import reported
from layoutx.spec.registry import Registry, registry
from layoutx.verify.relate.folded import Norm
from layoutx.verify.relate.loose import LooseRelation, loose
from layoutx.verify.relate.numbers import numbers_of
from layoutx.verify.relate.related import related
from layoutx.verify.relate.relation import ELSEWHERE, INITIAL, OTHER, TensorRelation
from layoutx.verify.relate.whole import LayerRelation, Whole

Model = Keyed | ModelRecord
IN_FIRST = " is folded into it in the first file"


@frozen
class Relation(Whole):
    """What `relate` found; see `layoutx.verify.relate.whole.Whole` for its parts."""

    def text(self, width: int = 99, color: bool = False) -> str:
        """As a terminal shows it."""
        from layoutx.show.relation_text import relation_text

        return relation_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


@reported
def relate(
    a: Any,
    b: Any,
    *,
    map: str | PathLike[str] | MapFile | None = None,
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    specs: Sequence[str | PathLike[str]] = (),
    from_: str = "",
    to: str = "",
    config: Any = None,
    input_shape: Sequence[int] | None = None,
    values: Mapping[str, Any] | None = None,
    progress: bool | Progress | None = None,
) -> Relation:
    """Find how each tensor of `b` was made from `a`, without running either.

    Args:
        a, b: weight files, live models, or "package.module:callable"; `a` is taken to be right.
        map: a mapping file that `layoutx match` wrote.
        forms, pairs, skip, only, ignore_keys, keep_order, specs, values: as for `convert`.
        from_, to: whose names the files hold, where they are of bare tensors and do not say it.
        config, input_shape: as for `match`.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Returns:
        One relation for each tensor of `b`: the layout that its writer used, what was done to the numbers, and
        whether that makes every one of them bit for bit.

    Raises:
        LayoutxError: a file that cannot be read; options that name no layer.
    """
    started = time.perf_counter()
    known = registry(specs)
    options = options_of((), skip, only, forms, pairs, ignore_keys, keep_order, False, values, map)
    said = (config, input_shape)
    here = _opened(a, known, options, from_, options.forms, *said)
    there = _opened(b, known, options, to, {}, *said)
    check_said(*said, here, there)
    joined = joint(here, there, known, options)
    norms = [*_norms(here, known, options), *(replace(n, there=True) for n in _norms(there, known, options))]
    layers = tuple(_layer(pair, norms) for pair in steps(joined.pairs, lambda one: f"relating {one.source.name}"))
    found = Relation(name_of(a), name_of(b), layers, lost=joined.lost, open=joined.open)
    found = _with_loose(found, joined, here, there)
    return replace(found, seconds=time.perf_counter() - started)


def _opened(
    given: Any,
    known: Registry,
    options: Options,
    framework: str,
    forms: Mapping[str, str],
    config: Any,
    input_shape: Sequence[int] | None,
) -> Model:
    """A model to relate; weights that are stored in parts (weight_norm) computed."""
    found = seen(given, known, forms, options.values, framework, config, input_shape)
    return settled(found, True, options.skip) if isinstance(found, Keyed) else found


def _layer(pair: Joined, norms: Sequence[Norm]) -> LayerRelation:
    """The relations of one pair of layers."""
    here, there = pair.source, pair.target
    weights = {name: tensor.read() for name, tensor in here.tensors.items()}
    stored = {name: tensor.read() for name, tensor in there.tensors.items()}
    found = tuple(related(here.bound, weights, there.bound, stored, plan=pair.plan, norms=norms))
    names = {name: tensor.name for name, tensor in there.tensors.items()}
    problem = "" if pair.problem is None else " ".join(f"{pair.problem.what}: {pair.problem.why}".rstrip(": ").split())
    right = {} if pair.plan is None else {r.name: _right(r, pair) for r in found if not r.fine}
    return LayerRelation(
        here.name, there.name, here.bound.form.name, there.bound.form.name, pair.reason, found, names,
        tuple(_summary(found)), right, problem,
    )  # fmt: skip


def _right(relation: TensorRelation, pair: Joined) -> str:
    """What the right conversion of a tensor moves: "kernel: input output to kernel: output input"."""
    wanted = {(block.role, block.labels) for block in pair.target.bound.tensor(relation.name).blocks}
    origins = [t for t in pair.source.bound.tensors if any((b.role, b.labels) in wanted for b in t.blocks)]
    return f"{', '.join(show(tensor.layout) for tensor in origins) or 'nothing'} to {relation.reads}"


def _summary(found: Sequence[TensorRelation]) -> Iterator[str]:
    """What all changed tensors of a layer have in common: the label order that its writer had in mind."""
    orders: dict[str, set[tuple[str, ...]]] = {}
    wrong = [relation for relation in found if not relation.fine and relation.labels]
    for relation in wrong:
        for axis, order in relation.labels.items():
            if any(word.startswith(f"its {axis} order is") for word in relation.words):
                orders.setdefault(axis, set()).add(order)
    for axis, own in orders.items():
        if len(own) == 1:
            yield f"written as if the {axis} order were {' '.join(next(iter(own)))}"


def _norms(model: Model, known: Registry, options: Options) -> Iterator[Norm]:
    """The batch norms of the source: what a converter may have folded into the layer before."""
    records = [r for r in records_of(model, known, options).layers if r.form and r.tensors]
    own = [r for r in records if known.kind_of(r.form).name == "batch_norm"]
    for record, bound in bound_layers(own, known, options)[0]:
        found = numbers_of(bound, {name: tensor.read() for name, tensor in record.tensors.items()})
        parts = {role: numbers.array for (role, _), numbers in found.items()}
        if "mean" not in parts or "variance" not in parts:
            continue
        eps = bound.settings.get("eps")
        yield Norm(
            record.name,
            parts.get("gamma", parts["mean"] * 0 + 1),
            parts.get("beta", parts["mean"] * 0),
            parts["mean"],
            parts["variance"],
            float(eps) if isinstance(eps, (int, float)) else None,
        )


def _tensors(model: Model) -> dict[str, Tensor]:
    if isinstance(model, Keyed):
        return {tensor.name: tensor for tensor in (*model.tensors.values(), *model.kept.values())}
    return {tensor.name: tensor for layer in model.layers for tensor in layer.tensors.values()} | _untrained(model)


def _untrained(model: Model) -> dict[str, Tensor]:
    """Counts, masks and the like, which no layer has: they may differ all the same."""
    if isinstance(model, Keyed):
        return {tensor.name: tensor for tensor in model.kept.values()}
    stored = {tensor.name: tensor for tensor in model.store.tensors.values()}
    return {name: stored[name] for name, why in model.leftover.items() if why.endswith(UNTRAINED) and name in stored}


def _homes(model: Model) -> dict[str, str]:
    """Tensor's name -> layer and tensor as people say it, "fc2 kernel"."""
    layers = model.layers if isinstance(model, ModelRecord) else ()
    return {t.name: f"{layer.name} {name}" for layer in layers for name, t in layer.tensors.items()}


def _elsewhere(layer: LayerRelation, alone: Sequence[LooseRelation]) -> LayerRelation:
    """A layer whose tensors hold numbers of others: said at the tensor itself."""
    own = {one.name: one for one in alone if one.pair}
    tensors = []
    for tensor in layer.tensors:
        one = own.get(layer.names[tensor.name])
        if one is not None:
            words = (f"it holds the numbers of {one.source}", *one.words)
            left = 0.0 if not one.wrong else tensor.residual
            tensor = replace(tensor, status=ELSEWHERE, words=words, residual=left, wrong=one.wrong)
        tensors.append(tensor)
    return replace(layer, tensors=tuple(tensors))


def _accounted(joined: Joint, found: Relation, here: Model, sources: set[str]) -> dict[str, str]:
    """Layers without a counterpart, but those whose tensors were found one by one; folded ones are told so."""
    if isinstance(here, Keyed):
        own = {name: [name] if name in here.tensors else list(here.under(name).values()) for name in joined.lost}
        tensors = {name: {here.tensors[full].name for full in full_names} for name, full_names in own.items()}
    else:
        tensors = {layer.name: {t.name for t in layer.tensors.values()} for layer in here.layers}
    lost = {name: why for name, why in joined.lost.items() if not tensors.get(name) or tensors[name] - sources}
    for layer in found.layers:
        words = [word for tensor in layer.tensors for word in tensor.words]
        for name in lost:
            if any(word.startswith(f"batch norm {name} is folded in") for word in words):
                lost[name] = f"folded into {layer.name}"
    return lost


def _undone(found: Relation, there: Model) -> dict[str, str]:
    """Tensors of norms of the target that the source has folded into a layer -> that it has."""
    told: dict[str, str] = {}
    for layer in found.layers:
        for words in (word for tensor in layer.tensors for word in tensor.words if IN_FIRST in word):
            told[words.removeprefix("batch norm ").partition(IN_FIRST)[0]] = layer.name
    tensors = {t.name: name for name, t in there.tensors.items()} if isinstance(there, Keyed) else {}
    if isinstance(there, ModelRecord):
        tensors = {t.name: f"{layer.name}." for layer in there.layers for t in layer.tensors.values()}
    return {
        name: f"{into} of the first file has {norm} folded in"
        for name, full in tensors.items()
        for norm, into in told.items()
        if full.startswith(f"{norm}.")
    }


def _with_loose(found: Relation, joined: Joint, here: Model, there: Model) -> Relation:
    """What the layers leave unexplained, tensor against tensor: numbers of another layer, tensors without one."""
    theirs = _tensors(there)
    ours = _tensors(here)
    homes = _homes(here)
    read_as = {
        layer.names[t.name]: f"{layer.name} {t.name}"
        for layer in found.layers
        for t in layer.tensors
        if t.status in (OTHER, INITIAL)
    }
    untrained = _untrained(there)
    no_weight = {name: why for name, why in there.leftover.items() if name not in untrained or name not in ours}
    spare = {name: why for name, why in joined.unused.items() if name not in no_weight}
    wanted = [
        name for name in dict.fromkeys((*read_as, *spare, *untrained)) if name in theirs and name not in no_weight
    ]
    alone = [replace(one, pair=read_as.get(one.name, "")) for one in loose(ours, {n: theirs[n] for n in wanted})]
    alone = [one for one in alone if not one.pair or one.source != one.name]  # its layer said more of these
    explained = {one.name for one in alone}
    lost = _accounted(joined, found, here, {one.source for one in alone})
    alone = [one if one.name == one.source else replace(one, source=homes.get(one.source, one.source)) for one in alone]
    undone = _undone(found, there)
    extra = {name: why for name, why in spare.items() if name not in explained and name not in undone}
    no_weight = {**no_weight, **undone}
    found = replace(found, layers=tuple(_elsewhere(layer, alone) for layer in found.layers))
    return replace(found, loose=tuple(alone), lost=lost, extra=extra, leftover={**joined.leftover, **no_weight})


__all__ = ["LayerRelation", "LooseRelation", "Relation", "relate"]
