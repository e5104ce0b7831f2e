"""Execution: raw bits moved by strided copies, into new arrays or given ones; inputs are never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from layoutx.errors import ConsentError, ConversionError, LayoutxError, VerificationError, raise_all
from layoutx.plan import strided
from layoutx.plan.blocks import memory, settle
from layoutx.plan.given import checked, dtype_of
from layoutx.plan.guards import guards_of
from layoutx.plan.plan import Array, Plan
from layoutx.plan.steps import Add, Copy, Exactness, Fill, Step
from layoutx.plan.sums import Sum, added, computed
from layoutx.plan.views import bits, view

Mover = Callable[[Array, Array], None]  # (to, of): raw bits of one shape and one width
_NO_SIGN = {
    "int2",
    "int4",
    "uint2",
    "uint4",
    "float8_e8m0fnu",
    *(f"float8_{x}fnuz" for x in ("e4m3", "e5m2", "e4m3b11")),
}


@dataclass(slots=True)
class Result:
    """What a run made, and what the values showed.

    Attributes:
        tensors: target name -> array.
        rounded: target name -> largest absolute rounding error of its sums of two or more non-zero numbers.
        guards: one line for each guard that held, because its values were what absence means.
        narrowed: target name -> (source dtype, target dtype) where a narrower type was asked for.
        derived: target name -> how its source was computed, where the file holds it in parts.
        lost: target name -> what a narrower type lost, in words.
    """

    tensors: dict[str, Array]
    rounded: dict[str, float] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)
    narrowed: dict[str, tuple[str, str]] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def exactness(self, plan: Plan, tensor: str | None = None) -> Exactness:
        """The class of the plan, or of one target tensor, in the light of the values."""
        known = plan.exactness if tensor is None else plan.exactness_of(tensor)
        lossy = (self.rounded, self.narrowed, self.derived)
        if any(lossy) if tensor is None else any(tensor in names for names in lossy):
            return Exactness.ROUNDS
        if known is Exactness.ROUNDS:  # every sum had one non-zero term at most: a copy, and zeros left out
            return Exactness.CONDITIONAL if tensor is None and self.guards else Exactness.FILLS
        return known


def run(
    plan: Plan,
    tensors: Mapping[str, Array],
    out: Mapping[str, Array] | None = None,
    *,
    plain: bool = False,
    jobs: int = 1,
) -> Result:
    """Run a plan.

    Args:
        tensors: source tensor name -> array (or array-like) of the planned shape, any strides, any numeric dtype.
        out: target tensor name -> array to write into (C-contiguous or not); its dtype is kept, and
            wider floats are filled exactly. None: new arrays of the source's dtype.
        plain: copy with np.copyto alone, the oracle of layoutx.plan.strided.
        jobs: threads for the copy of a large tensor.

    Raises:
        BindError: missing arrays, other shapes than planned, arrays that hold no numbers.
        ConversionError: guards that do not hold, sums that overflow (all of them together); dtypes without a
            common one. Nothing has been written then.
    """
    flat = {name: memory(plan.source.tensor(name), array) for name, array in checked(plan, tensors, out).items()}
    guards = guards_of(plan, flat)
    result = Result({}, guards=guards)
    mover: Mover = np.copyto if plain else partial(strided.copy, jobs=jobs)
    steps_of = {t.name: [s for s in plan.steps if getattr(s, "target", None) == t.name] for t in plan.target.tensors}
    dtypes = {t.name: dtype_of(steps_of[t.name], flat, t.dtype) for t in plan.target.tensors}
    sums = sums_of(plan.steps, flat, dtypes, plan.target.form.name)
    for tensor in plan.target.tensors:
        dtype = dtypes[tensor.name]
        given = out[tensor.name] if out is not None else None
        if given is not None and given.flags.c_contiguous and given.dtype == dtype:
            array = given
        else:
            array = np.empty(tensor.shape, dtype)
        write(array, steps_of[tensor.name], flat, sums, result, mover)
        settle(tensor, array)
        if given is not None and array is not given:
            _convert(array, given, tensor.name, result)
            array = given
        result.tensors[tensor.name] = array
    return result


def consent(plan: Plan, result: Result, allow: Iterable[str], layer: str = "") -> None:
    """Raise unless everything that is not bit-reversible was allowed.

    Raises:
        ConsentError: names the tensors and the largest rounding error.
    """
    if not (result.rounded or result.guards or result.narrowed):
        return
    allowed = set(allow)
    where = [f"layer {layer}"] if layer else []
    if result.rounded and "rounds" not in allowed:
        lines = [f"{name}: rounding error up to {error:.2g}" for name, error in result.rounded.items()]
        raise ConsentError(
            f"{plan.source.form.name} to {plan.target.form.name} adds stored numbers, which is not bit-reversible",
            where=where + lines,
            why=_why_rounded(plan),
            do="allow it with --allow rounds (allow={'rounds'} in Python)",
        )
    if result.guards and "conditional" not in allowed:
        raise ConsentError(
            f"{plan.source.form.name} to {plan.target.form.name} is exact only because of the values",
            where=where + result.guards,
            why="the target has no place for them",
            do="allow it with --allow conditional (allow={'conditional'} in Python)",
        )
    if result.narrowed and "rounds" not in allowed:
        lines = [f"{name}: {a} to {b}" for name, (a, b) in result.narrowed.items()]
        raise ConsentError("the target's dtype is narrower", where=where + lines, do="allow it with --allow rounds")


def _why_rounded(plan: Plan) -> str:
    steps = [step for step in plan.steps if isinstance(step, Add)]
    if all(step.constant == 0.0 and step.shifts_only for step in steps):
        return "the source stores two tensors whose sum is all that the target has a place for"
    maps = (plan.source.maps, plan.target.maps)
    names = sorted({".".join((role, *(label for _, label in labels))) for found in maps for role, labels in found})
    if not all(step.shifts_only for step in steps):
        return f"the two frameworks store {', '.join(names)} as different functions of the same numbers"
    return (
        f"one of the two frameworks changes {', '.join(names)} by a constant while it runs, the other stores the result"
    )


def write(
    array: Array,
    steps: Iterable[Step],
    flat: Mapping[str, Array],
    sums: Mapping[Add, Sum],
    result: Result,
    mover: Mover = strided.copy,
) -> None:
    """Carry out the copies, fills and sums of one target tensor, or of a piece of it.

    Args:
        array: C-contiguous; the steps' target offsets count its elements.
        flat: source tensor name -> flat array. sums: of `sums_of`. result: learns how far sums were rounded.
    """
    if array.size == 0:
        return
    target = array.reshape(-1)
    for step in steps:
        match step:
            case Copy():
                _copy(target, flat[step.source], step, mover)
            case Fill():
                view(target, step.target_offset, [(x.size, x.target) for x in step.loops])[...] = step.value
            case Add():
                summed = sums[step]
                view(target, step.target_offset, [(x.size, x.target) for x in step.loops])[...] = summed.values
                if summed.error is not None:
                    result.rounded[step.target] = max(summed.error, result.rounded.get(step.target, 0.0))
            case _:
                pass


def _copy(target: Array, source: Array, step: Copy, mover: Mover) -> None:
    if source.dtype != target.dtype:
        source = source.astype(target.dtype)  # a swap of bytes, or an exact widening (see _dtype)
    to = view(bits(target), step.target_offset, [(x.size, x.target) for x in step.loops])
    of = view(bits(source), step.source_offset, [(x.size, x.source) for x in step.loops])
    if step.negate and target.dtype.kind in "cg":  # two floats each; a float narrower than its bytes
        loops = [(x.size, x.target) for x in step.loops], [(x.size, x.source) for x in step.loops]
        np.negative(view(source, step.source_offset, loops[1]), out=view(target, step.target_offset, loops[0]))
    elif step.negate:
        _flip_sign(to, of, target.dtype, mover)
    else:
        mover(to, of)


def _flip_sign(to: Array, of: Array, dtype: np.dtype[Any], mover: Mover) -> None:
    if dtype.kind in "iub" or dtype.name in _NO_SIGN:
        raise ConversionError(f"values of dtype {dtype} are not stored negated")
    sign = np.array(1 << (8 * dtype.itemsize - 1), of.dtype)  # every float has its sign on top
    if mover is np.copyto or strided.is_plain(to, of):
        np.bitwise_xor(of, sign, out=to)
    else:
        mover(to, of)
        np.bitwise_xor(to, sign, out=to)


def sums_of(
    steps: Iterable[Step], flat: Mapping[str, Array], dtypes: Mapping[str, np.dtype[Any]], form: str
) -> dict[Add, Sum]:
    """All sums among steps, before anything is written: one that overflows leaves the destination alone.

    Raises:
        ConversionError: numbers that become infinite; all of them together.
    """
    found: dict[Add, Sum] = {}
    problems: list[LayoutxError] = []
    for step in steps:
        if not isinstance(step, Add):
            continue
        dtype = dtypes[step.target]
        lengths = [x.size for x in step.loops]
        terms = []
        for term in step.terms:
            source = flat[term.source].astype(dtype, copy=False)
            of = view(source, term.offset, list(zip(lengths, term.strides, strict=True)))
            terms.append(np.asarray(-of if term.negate else of))
        if step.shifts_only:
            terms = [np.asarray(-term) for term in terms] if step.negate else terms
            found[step] = added(terms, dtype, step.constant)
        else:
            found[step] = computed(terms, step, dtype)
        wrong = found[step].overflowed
        if wrong.any():
            at = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
            names = " + ".join(term.source for term in step.terms)
            what = f"sums are too large for {dtype}" if step.shifts_only else f"results are not finite in {dtype}"
            problems.append(
                ConversionError(
                    f"{form} {step.target}: {int(wrong.sum())} of {wrong.size} {what}",
                    where=f"{names}: the first at {at}: {' + '.join(str(term[at]) for term in terms)}",
                    why="finite numbers would become infinite or NaN",
                    do="store the source in a wider dtype first, as float32 or float64"
                    if step.shifts_only
                    else "look at these numbers: what stands for a root is never negative",
                )
            )
    raise_all(problems, "sums that are too large")
    return found


def _convert(array: Array, given: Array, name: str, result: Result) -> None:
    if array.dtype == given.dtype:
        np.copyto(
            bits(given) if given.flags.c_contiguous else given, bits(array) if given.flags.c_contiguous else array
        )
        return
    if not np.can_cast(array.dtype, given.dtype, "safe"):
        result.narrowed[name] = (str(array.dtype), str(given.dtype))
    given[...] = array.astype(given.dtype)
    if given.size and name not in result.narrowed and not np.array_equal(given, array, equal_nan=True):
        raise VerificationError(f"{name} changed while it was widened to {given.dtype}")
