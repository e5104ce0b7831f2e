"""What shows that one converted layer is right: the way back gives the same bits, and both sides compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, VerificationError
from layoutx.lang.tree import Axis, Spread
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Drop, Exactness
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import holds
from layoutx.verify.layer import run_live
from layoutx.verify.outcome import Proof
from layoutx.verify.probe import probe_data, probe_settings, spatial_rank
from layoutx.verify.reference import forward_layer, span
from layoutx.verify.roles import roles

LARGE = 1 << 24  # elements; a larger layer is computed in float32
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
LEAST = 1e-26  # below it frameworks flush to zero


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
        VerificationError: the way back differs in a bit, a sum is not rounded once, or the outputs differ.
    """
    trip = round_trip(plan, source, target, exactness)
    rounds = exactness is Exactness.ROUNDS
    try:
        if rounds:
            _rounded_once(plan, roles(plan.source, source, last), roles(plan.target, target, last))
        return forward_proof(plan, source, target, trip, live=live, last=last, refine=refine, rounds=rounds)
    except VerificationError:
        raise
    except LayoutxError as error:
        return Proof(trip, note=f"not computed: {error.what}")
    except (TypeError, ValueError, ArithmeticError) as error:  # a damaged config has texts where numbers belong
        raise VerificationError(
            f"the outputs of {plan.source.form.name} cannot be computed",
            where=", ".join(f"{key}={value!r}" for key, value in plan.source.config.items())[:300],
            why=f"{type(error).__name__}: {error}"[:200],
            do="correct its config, or convert without computing outputs: --verify bytes",
        ) from error


def _rounded_once(plan: Plan, before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
    """Check roles: all hold the same values, but where only a sum counts, which is the exact sum rounded once.

    Raises:
        VerificationError: another value, or a sum further away than one rounding.
    """
    for name in before.keys() & after.keys():
        if plan.source.kind.roles[name].drop:  # leaving it out is harmless, and may be what was done
            continue
        apart, room = _difference(plan.source, name, before, after)
        if _powered(plan, name):  # a root that is rounded, and the square of it
            room = room + 4 * np.abs(before[name]) * max(_eps(before[name]), _eps(after[name]))
        if added := _added(plan, name):  # what is stored is as large as this, and is rounded there
            room = room + 2 * (np.abs(before[name]) + added) * max(_eps(before[name]), _eps(after[name]))
        wrong = ~(apart <= room)
        if wrong.any():
            raise VerificationError(
                f"{name} is not what {plan.source.form.name} holds",
                where=f"{int(wrong.sum())} of {wrong.size} values are further away than one rounding",
                do="this is a fault of layoutx: please report it",
            )


def _powered(plan: Plan, role: str) -> bool:
    """Whether one side stores a root of what the other stores."""
    maps = [*plan.source.maps.items(), *plan.target.maps.items()]
    return any(m.power != 1 for (name, _), m in maps if name == role)


def _added(plan: Plan, role: str) -> float:
    """The largest constant that one side adds to what it stores, where the other adds another one.

    Of roles of which only the sum counts the constant of any is one of all.
    """
    sums = (g.roles for g in plan.source.kind.gauge if role in g.roles and holds(g.when, plan.source.facts))
    own = {role, *(name for roles in sums for name in roles)}
    here, there = ({m.add for (name, _), m in side.maps.items() if name in own} or {0.0}
                   for side in (plan.source, plan.target))  # fmt: skip
    return max(map(abs, here | there)) if here != there else 0.0


def _eps(array: Array) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(array.dtype).eps)


def _difference(
    bound: BoundForm, name: str, before: Mapping[str, Array], after: Mapping[str, Array]
) -> tuple[Array, Array]:
    """How far a role's values are from the source's, and how far they may be; sums where only these count."""
    import ml_dtypes

    exact, stored = before[name].astype(np.float64), after[name].astype(np.float64)
    room = np.zeros(exact.shape)
    for gauge in bound.kind.gauge:
        own = [role for role in gauge.roles if role in before and role in after]
        if name not in own or not holds(gauge.when, bound.facts):
            continue
        here = _labelled(bound, name, gauge.labels)
        numbers = [ml_dtypes.finfo(after[role].dtype) for role in own]
        with np.errstate(invalid="ignore"):  # infinite weights
            total = np.asarray(sum(before[role].astype(np.float64) for role in own))
            exact = np.where(here, total, exact)
            stored = np.where(here, np.asarray(sum(after[role].astype(np.float64) for role in own)), stored)
        step = max(float(number.eps) for number in numbers), max(float(n.smallest_subnormal) for n in numbers)
        room = np.where(here, step[0] * np.abs(total) + step[1], room)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(stored - exact), nan=np.inf, posinf=np.inf)
    return np.where((exact == stored) | np.isnan(exact), 0.0, apart), room


def _labelled(bound: BoundForm, role: str, labels: Mapping[str, Sequence[str]]) -> Array:
    """Where a role's array has these labels on its enumerated axes; broadcasts against it."""
    axes = [dim.name if isinstance(dim, Axis) else "" for dim in bound.kind.roles[role].axes]
    here = np.ones((1,) * len(axes), bool)
    for axis, allowed in labels.items():
        shape = [-1 if name == axis else 1 for name in axes]
        here = here & np.array([label in allowed for label in bound.labels[axis]]).reshape(shape)
    return here


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
    rounds: bool = False,
) -> Proof:
    """Compute both sides on one probe and compare.

    rounds: the target holds rounded sums: its own framework is then held to what the reference makes of these,
    and how far that is from the source is told, not judged.

    Raises:
        VerificationError: the outputs differ, or have no name in common.
    """
    from layoutx.verify.forward import KINDS

    kind = plan.source.kind.name
    if kind not in KINDS:
        return Proof(trip, note=f"the kind {kind} has no NumPy reference")
    size = sum(int(np.prod(t.shape)) for t in plan.source.tensors)
    dtype = "float32" if size > LARGE else "float64"
    settings = probe_settings(plan.source, plan.target)
    probe = probe_data(plan.source, settings, dtype, _rank(plan), last)
    expected = forward_layer(plan.source, source, probe, last, settings=settings, dtype=dtype)
    if not all(np.isfinite(y).all() for y in expected.values()):
        return Proof(trip, note="the weights hold NaN or infinity: outputs cannot be compared")
    found, method, dtype = _computed(plan.target, target, probe, settings, dtype, live, last, refine)
    largest, scale = _apart(expected, found)
    held = forward_layer(plan.target, target, probe, last, settings=settings, dtype=dtype) if rounds else expected
    judged, height = _apart(held, found)
    if not judged <= TOLERANCE[dtype] * max(height, span(target), LEAST):
        raise VerificationError(
            f"{plan.target.form.name} does not compute what {plan.source.form.name} does",
            where=f"largest difference {judged:.3g}, outputs up to {height:.3g}, in {dtype} with {method}",
            do="this is a fault of a spec: please report it; --skip leaves the layer out",
        )
    return Proof(trip, method, largest, scale, dtype)


def _rank(plan: Plan) -> int | None:
    """Spatial axes of a probe where the weights leave them open: none, where one side takes features only."""
    for side in (plan.source, plan.target):
        if "x" in side.data and not any(isinstance(dim, Spread) for dim in side.data["x"]):
            return 0
    if "rank" in plan.target.form.config:  # the weights of haiku's norms have a dimension for each spatial axis
        return int(plan.target.config.get("rank") or spatial_rank(plan.target))
    return plan.target.form.rank


def _apart(expected: Mapping[str, Array], found: Mapping[str, Array]) -> tuple[float, float]:
    """The largest difference of outputs of the same name, and the largest of those expected.

    Raises:
        VerificationError: there is nothing to compare, or another shape.
    """
    common = [name for name in expected if name in found]
    if not common:
        what = f"the source computes {', '.join(expected)}, the target {', '.join(found) or 'nothing'}"
        raise VerificationError("there is no output to compare", where=what)
    largest = scale = 0.0
    for name in common:
        if expected[name].shape != found[name].shape:
            raise VerificationError(f"{name} has shape {found[name].shape} after, {expected[name].shape} before")
        largest = float(np.maximum(largest, np.abs(expected[name] - found[name]).max(initial=0.0)))  # keeps a NaN
        scale = max(scale, float(np.abs(expected[name]).max(initial=0.0)))
    return largest, scale


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
        framework, version = _runner(bound)
        if version:
            try:
                outputs, dtype = run_live(bound, tensors, probe, settings, dtype, last, refine)
                return outputs, f"{framework} {version}", dtype
            except Exception as error:  # frameworks raise what they like: the layer is then proved without them
                why = f", since {framework} refused the probe ({' '.join(str(error).split())[:80]})"
                reference = forward_layer(bound, tensors, probe, last, settings=settings, dtype=dtype)
                return reference, f"NumPy reference{why}", dtype
    return forward_layer(bound, tensors, probe, last, settings=settings, dtype=dtype), "NumPy reference", dtype


def _runner(bound: BoundForm) -> tuple[str, str]:
    """The installed framework that computes a form, and its version, "" where none does; nothing is imported."""
    from layoutx.verify.live import RUNNERS, available

    own = bound.form.framework
    framework = "tf_keras" if own == "keras" and bound.config.get("version") == 2 else own
    return framework, available(framework) if own in RUNNERS else ""
