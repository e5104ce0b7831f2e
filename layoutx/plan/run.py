"""Execution: raw bits moved by strided copies, into new arrays or given ones; inputs are never touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layoutx.errors import BindError, ConsentError, ConversionError, LayoutxError, VerificationError, raise_all
from layoutx.plan.plan import Array, Plan
from layoutx.plan.steps import Add, Copy, Exactness, Fill, Guard, Step

_NO_SIGN = {
    "int2",
    "int4",
    "uint2",
    "uint4",
    "float8_e8m0fnu",
    *(f"float8_{x}fnuz" for x in ("e4m3", "e5m2", "e4m3b11")),
}
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass
class Result:
    """What a run made, and what the values showed.

    Attributes:
        tensors: target name -> array.
        rounded: target name -> largest absolute rounding error of its sums of two or more non-zero numbers.
        guards: one line for each guard that held, because its values were what absence means.
        narrowed: target name -> (source dtype, target dtype) where a narrower type was asked for.
    """

    tensors: dict[str, Array]
    rounded: dict[str, float] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)
    narrowed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def exactness(self, plan: Plan, tensor: str | None = None) -> Exactness:
        """The class of the plan, or of one target tensor, in the light of the values."""
        known = plan.exactness if tensor is None else plan.exactness_of(tensor)
        lossy = self.rounded or self.narrowed if tensor is None else tensor in self.rounded or tensor in self.narrowed
        if lossy:
            return Exactness.ROUNDS
        if known is Exactness.ROUNDS:  # every sum had one non-zero term at most: a copy, and zeros left out
            return Exactness.CONDITIONAL if tensor is None and self.guards else Exactness.FILLS
        return known


def run(plan: Plan, tensors: Mapping[str, Array], out: Mapping[str, Array] | None = None) -> Result:
    """Run a plan.

    Args:
        tensors: source tensor name -> array of the planned shape, any strides, any dtype.
        out: target tensor name -> array to write into (C-contiguous or not); its dtype is kept, and
            wider floats are filled exactly. None: new arrays of the source's dtype.

    Raises:
        BindError: missing arrays or other shapes than planned.
        ConversionError: guards that do not hold; all of them together.
    """
    _check(plan, tensors, out)
    flat = {t.name: np.ascontiguousarray(tensors[t.name]).reshape(-1) for t in plan.source.tensors}
    guards = _guards(plan, flat)
    result = Result({}, guards=guards)
    for tensor in plan.target.tensors:
        steps = [s for s in plan.steps if getattr(s, "target", None) == tensor.name]
        dtype = _dtype(steps, flat, tensor.dtype)
        given = out[tensor.name] if out is not None else None
        if given is not None and given.flags.c_contiguous and given.dtype == dtype:
            array = given
        else:
            array = np.empty(tensor.shape, dtype)
        _write(array, steps, flat, result)
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
    allowed = set(allow)
    where = [f"layer {layer}"] if layer else []
    if result.rounded and "rounds" not in allowed:
        lines = [f"{name}: rounding error up to {error:.2g}" for name, error in result.rounded.items()]
        raise ConsentError(
            f"{plan.source.form.name} to {plan.target.form.name} adds stored numbers, which is not bit-reversible",
            where=where + lines,
            why="the source stores two tensors whose sum is all that the target has a place for",
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


def _check(plan: Plan, tensors: Mapping[str, Array], out: Mapping[str, Array] | None) -> None:
    problems: list[LayoutxError] = []
    sides: Sequence[tuple[Any, Mapping[str, Array] | None]] = ((plan.source, tensors), (plan.target, out))
    for bound, given in sides:
        if given is None:
            continue
        for tensor in bound.tensors:
            if tensor.name not in given:
                problems.append(BindError(f"{bound.form.name} needs the tensor {tensor.name} {tensor.shape}"))
            elif tuple(given[tensor.name].shape) != tensor.shape:
                found = tuple(given[tensor.name].shape)
                problems.append(
                    BindError(f"{tensor.name} has shape {found}, the plan is for {tensor.shape}", where=bound.form.name)
                )
        known = {t.name for t in bound.tensors}
        extra = [name for name in given if name not in known]
        if extra:
            problems.append(BindError(f"{bound.form.name} has no tensor {', '.join(extra)}"))
    raise_all(problems, "the arrays do not fit the plan")


def _dtype(steps: Sequence[Step], flat: Mapping[str, Array], declared: str) -> np.dtype[Any]:
    if declared:
        return np.dtype(declared)
    names = [s.source for s in steps if isinstance(s, Copy)]
    names += [term.source for s in steps if isinstance(s, Add) for term in s.terms]
    found = list(dict.fromkeys(flat[name].dtype.newbyteorder("=") for name in names))
    if not found:  # only fills: the layer's own floating type
        found = list(dict.fromkeys(a.dtype.newbyteorder("=") for a in flat.values() if a.dtype.kind not in "iub"))
    if not found:
        return np.dtype(np.float32)
    widest: np.dtype[Any] = found[0]
    for other in found[1:]:
        widest = np.promote_types(widest, other)
    return widest


def _write(array: Array, steps: Sequence[Step], flat: Mapping[str, Array], result: Result) -> None:
    if array.size == 0:
        return
    target = array.reshape(-1)
    for step in steps:
        match step:
            case Copy():
                _copy(target, flat[step.source], step)
            case Fill():
                view(target, step.target_offset, [(x.size, x.target) for x in step.loops])[...] = step.value
            case Add():
                error = _add(target, flat, step)
                if error is not None:
                    result.rounded[step.target] = max(error, result.rounded.get(step.target, 0.0))
            case _:
                pass


def view(flat: Array, offset: int, loops: Iterable[tuple[int, int]]) -> Array:
    """A strided view of a flat C-contiguous array; NumPy itself checks its bounds.

    Args:
        offset: index of the first element.
        loops: (length, step in elements) pairs, outermost first; steps may be negative.
    """
    pairs = tuple(loops)
    shape = tuple(size for size, _ in pairs)
    width = flat.dtype.itemsize
    if 0 in shape:
        return np.empty(shape, flat.dtype)
    return np.ndarray(shape, flat.dtype, flat, offset * width, tuple(step * width for _, step in pairs))


def bits(array: Array) -> Array:
    """The same memory as unsigned integers of the same width (raw bytes for other widths)."""
    width = array.dtype.itemsize
    return array.view(_BITS.get(width, np.dtype(f"V{width}")))


def _copy(target: Array, source: Array, step: Copy) -> None:
    if source.dtype != target.dtype:
        source = source.astype(target.dtype)  # a swap of bytes, or an exact widening (see _dtype)
    to = view(bits(target), step.target_offset, [(x.size, x.target) for x in step.loops])
    of = view(bits(source), step.source_offset, [(x.size, x.source) for x in step.loops])
    if step.negate and target.dtype.kind in "cg":  # two floats each; a float narrower than its bytes
        loops = [(x.size, x.target) for x in step.loops], [(x.size, x.source) for x in step.loops]
        np.negative(view(source, step.source_offset, loops[1]), out=view(target, step.target_offset, loops[0]))
    elif step.negate:
        _flip_sign(to, of, target.dtype)
    else:
        np.copyto(to, of)


def _flip_sign(to: Array, of: Array, dtype: np.dtype[Any]) -> None:
    if dtype.kind in "iub" or dtype.name in _NO_SIGN:
        raise ConversionError(f"values of dtype {dtype} are not stored negated")
    np.bitwise_xor(of, np.array(1 << (8 * dtype.itemsize - 1), of.dtype), out=to)  # every float has its sign on top


def _add(target: Array, flat: Mapping[str, Array], step: Add) -> float | None:
    """Write the sum; the rounding error, or None where each element had at most one non-zero term."""
    to = view(target, step.target_offset, [(x.size, x.target) for x in step.loops])
    wide = np.complex128 if target.dtype.kind == "c" else np.float64
    total = np.zeros(to.shape, wide)
    nonzero = np.zeros(to.shape, np.int64)
    plain = np.zeros(to.shape, target.dtype)
    for at, term in enumerate(step.terms):
        source = flat[term.source].astype(target.dtype, copy=False)
        of = view(source, term.offset, list(zip([x.size for x in step.loops], term.strides, strict=True)))
        value = np.asarray(-of if term.negate else of)
        with np.errstate(invalid="ignore"):  # a signalling NaN
            total += value.astype(wide)
        filled = np.asarray(value != 0)
        np.copyto(plain, value, where=filled if at else True)
        nonzero += filled
    with np.errstate(over="ignore"):  # a sum too large for the target is infinite, and its error with it
        summed = total.astype(target.dtype)
    both = nonzero > 1
    to[...] = np.where(both, summed, plain)  # one non-zero term is copied, not added
    if not both.any():
        return None
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(summed.astype(wide) - total)[both], initial=0.0))


def _guards(plan: Plan, flat: Mapping[str, Array]) -> list[str]:
    held, problems = [], []
    for step in plan.steps:
        if not isinstance(step, Guard):
            continue
        values = view(flat[step.source], step.source_offset, [(x.size, x.source) for x in step.loops])
        wrong = values != np.asarray(step.value, values.dtype)
        names = ", ".join(step.atoms)
        if wrong.any():
            at = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
            problems.append(
                ConversionError(
                    f"{plan.target.form.name} has no place for {names}",
                    where=f"{plan.source.form.name} {step.source}: {int(wrong.sum())} of {wrong.size} values are not "
                    f"{step.value:g}, the first at {at}: {values[at]}",
                    why=f"leaving {names} out would change what the layer computes",
                    do="use a target form or config that has it",
                )
            )
        elif wrong.size:
            held.append(f"{step.source}: {names} is {step.value:g} everywhere and is left out")
    raise_all(problems, "values that the target has no place for")
    return held


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
