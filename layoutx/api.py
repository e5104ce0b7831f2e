"""A plan or a layer by hand, from names of forms alone: no model, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from layoutx.empty import NOTHING
from layoutx.spec.registry import Registry, registry

if TYPE_CHECKING:
    from layoutx.plan.plan import Array, Plan
    from layoutx.spec.bound import BoundForm


def plan(
    source: str,
    target: str,
    *,
    sizes: Mapping[str, int] = NOTHING,
    config: Mapping[str, Any] = NOTHING,
    target_config: Mapping[str, Any] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
    target_refine: Mapping[str, str] = NOTHING,
    instance: Mapping[str, Any] = NOTHING,
    specs: Sequence[str | PathLike[str]] = (),
) -> Plan:
    """The moves from one form to another, for a layer of the given sizes.

    Args:
        source, target: forms, "keras.LSTM" and "torch.LSTM".
        sizes: axis -> length; `layoutx specs show KIND` lists the axes.
        config: the source layer's config over the form's defaults.
        target_config: what is decided about the target; the rest is chosen so that it holds the source.
        refine, target_refine: axis -> dims that it is made of, `{"input": "(h w c)"}` and `{"input": "(c h w)"}`.
        instance: which instance of a stacked target form, `{"layer": 1}`.
        specs: more spec folders.

    Returns:
        A plan: call it with source arrays; `str()`, `.code()`, `.inverse()`, `.exactness`.

    Raises:
        UsageError: no such form.
        BindError, SizeError: config and sizes that do not describe a layer.
        ConversionError: the target cannot hold the source.
    """
    from layoutx.plan.fit import fit

    known = registry(specs)
    goal = known.form(target)
    given = _sizes(known, source, sizes, {**refine, **target_refine})
    _known_config(known, source, config)
    _known_config(known, target, target_config)
    bound = known.bind(source, config, sizes=given, refine=refine)
    if goal.kind != bound.kind.name:
        from layoutx.errors import ConversionError

        raise ConversionError(
            f"{source} and {target} compute different things",
            where=f"{source} is a {bound.kind.name}, {target} a {goal.kind}",
            do=f"`layoutx specs show {bound.kind.name}` lists the forms of {bound.kind.name}",
        )
    found = fit(bound, goal, target_config, refine=target_refine, instance=instance)
    _all_told(given, {**config, **target_config}, found)
    return found


def _all_told(sizes: Mapping[str, int], config: Mapping[str, Any], found: Plan) -> None:
    """Refuse the size of an axis that neither side's tensors, inputs and outputs have: it would change nothing."""
    from layoutx.errors import UsageError
    from layoutx.spec.expand import axis_names

    sides = (found.source, found.target)
    used = {name for side in sides for dims in side.data.values() for name in axis_names(dims)}
    used |= {name for side in sides for tensor in side.tensors for name in axis_names(tensor.layout.dims)}
    for name, size in sizes.items():
        if name not in used and size != 1:  # an axis of one is everywhere
            raise UsageError(
                f"neither {found.source.form.name} nor {found.target.form.name} has an axis {name!r} with this config",
                where=f"size {name}={size}; config {dict(config)}"[:300],
                do="leave the size out, or give the config that makes the layer have it",
            )


def _known_config(known: Registry, name: str, config: Mapping[str, Any]) -> None:
    """Refuse keys that the form does not read, and values that are no booleans where booleans are meant."""
    from layoutx.errors import BindError
    from layoutx.model.bindings import known_keys
    from layoutx.words import near

    form = known.form(name)
    read = known_keys(form, known)
    whole = not config.keys().isdisjoint(known.framework(form.framework).ignore)  # a layer's own, of any release
    for key, value in config.items():
        if key not in read and not (whole and (value is None or value is False)):
            do = f"`layoutx specs show {name}` lists the keys of the form"
            raise BindError(f"{name} has no config {key}={value!r}"[:200], why=near(key, sorted(read)), do=do)
    wrong = [
        f"{key}={value!r}"
        for key, value in config.items()
        if isinstance(form.config.get(key), bool) and not isinstance(value, (bool, int))
    ]
    if wrong:
        raise BindError(f"{name}: {', '.join(wrong)} is neither true nor false")


def _sizes(known: Registry, source: str, sizes: Mapping[str, int], refine: Mapping[str, str]) -> dict[str, int]:
    """The sizes, with axes that are no axes of the kind refused: a typing error would be silent otherwise."""
    from layoutx.errors import UsageError
    from layoutx.spec.expand import axis_names

    kind = known.kind_of(source)
    axes = {name for role in kind.roles.values() for name in axis_names(role.axes)} - set(kind.labels)
    axes |= {name for names in kind.spread.values() for name in names}
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise UsageError(f"the size of {name} is a whole number, not {size!r}", do=f"write sizes={{{name!r}: 7}}")
    wrong = [f"{name}={size}" for name, size in sizes.items() if size < 0]
    if wrong:
        raise UsageError(f"a size is at least 0: {', '.join(wrong)}")
    import difflib
    from operator import index

    from layoutx.lang.parse import parse_dims

    axes |= {name for text in refine.values() for name in axis_names(parse_dims(text))}
    for name in sizes:
        if name not in axes:
            near = difflib.get_close_matches(name, axes, n=1, cutoff=0.6)
            listed = ", ".join(sorted(axes))
            do = f"did you mean {near[0]}?" if near else ""
            raise UsageError(f"{kind.name} has no axis {name!r}", why=f"its axes: {listed}", do=do)
    return {name: index(size) for name, size in sizes.items()}


def forward(
    form: str,
    tensors: Mapping[str, Array],
    x: Array | Mapping[str, Array],
    config: Mapping[str, Any] = NOTHING,
    *,
    specs: Sequence[str | PathLike[str]] = (),
) -> Array:
    """What a layer computes with its whole config, by hand, in NumPy: its activation, padding and direction too.

    Args:
        form: "keras.Conv1D".
        tensors: the form's tensor names -> arrays as the framework stores them.
        x: the input in the framework's own order (`layoutx specs show KIND`): (batch, steps, features) of a Keras
            Conv1D, (batch, features, steps) of torch's; a dict where there are several, as `query`, `key`, `value`.
        config: the layer's config over the form's defaults.

    Returns:
        The output `y` in the framework's own order, in the dtype of the inputs; for a recurrent layer
        the whole sequence.

    Raises:
        UsageError: no such form or input. BindError, SizeError: arrays that do not fit the form.
    """
    import numpy as np

    from layoutx.plan.given import check_named
    from layoutx.verify.data import canonical_data
    from layoutx.verify.reference import canonically, forward_layer, natively

    known = registry(specs)
    check_named(tensors)
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    _known_config(known, form, config)
    bound = known.bind(form, config, shapes={name: array.shape for name, array in arrays.items()})
    order = canonical_data(bound.kind.name)
    given = x if isinstance(x, Mapping) else {"x" if "x" in order else next(iter(order), "x"): x}
    data = {name: np.asarray(array) for name, array in given.items()}
    _known(bound, [*data, "y"])
    return natively(bound, {"y": forward_layer(bound, arrays, canonically(bound, data))["y"]})["y"]


def _known(bound: BoundForm, names: Sequence[str]) -> None:
    from layoutx.errors import UsageError
    from layoutx.verify.data import canonical_data, data_order

    known = [name for name in data_order(bound) if name in canonical_data(bound.kind.name)]
    for name in names:
        if name not in known:
            what = f"{bound.form.name} has no data {name!r}"
            raise UsageError(what, why=f"it takes and gives {', '.join(known) or 'nothing'}")


def plan_dict(found: Plan) -> dict[str, Any]:
    """A plan as JSON: its tensors on both sides and every step with its loops."""
    from dataclasses import asdict

    from layoutx.plan.naming import dim_names

    def side(bound: BoundForm) -> dict[str, Any]:
        tensors = {t.name: {"shape": list(t.shape), "axes": dim_names(bound, t)} for t in bound.tensors}
        return {"form": bound.form.name, "tensors": tensors, "sizes": dict(bound.sizes)}

    steps = [{"step": type(step).__name__.lower(), **asdict(step)} for step in found.steps]
    exactness = {t.name: str(found.exactness_of(t.name)) for t in found.target.tensors}
    return {
        "exactness": str(found.exactness),
        "source": side(found.source),
        "target": {**side(found.target), "exactness": exactness},
        "steps": steps,
    }
