"""The variants of a form: each config that it tells apart, with the tensors that a layer has under it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.lang.show import show, show_dims
from layoutx.lang.tree import Dim, Layout, Spread, Unit
from layoutx.spec.bind import UNKNOWN, tensor_names
from layoutx.spec.configs import conditions, structural
from layoutx.spec.draft import FIELD, Draft, drafts_of, labels_of, spatial_of, tensor_name
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.schema import Form, Kind, Others, choose

SOME = "some size"  # of a key such as proj_size: the shapes tell it, once it is not the one value excluded


@frozen
class Variant:
    """One config of a form, and what can be told of its tensors before there are shapes.

    Attributes:
        config: its values where they differ from the form's defaults.
        open: the same, with the sizes that shapes may tell left open.
        names: the names of its tensors, optional ones included, in the form's order.
        state: what sets a guess apart from another of the same form: layouts and facts.
        needed: names that a layer must have.
        ranks: name -> the number of its dimensions, and whether it has as many only, or at least so many.
    """

    config: Mapping[str, Any]
    open: Mapping[str, Any]
    names: tuple[str, ...]
    state: str
    needed: frozenset[str]
    ranks: Mapping[str, tuple[int, bool]]

    def may_hold(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether these are its tensors, each of the right number of dimensions: what binding refuses first."""
        if not self.needed <= shapes.keys() <= self.ranks.keys():
            return False
        for name, shape in shapes.items():
            least, exactly = self.ranks[name]
            if len(shape) < least or (exactly and len(shape) != least):
                return False
        return True


_names: Memo[frozenset[str]] = Memo()
_variants: Memo[tuple[Variant, ...]] = Memo()


def every_name(kind: Kind, form: Form) -> frozenset[str]:
    """All names that tensors of a form may have under any config."""
    return _names.get((kind, form), b"", lambda: frozenset(_every_name(kind, form)))


def _every_name(kind: Kind, form: Form) -> Iterator[str]:
    labels = {axis: {*known, *_only(form, axis)} for axis, known in kind.labels.items()}
    for spec in form.tensors:
        axes = [name for name in FIELD.findall(spec.name) if name in labels]
        for chosen in product(*(labels[axis] for axis in axes)):
            yield tensor_name(spec.name, form, dict(zip(axes, chosen, strict=True)), {form.each: 0})


def _only(form: Form, axis: str) -> Collection[str]:
    return [label for case in form.only.get(axis, ()) for label in case.value]


def variants(kind: Kind, form: Form, known: Mapping[str, Any]) -> tuple[Variant, ...]:
    """All variants of a form in which these config values are as given; the usual ones first.

    Args:
        known: config values that are certain; keys that the form does not have count nothing.
    """
    certain = {key: value for key, value in known.items() if key in form.config}
    return _variants.get((kind, form), key_of(certain), lambda: tuple(_variants_of(kind, form, certain)))


def _variants_of(kind: Kind, form: Form, certain: Mapping[str, Any]) -> Iterator[Variant]:
    usual_first = sorted(configs(form), key=lambda config: ("version" in config, len(config)))
    for config in usual_first:
        if any(config.get(key, value) != value for key, value in certain.items()):
            continue
        config = {**config, **certain}
        sized = {key: UNKNOWN for key, _ in form.sizes if key not in config and type(form.config.get(key)) is int}
        left = {**{key: value for key, value in sized.items() if form.config[key] not in (0, 1)}, **config}
        names = tensor_names(kind, form, config)
        try:
            drafts, needed = (
                _drafts(kind, form, {**form.config, **left}, omit) for omit in ((), every_name(kind, form))
            )
        except LayoutxError:
            continue  # what cannot be drafted is never bound
        ranks = {draft.name: _rank(draft.stored, kind, form) for draft in drafts}
        yield Variant(config, left, names, _state(form, config), frozenset(draft.name for draft in needed), ranks)


def _drafts(kind: Kind, form: Form, full: Mapping[str, Any], omit: Collection[str]) -> list[Draft]:
    return drafts_of(kind, form, full, labels_of(kind, form, full), NOTHING, None, omit)


def _rank(dims: Sequence[Dim], kind: Kind, form: Form) -> tuple[int, bool]:
    spatial = sum(isinstance(dim, Spread) or (isinstance(dim, Unit) and dim.spread) for dim in dims)
    if form.rank is None:
        return len(dims) - spatial, not spatial
    return len(dims) - spatial + spatial * len(spatial_of(kind, form.rank)), True


def _state(form: Form, config: Mapping[str, Any]) -> str:
    """What sets one guess apart from another of the same form: layouts and facts."""
    full = {**form.config, **config}
    own = [full.get(spec.dims_from) for spec in form.tensors if spec.dims_from]
    facts = {name: choose(cases, full) for name, cases in form.facts.items()}
    layouts = [show(layout) for spec in form.tensors if (layout := choose(spec.cases, full)) is not None]
    return repr((layouts, own, facts))


def configs(form: Form) -> Iterator[dict[str, Any]]:
    """The structural configs, and each again with sizes that its conditions exclude only one value of."""
    sized = {key for key, dim in form.sizes if not isinstance(dim, tuple)}
    keys = {key for _, when in conditions(form) for key, values in when.items() if isinstance(values, Others)} & sized
    for config in structural(form):
        yield config
        yield from ({**config, **turned} for turned in turnings(form))
        if keys and not keys & set(config):
            yield {**config, **dict.fromkeys(sorted(keys), SOME)}


def turnings(form: Form) -> Iterator[dict[str, str]]:
    """The other order in which a matrix may lie whose dims the layer's own config decides (an einsum's equation)."""
    for spec in form.tensors:
        layout = choose(spec.cases, form.config) if spec.dims_from else None
        if isinstance(layout, Layout) and len(layout.dims) == 2:
            yield {spec.dims_from: show_dims(layout.dims[::-1])}
