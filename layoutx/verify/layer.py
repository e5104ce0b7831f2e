"""One layer as a spec describes it, run in its real framework: canonical data in, canonical data out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Product
from layoutx.model.alone import alone
from layoutx.plan.plan import Array
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import axis_names, expand
from layoutx.spec.schema import Reading, choose
from layoutx.verify.data import data_sizes, orders, rearrange, shaped, taken
from layoutx.verify.probe import spatial_rank, whole_sizes

STATED = ("batch_first", "version")  # the runners have their own defaults for these

VALID: Mapping[str, Any] = {"keras": "valid", "tf1": "valid", "onnx": None}  # no padding, by default the number 0

OWN = ("rank", "kernel_dims", "bias_dims")  # what only specs read: no keyword of a real layer


@alone()
def run_live(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    probe: Mapping[str, Array],
    settings: Mapping[str, Any],
    dtype: str,
    last: Mapping[str, str] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
    keywords: Mapping[str, Any] = NOTHING,
) -> tuple[dict[str, Array], str]:
    """Outputs of one layer in its real framework, and the precision that they were computed in.

    Args:
        tensors: form tensor name -> array.
        probe: inputs in canonical order; outputs come back in that order.
        settings: the probe's settings (strides, dilation, padding, eps) in canonical words.
        last, refine: axis -> its dims in canonical order, and on this layer's side.
        keywords: of the constructor, over those that follow from the layer and the settings.
    """
    from layoutx.verify.live import precision, run

    first, tensors = _first_instance(bound, tensors, refine)
    config = {**live_config(first, settings, refine), **keywords}
    dtype = precision(bound.form.runs, config, dtype)
    order, native = orders(bound)
    labels, sizes = dict(bound.labels), data_sizes(bound)
    data = {}
    for name, array in probe.items():
        given = taken(bound, name, array) if bound.form.of else array
        data[name] = rearrange(
            given, order[name], native[name], sizes, labels=labels, refine_here=last, refine_there=refine
        )
    found = run(bound.form.runs, config, tensors, data, dtype)
    outputs = {}
    for name, array in found.items():
        if name in order and name in native:
            outputs[name] = rearrange(
                array, native[name], order[name], sizes, labels=labels, refine_here=refine, refine_there=last
            )
    return shaped(outputs, probe["x"].shape[:-1]) if bound.form.of else outputs, dtype


def _first_instance(
    bound: BoundForm, tensors: Mapping[str, Array], refine: Mapping[str, str]
) -> tuple[BoundForm, dict[str, Array]]:
    """One layer of a stack as a stack of one: the same arrays under the names of instance 0."""
    ordered = {t.name: tensors[t.name] for t in bound.tensors}
    if not bound.form.each:
        return bound, ordered
    shapes = [t.shape for t in bound.tensors]
    first = bind(bound.kind, bound.form, bound.config, sizes=bound.sizes, refine=refine)
    if [t.shape for t in first.tensors] != shapes:
        return bound, ordered
    return first, {t.name: array for t, array in zip(first.tensors, ordered.values(), strict=True)}


def live_config(bound: BoundForm, settings: Mapping[str, Any], refine: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """The constructor's keywords: the layer's config, its sizes, and the probe's settings in the framework's words."""
    sizes = whole_sizes(bound, refine)
    defaults = bound.form.config
    config = {
        key: value
        for key, value in bound.config.items()
        if key in defaults and not key.startswith("_") and key not in OWN and (value != defaults[key] or key in STATED)
    }
    spatial = bound.kind.spread.get(spatial_rank(bound), ())
    for key, dim in bound.form.sizes:
        dims = expand(dim if isinstance(dim, tuple) else (dim,), spatial, {}, {}, {})
        if isinstance(bound.config.get(key), str) or not axis_names(dims) <= set(sizes):
            continue  # equinox in_features="scalar"; a size that none of the tensors has
        config[key] = [extent(d, sizes) for d in dims] if isinstance(dim, tuple) else extent(Product(dims), sizes)
    for name, value in settings.items():
        reading = choose(bound.form.settings.get(name, ()), bound.config)
        if isinstance(reading, Reading):
            config[reading.config] = _worded(name, value, reading, bound)
    if "reset_after" in defaults:  # left out it means one thing in an old config, another to the constructor
        config["reset_after"] = bound.facts["reset"] == "after"
    if "shared_axes" in defaults:  # a slope of length one along an axis of the data is a shared one
        config["shared_axes"] = [i + 1 for i, name in enumerate((*spatial, "channel")) if bound.sizes[name] == 1]
    if bound.form.each:
        config["num_layers"] = 1
        config["input_size"] = sizes["input"]
    reading = choose(bound.form.settings.get("activation", ()), bound.config)
    if reading is not None and "activation" in config:
        config["activation"] = None if bound.form.framework == "keras" else config["activation"]
    return {k: v for k, v in config.items() if v is not None or (k == "activation" and reading is not None)}


def _worded(name: str, value: Any, reading: Reading, bound: BoundForm) -> Any:
    """A canonical value in the framework's words; also of a usual default, which may be another here."""
    value = list(value) if isinstance(value, tuple) else value
    spelled = [word for word, meaning in reading.values.items() if type(meaning) is type(value) and meaning == value]
    if spelled:
        return None if spelled[0] == "None" else spelled[0]
    if name == "padding" and value == "valid":
        return VALID.get(bound.form.framework, 0)
    if reading.complement and isinstance(value, float):
        return 1.0 - value
    return value
