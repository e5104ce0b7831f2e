"""What shows that one converted layer is right: the way back gives the same bits, and both sides compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, VerificationError
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Drop, Exactness
from layoutx.spec.bound import BoundForm
from layoutx.verify.layer import run_live
from layoutx.verify.probe import probe_data, probe_settings
from layoutx.verify.roles import as_float, roles

LARGE = 1 << 24  # elements; a larger layer is computed in float32
ROUNDED = 16  # times the storage's epsilon: what one rounding of a stored number may do to an output of size 1
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


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
        slack = ROUNDED * _coarsest(target) if exactness is Exactness.ROUNDS else 0.0
        return forward_proof(plan, source, target, trip, live=live, last=last, refine=refine, slack=slack)
    except VerificationError:
        raise
    except LayoutxError as error:
        return Proof(trip, note=f"not computed: {error.what}")


def _coarsest(arrays: Mapping[str, Array]) -> float:
    """The largest machine epsilon among floating arrays."""
    import ml_dtypes

    return max((float(ml_dtypes.finfo(a.dtype).eps) for a in arrays.values() if a.dtype.kind not in "iub"), default=0.0)


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
            if plan.exactness >= Exactness.CONDITIONAL and _again(plan, back.tensors, target):
                return f"equal sums: {name} comes back in another split, or with another sign of zero"
            raise VerificationError(
                f"the way back does not give the same bits for {name}",
                where=f"{plan.source.form.name} to {plan.target.form.name}",
                do="this is a fault of layoutx: please report it",
            )
    return "bit-exact" if not dropped else f"bit-exact, without {', '.join(sorted(dropped))}"


def _again(plan: Plan, back: Mapping[str, Array], target: Mapping[str, Array]) -> bool:
    """Whether what came back gives the target's bits once more."""
    again = run_plan(plan, back).tensors
    return all(again[name].tobytes() == np.ascontiguousarray(array).tobytes() for name, array in target.items())


def forward_proof(
    plan: Plan,
    source: Mapping[str, Array],
    target: Mapping[str, Array],
    trip: str,
    *,
    live: bool,
    last: Mapping[str, str],
    refine: Mapping[str, str],
    slack: float = 0.0,
) -> Proof:
    """Compute both sides on one probe and compare; `slack`: what rounding the stored numbers may do to outputs."""
    from layoutx.verify.forward import KINDS

    kind = plan.source.kind.name
    if kind not in KINDS:
        return Proof(trip, note=f"the kind {kind} has no NumPy reference")
    size = sum(int(np.prod(t.shape)) for t in plan.source.tensors)
    dtype = "float32" if size > LARGE else "float64"
    settings = probe_settings(plan.source)
    probe = probe_data(plan.source, settings, dtype, plan.target.form.rank, last)
    expected = _reference(plan.source, source, probe, settings, dtype, last)
    if not all(np.isfinite(y).all() for y in expected.values()):
        return Proof(trip, note="the weights hold NaN or infinity: outputs cannot be compared")
    found, method, dtype = _computed(plan.target, target, probe, settings, dtype, live, last, refine)
    largest, scale = 0.0, 0.0
    for name in expected.keys() & found.keys():
        if expected[name].shape != found[name].shape:
            raise VerificationError(f"{name} has shape {found[name].shape} after, {expected[name].shape} before")
        largest = float(np.maximum(largest, np.abs(expected[name] - found[name]).max(initial=0.0)))  # keeps a NaN
        scale = max(scale, float(np.abs(expected[name]).max(initial=0.0)))
    if not largest <= max(TOLERANCE[dtype], slack) * max(scale, 1.0):
        raise VerificationError(
            f"{plan.target.form.name} does not compute what {plan.source.form.name} does",
            where=f"largest difference {largest:.3g}, outputs up to {scale:.3g}, in {dtype} with {method}",
            do="this is a fault of a spec: please report it; --skip leaves the layer out",
        )
    return Proof(trip, method, largest, scale, dtype)


def _reference(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    probe: Mapping[str, Array],
    settings: Mapping[str, Any],
    dtype: str,
    last: Mapping[str, str],
) -> dict[str, Array]:
    from layoutx.verify.forward import forward

    facts = dict(bound.facts)
    if bound.labels.get("direction") == ("backward",):  # onnx direction=reverse
        facts["direction"] = "backward"
    return forward(bound.kind.name, as_float(roles(bound, tensors, last), dtype), probe, facts, settings)


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

        framework = (
            "tf_keras" if bound.form.framework == "keras" and bound.config.get("version") == 2 else bound.form.framework
        )
        version = available(framework) if framework in ("torch", "keras", "tf_keras", "onnx") else ""
        if version:
            try:
                outputs, dtype = run_live(bound, tensors, probe, settings, dtype, last, refine)
                return outputs, f"{framework} {version}", dtype
            except Exception as error:  # frameworks raise what they like: the layer is then proved without them
                why = f", since {framework} refused the probe ({' '.join(str(error).split())[:80]})"
                return _reference(bound, tensors, probe, settings, dtype, last), f"NumPy reference{why}", dtype
    return _reference(bound, tensors, probe, settings, dtype, last), "NumPy reference", dtype
