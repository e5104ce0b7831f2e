"""Two moments of one model, or two models of one architecture: what moved between them, in named axes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

from layoutx.difference import Difference, LayerDifference
from layoutx.errors import LayoutxError, MatchError, UsageError
from layoutx.files.guarded import intact
from layoutx.files.store import Tensor
from layoutx.job.jobs import Options, covers, options_of
from layoutx.job.joined import Joined, Joint
from layoutx.job.joint import joint
from layoutx.match import check_said, place_of, seen
from layoutx.model.in_parts import computed
from layoutx.model.keyed import Keyed
from layoutx.model.mapfile import MapFile
from layoutx.model.parametrized import sites
from layoutx.model.record import ModelRecord
from layoutx.model.said import stacks_said
from layoutx.model.tree import name_of
from layoutx.spec.registry import registry
from layoutx.verify.change import TensorChange
from layoutx.verify.moved import Half, alike, moved, only_after
from layoutx.verify.still import FROZEN, NO_GRADIENT, layer_note, notes
from layoutx.words import near

Model = Keyed | ModelRecord


@intact()
def diff(
    before: Any,
    after: Any,
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
) -> Difference:
    """What moved between two models, tensor by tensor; nothing is run, and one tensor is read at a time.

    Args:
        before, after: files, live models or "package.module:callable", of the same framework or of two.
        map: a mapping file that `layoutx match` wrote.
        forms, pairs, skip, only, ignore_keys, keep_order, specs, values: as for `convert`.
        from_, to: whose names the files hold, where they are of bare tensors and do not say it.
        config, input_shape: as for `match`.

    Returns:
        The change of each tensor, `found["dense_1"]["kernel"]`: its largest number, its norm relative to the norm
        before, and which rows and units moved at all.

    Raises:
        MatchError: no tensor of the first has a counterpart in the second.
        LayoutxError: a file that cannot be read; options that name no layer.
    """
    started = time.perf_counter()
    known = registry(specs)
    options = options_of((), skip, only, forms, pairs, ignore_keys, keep_order, False, values, map)
    here = seen(before, known, options.forms, options.values, from_, config, input_shape)
    there = seen(after, known, {}, stacks_said(options.values), to, config, input_shape)
    check_said(config, input_shape, here, there)
    if _in_parts(here) != _in_parts(there):  # of two models of one kind the parts themselves are compared
        here, there = computed(here, options.skip), computed(there, options.skip)
    joined = joint(here, there, known, replace(options, only=(), skip=()))  # a part is compared in the light of all
    joined, left_out = _part(joined, options)
    frozen = _frozen(before) | _frozen(after)
    layers, unpaired = [], {}
    for pair in joined.pairs:
        try:
            layers.append(_layer(pair, frozen))
        except (LayoutxError, ValueError) as error:
            unpaired[pair.source.name] = error.what if isinstance(error, LayoutxError) else str(error)
    rest = _Rest(here, there, (*joined.pairs, *left_out), options)
    layers += [LayerDifference(t.name, t.there[0], ("", ""), (t,)) for t in rest.alike()]
    if not layers:
        raise MatchError(
            "no tensor of the first model has a counterpart in the second",
            where=[f"{name}: {why}" for name, why in list({**joined.lost, **unpaired}.items())[:8]],
            do="name the pairs with --pair LAYER=MODULE, or with a mapping file (layoutx match)",
        )
    unpaired |= {name: f"could be {', '.join(own[:4])}" for name, own in joined.open.items()}
    lone_before, lone_after = rest.alone(joined, layers, bool(options.only))
    done = {name for layer in layers for c in layer.tensors for name in (c.key, *c.terms)}
    held = [t.name for pair in joined.pairs if pair.source.name not in unpaired for t in pair.source.tensors.values()]
    lone_before |= {name: "its layer has no place for it" for name in held if name not in done}
    lone_after |= dict(x for pair in joined.pairs if pair.source.name not in unpaired for x in _extra(pair))
    return Difference(
        name_of(before), name_of(after), (here.framework, there.framework), tuple(layers), lone_before, lone_after,
        unpaired, joined.skipped, joined.leftover, time.perf_counter() - started,
    )  # fmt: skip


def _in_parts(model: Keyed | ModelRecord) -> bool:
    """Whether a model stores weights in parts (weight_norm)."""
    return isinstance(model, Keyed) and bool(sites(model))


def _part(joined: Joint, options: Options) -> tuple[Joint, tuple[Joined, ...]]:
    """What the user wants compared, and the pairs that are left out.

    Raises:
        UsageError: a pattern that means no layer.
    """
    names: dict[str, tuple[str, ...]] = {
        pair.source.name: (pair.source.name, pair.target.name) for pair in joined.pairs
    }
    names |= {name: (name,) for name in (*joined.lost, *joined.open)}
    for pattern in (*options.only, *options.skip):
        if not any(fnmatchcase(n, pattern) for own in names.values() for n in own):
            raise UsageError(f"no layer is called {pattern!r}", why=near(pattern, names, "the layers are"))

    def wanted(name: str) -> bool:
        own = names[name]
        skipped = any(fnmatchcase(n, p) for n in own for p in options.skip)
        return not skipped and (not options.only or any(fnmatchcase(n, p) for n in own for p in options.only))

    kept = tuple(pair for pair in joined.pairs if wanted(pair.source.name))
    lost = {n: why for n, why in joined.lost.items() if wanted(n)}
    open_ = {n: own for n, own in joined.open.items() if wanted(n)}
    skipped = {n: "left out by --skip or --only" for n in names if not wanted(n)}
    found = replace(joined, pairs=kept, lost=lost, open=open_, skipped={**joined.skipped, **skipped})
    return found, tuple(pair for pair in joined.pairs if not wanted(pair.source.name))


def _frozen(model: Any) -> set[str]:
    """Parameters of a live torch module that take no gradient."""
    named = getattr(model, "named_parameters", None)
    return {name for name, p in named() if getattr(p, "requires_grad", None) is False} if named is not None else set()


def _halves(pair: Joined) -> tuple[Half, Half]:
    here, there = pair.source, pair.target
    return Half(here.bound, here.tensors, here.refine, pair.record.pieces), Half(there.bound, there.tensors)


def _extra(pair: Joined) -> Iterator[tuple[str, str]]:
    yield from only_after(*_halves(pair))


def _layer(pair: Joined, frozen: set[str]) -> LayerDifference:
    changes = tuple(moved(*_halves(pair)))
    said = FROZEN if pair.record.config.get("trainable") is False else ""
    if not said and frozen and all({c.key, *c.there} & frozen for c in changes if not c.state):
        said = NO_GRADIENT
    note = layer_note(changes, said)
    activation = str(pair.source.bound.settings.get("activation", ""))
    own = {} if note else {c.name: tuple(notes(c, changes, activation)) for c in changes}
    forms = (pair.source.bound.form.name, pair.target.bound.form.name)
    return LayerDifference(pair.source.name, place_of(pair), forms, changes, note, own)


class _Rest:
    """What the pairs leave: tensors of one name and shape on both sides are compared all the same."""

    def __init__(self, here: Model, there: Model, pairs: Sequence[Joined], options: Options) -> None:
        taken = {t.name for pair in pairs for t in pair.source.tensors.values()}
        taken_there = {t.name for pair in pairs for t in pair.target.tensors.values()}
        self.here = {n: t for n, t in _tensors(here, options).items() if n not in taken}
        self.there = {n: t for n, t in _tensors(there, {}).items() if n not in taken_there}

    def alike(self) -> Iterator[TensorChange]:
        """Tensors that no layer explains, under the names of the files."""
        for name, tensor in self.here.items():
            other = self.there.get(name)
            if other is not None and other.shape == tensor.shape and tensor.dtype.kind not in "OSUV":
                yield alike(tensor, other)

    def alone(
        self, joined: Joint, layers: Sequence[LayerDifference], part: bool
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Tensors of one side only, with what is known of them; of the second only where all of it was wanted."""
        done = {layer.name for layer in layers}
        here = {n: joined.lost.get(n, "no counterpart") for n in self.here if n not in done}
        there = {n: joined.unused.get(n, "no counterpart") for n in self.there if n not in done and not part}
        return here, there


def _tensors(model: Model, options: Options | Mapping[str, Any]) -> dict[str, Tensor]:
    """All weights of a model by the names of its file; without what the user left out."""
    if isinstance(model, Keyed):
        found = {t.name: t for t in model.tensors.values()}
    else:
        found = {t.name: t for r in model.layers if _wanted(r.name, options) for t in r.tensors.values()}
    if isinstance(options, Options) and isinstance(model, Keyed):
        skip, only = options.skip, options.only
        found = {n: t for n, t in found.items() if not covers(skip, n) and (not only or covers(only, n))}
    return found


def _wanted(layer: str, options: Options | Mapping[str, Any]) -> bool:
    if not isinstance(options, Options):
        return True
    left_out = any(fnmatchcase(layer, p) for p in options.skip)
    return not left_out and (not options.only or any(fnmatchcase(layer, p) for p in options.only))


__all__ = ["Difference", "LayerDifference", "diff"]
