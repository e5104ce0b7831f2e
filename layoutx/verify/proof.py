"""What shows that one converted layer is right: the way back gives the same bits, and both sides compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, VerificationError
from layoutx.lang.parse import parse_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Dim, Product
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Drop, Exactness
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Reading, choose
from layoutx.verify.data import canonical_data, rearrange
from layoutx.verify.roles import as_float, roles

LARGE = 1 << 24  # elements; a larger layer is computed in float32
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
PROBE = {"batch": 2, "time": 5, "tq": 3, "tk": 5}


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured on one layer.

    Attributes:
        round_trip: "bit-exact", or why the way back is another.
        method: what computed the target's output: "torch 2.13.0", "NumPy reference"; "" where nothing could.
        largest: largest absolute difference of the outputs; None where nothing was computed.
        scale: largest absolute output.
        dtype: what was computed in.
        note: why something was not done.
    """

    round_trip: str
    method: str = ""
    largest: float | None = None
    scale: float = 0.0
    dtype: str = ""
    note: str = ""


def prove_layer(
    plan: Plan,
    source: Mapping[str, Array],
    target: Mapping[str, Array],
    exactness: Exactness,
    *,
    live: bool = True,
    last: Mapping[str, str] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
) -> Proof:
    """Check one layer.

    Args:
        source, target: the arrays on both sides.
        exactness: of the result, in the light of the values.
        live: run the target's own framework where it is installed.
        last: axis -> its dims in the order of the reference (channels last).
        refine: axis -> its dims on the target's side.

    Raises:
        VerificationError: the way back differs in a bit, or the outputs differ by more than rounding.
    """
    trip = round_trip(plan, source, target, exactness)
    try:
        return forward_proof(plan, source, target, trip, live=live, last=last, refine=refine)
    except VerificationError:
        raise
    except LayoutxError as error:
        return Proof(trip, note=f"not computed: {error.what}")


def round_trip(plan: Plan, source: Mapping[str, Array], target: Mapping[str, Array], exactness: Exactness) -> str:
    """Run the plan back and compare bits.

    Raises:
        VerificationError: a result that should be reversible is not.
    """
    if exactness is Exactness.ROUNDS:
        return "not reversible: rounded"
    dropped = {step.source for step in plan.steps if isinstance(step, Drop)}
    back = run_plan(plan.inverse(), target)
    for name, array in back.tensors.items():
        if name in dropped:
            continue
        given = np.ascontiguousarray(source[name])
        if back.tensors[name].dtype != given.dtype:
            return f"equal values, {given.dtype} became {next(iter(target.values())).dtype}"
        if array.tobytes() != given.tobytes():
            raise VerificationError(
                f"the way back does not give the same bits for {name}",
                where=f"{plan.source.form.name} to {plan.target.form.name}",
                do="this is a fault of layoutx: please report it",
            )
    return "bit-exact" if not dropped else f"bit-exact, without {', '.join(sorted(dropped))}"


def forward_proof(
    plan: Plan,
    source: Mapping[str, Array],
    target: Mapping[str, Array],
    trip: str,
    *,
    live: bool,
    last: Mapping[str, str],
    refine: Mapping[str, str],
) -> Proof:
    """Compute both sides on one probe and compare."""
    from layoutx.verify.forward import KINDS

    kind = plan.source.kind.name
    if kind not in KINDS:
        return Proof(trip, note=f"the kind {kind} has no NumPy reference")
    size = sum(int(np.prod(t.shape)) for t in plan.source.tensors)
    dtype = "float32" if size > LARGE else "float64"
    settings = _settings(plan.source)
    probe = probe_data(plan.source, settings, dtype, plan.target.form.rank, last)
    expected = _reference(plan.source, source, probe, settings, dtype, last)
    if not all(np.isfinite(y).all() for y in expected.values()):
        return Proof(trip, note="the weights hold NaN or infinity: outputs cannot be compared")
    found, method, dtype = _computed(plan.target, target, probe, settings, dtype, live, last, refine)
    largest, scale = 0.0, 0.0
    for name in expected.keys() & found.keys():
        if expected[name].shape != found[name].shape:
            raise VerificationError(f"{name} has shape {found[name].shape} after, {expected[name].shape} before")
        largest = max(largest, float(np.abs(expected[name] - found[name]).max(initial=0.0)))
        scale = max(scale, float(np.abs(expected[name]).max(initial=0.0)))
    if not largest <= TOLERANCE[dtype] * max(scale, 1.0):
        raise VerificationError(
            f"{plan.target.form.name} does not compute what {plan.source.form.name} does",
            where=f"largest difference {largest:.3g}, outputs up to {scale:.3g}, in {dtype} with {method}",
            do="this is a fault of a spec: please report it; --skip leaves the layer out",
        )
    return Proof(trip, method, largest, scale, dtype)


def _settings(bound: BoundForm) -> dict[str, Any]:
    """The settings that the layer's own computation needs; borders and strides are not what weights are about."""
    rank = _rank(bound)
    found = {name: value for name, value in bound.settings.items() if name in ("eps", "dilation") and value is not None}
    found.setdefault("eps", 1e-3)
    found["dilation"] = _each(found.get("dilation", 1), rank)
    return {**found, "strides": (1,) * rank, "padding": "valid", "output_padding": (0,) * rank}


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * max(rank, 1)
    values = values * rank if len(values) == 1 else values
    return tuple(int(v) for v in values)[:rank]


def _rank(bound: BoundForm) -> int:
    ranks = [rank for rank, names in bound.kind.spread.items() if all(name in bound.sizes for name in names)]
    return max(ranks, default=0)


def probe_data(
    bound: BoundForm, settings: Mapping[str, Any], dtype: str, rank: int | None = None, last: Mapping[str, str] = NOTHING
) -> dict[str, Array]:
    """Inputs in canonical order: every axis another length, no value zero, nothing symmetric.

    `rank` is the number of spatial axes where the kind itself leaves it open (the norms).
    """
    rng = np.random.default_rng(20261121)
    kernel = [bound.sizes[name] for name in bound.kind.spread.get(_rank(bound), ())]
    kind = bound.kind.name
    if kind == "prelu":
        spatial = [k if k > 1 else 3 + i for i, k in enumerate(kernel)]
    elif kind in ("batch_norm", "group_norm"):
        spatial = [3, 5, 7][: bound.form.rank or rank or 2]
    else:
        spatial = [(k - 1) * d + 2 + i for i, (k, d) in enumerate(zip(kernel, settings["dilation"], strict=False))]
    sizes = whole_sizes(bound, last)
    found = {}
    for name, dims in canonical_data(kind).items():
        if name in ("x", "query", "key", "value"):
            shape = _shape(dims, sizes, spatial)
            if kind == "embedding":
                found[name] = rng.integers(0, bound.sizes["vocab"], shape)
            else:
                found[name] = (rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)
    return found


def _shape(dims: Sequence[Dim], sizes: Mapping[str, int], spatial: Sequence[int]) -> tuple[int, ...]:
    from layoutx.lang.tree import Spread

    known = {**PROBE, **sizes}
    shape: list[int] = []
    for dim in dims:
        shape += list(spatial) if isinstance(dim, Spread) else [extent(dim, known)]
    return tuple(shape)


def _reference(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    probe: Mapping[str, Array],
    settings: Mapping[str, Any],
    dtype: str,
    last: Mapping[str, str],
) -> dict[str, Array]:
    from layoutx.verify.forward import forward

    return forward(bound.kind.name, as_float(roles(bound, tensors, last), dtype), probe, bound.facts, settings)


def _computed(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    probe: Mapping[str, Array],
    settings: Mapping[str, Any],
    dtype: str,
    live: bool,
    last: Mapping[str, str],
    refine: Mapping[str, str],
) -> tuple[dict[str, Array], str, str]:
    """The target's outputs in canonical order, what computed them, and in which precision."""
    if live:
        from layoutx.verify.live import available

        framework = "tf_keras" if bound.form.framework == "keras" and bound.config.get("version") == 2 else bound.form.framework
        version = available(framework) if framework in ("torch", "keras", "tf_keras", "onnx") else ""
        if version:
            try:
                outputs, dtype = run_live(bound, tensors, probe, settings, dtype, last, refine)
                return outputs, f"{framework} {version}", dtype
            except Exception as error:  # frameworks raise what they like: the layer is then proved without them
                why = f", since {framework} refused the probe ({' '.join(str(error).split())[:80]})"
                return _reference(bound, tensors, probe, settings, dtype, last), f"NumPy reference{why}", dtype
    return _reference(bound, tensors, probe, settings, dtype, last), "NumPy reference", dtype


def run_live(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    probe: Mapping[str, Array],
    settings: Mapping[str, Any],
    dtype: str,
    last: Mapping[str, str] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
) -> tuple[dict[str, Array], str]:
    """One layer in its real framework: canonical data in, canonical data out."""
    from layoutx.verify.live import run

    first, tensors = _first_instance(bound, tensors)
    config = live_config(first, settings, refine)
    if bound.form.framework == "onnx":
        from layoutx.verify.live.onnx_live import precision

        dtype = precision(bound.form.name, config, dtype)
    order = canonical_data(bound.kind.name)
    labels = {axis: names for axis, names in bound.labels.items()}
    data = {}
    for name, array in probe.items():
        data[name] = rearrange(
            array, order[name], bound.data[name], bound.sizes, labels=labels, refine_here=last, refine_there=refine
        )
    found = run(bound.form.name, config, tensors, data, dtype)
    outputs = {}
    for name, array in found.items():
        if name in order and name in bound.data:
            outputs[name] = rearrange(
                array, bound.data[name], order[name], bound.sizes, labels=labels, refine_here=refine, refine_there=last
            )
    return outputs, dtype


def _first_instance(bound: BoundForm, tensors: Mapping[str, Array]) -> tuple[BoundForm, dict[str, Array]]:
    """One layer of a stack as a stack of one: the same arrays under the names of instance 0."""
    ordered = {t.name: tensors[t.name] for t in bound.tensors}
    if not bound.form.each:
        return bound, ordered
    shapes = [t.shape for t in bound.tensors]
    first = bind(bound.kind, bound.form, bound.config, sizes=bound.sizes)
    if [t.shape for t in first.tensors] != shapes:
        return bound, ordered
    return first, {t.name: array for t, array in zip(first.tensors, ordered.values(), strict=True)}


def whole_sizes(bound: BoundForm, refine: Mapping[str, str]) -> dict[str, int]:
    """Sizes of all axes, refined ones too."""
    return {**bound.sizes, **{axis: extent(Product(parse_dims(text)), bound.sizes) for axis, text in refine.items()}}


def live_config(
    bound: BoundForm, settings: Mapping[str, Any], refine: Mapping[str, str] = NOTHING
) -> dict[str, Any]:
    """The constructor's keywords: the layer's config, its sizes, and the probe's settings in the framework's words."""
    sizes = whole_sizes(bound, refine)
    config = {k: v for k, v in bound.config.items() if k in bound.form.config and not k.startswith("_")}
    for key, dim in bound.form.sizes:
        dims = dim if isinstance(dim, tuple) else None
        if dims is not None:
            spatial = bound.kind.spread.get(_rank(bound), ())
            config[key] = [bound.sizes[name] for name in spatial]
        elif not isinstance(dim, tuple):
            config[key] = extent(Product((dim,)), sizes)
    for name, value in settings.items():
        reading = choose(bound.form.settings.get(name, ()), bound.config)
        if isinstance(reading, Reading):
            config[reading.config] = _worded(name, value, reading, bound)
    if bound.form.each:
        config["num_layers"] = 1
        config["input_size"] = sizes["input"]
    reading = choose(bound.form.settings.get("activation", ()), bound.config)
    if reading is not None and "activation" in config:
        config["activation"] = None if bound.form.framework == "keras" else config["activation"]
    return {k: v for k, v in config.items() if v is not None or k == "activation"}


def _worded(name: str, value: Any, reading: Reading, bound: BoundForm) -> Any:
    if name == "padding":
        return "valid" if bound.form.framework == "keras" else 0
    if reading.complement and isinstance(value, float):
        return 1.0 - value
    return list(value) if isinstance(value, tuple) else value
