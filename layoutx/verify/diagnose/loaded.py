"""What the source's weights themselves show: a plan run twice or not at all, tensors left as they were, rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array, Plan, plan
from layoutx.plan.run import run
from layoutx.verify.diagnose.evaluate import near, wanted
from layoutx.verify.diagnose.fixes import ported
from layoutx.verify.diagnose.numbers import atoms_of, is_float, opened, roles_in, with_stored
from layoutx.verify.diagnose.suspect import Edit, Suspect

FEW = 8  # numbers of which nothing can be told by their correlation
STRAY = 50  # of so many numbers one may be wrong by itself, and the tensor was loaded all the same
MANY = 64  # numbers whose correlation is not small by chance
NOISY = 0.6  # mean correlation above which tensors are the source's with noise
WHOLE = "numbers of the layer"
RELATED = 0.3  # correlation above which numbers are a changed copy of the source's, not other ones


def repeated(suspect: Suspect) -> Iterator[Edit]:
    """The conversion run once more on what was converted, or left out where the shapes let it (F11)."""
    alike = _alike(suspect)
    if not alike:
        return
    try:
        there, back = plan(suspect.source, suspect.target), plan(suspect.target, suspect.source)
    except LayoutxError:
        return
    groups = [tuple(alike), *((name,) for name in alike if len(alike) > 1)]
    for names in groups:
        yield _again(suspect, {name: alike[name] for name in names}, there, back)
        yield _never(suspect, {name: alike[name] for name in names}, there, alike)


def _alike(suspect: Suspect) -> dict[str, str]:
    """Target tensor -> the source tensor that holds the same roles in the same shape."""
    found: dict[str, str] = {}
    for tensor in suspect.target.tensors:
        own = roles_in(suspect.target, tensor.name)
        for other in suspect.source.tensors:
            fits = other.shape == tensor.shape and roles_in(suspect.source, other.name) == own
            if (
                fits
                and tensor.name not in found
                and other.name not in found.values()
                and is_float(suspect, tensor.name)
            ):
                found[tensor.name] = other.name
    return found


def _again(suspect: Suspect, pairs: Mapping[str, str], there: Plan, back: Plan) -> Edit:
    def apply(s: Suspect) -> Suspect:
        once = run(back, dict(s.stored)).tensors
        return with_stored(s, {name: once[other].reshape(s.stored[name].shape) for name, other in pairs.items()})

    what = f"{', '.join(pairs)} went through the conversion twice: what was converted was converted once more"
    family = f"conversion of {', '.join(pairs)}"
    return Edit("F11", family, what, apply, ported(suspect), ported(suspect), "converted once")


def _never(suspect: Suspect, pairs: Mapping[str, str], there: Plan, alike: Mapping[str, str]) -> Edit:
    def apply(s: Suspect) -> Suspect:
        raw = {o.name: np.zeros(o.shape, next(iter(s.stored.values())).dtype) for o in s.source.tensors}
        raw |= {other: s.stored[name] for name, other in alike.items()}
        once = run(there, raw).tensors
        return with_stored(s, {name: once[name] for name in pairs})

    what = f"{', '.join(pairs)} holds {suspect.source.form.name}'s numbers as they lie there: nothing was converted"
    family = f"conversion of {', '.join(pairs)}"
    return Edit("F11", family, what, apply, ported(suspect), ported(suspect), "converted")


def left(suspect: Suspect) -> Iterator[Edit]:
    """Tensors that never took the source's numbers: constant, other numbers, a row of zeros, rounded (F13 to F37)."""
    goal = wanted(suspect)
    rounded: dict[str, Array] = {}
    for name, right in goal.items():
        now = suspect.stored[name]
        if not is_float(suspect, name) or np.array_equal(now, right):
            continue
        if kind := _rounding(now, right):
            rounded[name] = right
            yield _set(suspect, "F30", {name: right}, f"{name} was rounded to {kind}", "rounding")
        elif not near(now, right) and (found := _state(suspect, name, now, right)) is not None:
            mode, words, late = found
            yield _set(suspect, mode, {name: right}, f"{name} {words}", f"numbers of {name}", late)
    if len(rounded) > 1:
        yield _set(suspect, "F30", rounded, f"{', '.join(rounded)} were rounded to a narrower type", "rounding")
    yield from _narrow(suspect)
    yield from _folded(suspect, goal)
    yield from _whole(suspect, goal)


def _whole(suspect: Suspect, goal: Mapping[str, Array]) -> Iterator[Edit]:
    """A layer of which nothing was loaded; of tensors of few numbers it is enough that they are not the source's."""
    floats = {name: right for name, right in goal.items() if is_float(suspect, name)}
    wrong = {n: right for n, right in floats.items() if not near(suspect.stored[n], right)}
    told = [n for n, right in wrong.items() if _state(suspect, n, suspect.stored[n], right) is not None]
    few = [n for n, right in wrong.items() if right.size < MANY and not _sorted_close(suspect.stored[n], right)]
    filled = [n for n, right in wrong.items() if np.ptp(right) == 0]  # torch's second bias, which a Keras layer lacks
    if len(wrong) < 2 or set(wrong) != {*told, *few, *filled} or not (told or len(wrong) == len(floats) > 2):
        return
    both = (np.concatenate([held[n].reshape(-1) for n in wrong]) for held in (suspect.stored, wrong))
    alike = [_alike_by(suspect.stored[n], right) for n, right in wrong.items()]
    if float(np.mean(alike)) < NOISY and not _sorted_close(*both):  # the same vectors under other names are no others
        what = f"{', '.join(wrong)} hold other numbers than the source: the layer was not loaded"
        yield _set(suspect, "F13", wrong, what, WHOLE, True)


def _cast(wide: Array, stored: Array) -> bool:
    """Whether a narrow tensor is the wide one; torch rounds a double to a half by way of a float."""
    ways = (wide, wide.astype(np.float32)) if wide.dtype.itemsize > 4 else (wide,)
    with np.errstate(all="ignore"):
        found = [way.astype(stored.dtype) for way in ways]
    return any(np.array_equal(one, stored, equal_nan=True) for one in found)


def _alike_by(now: Array, right: Array) -> float:
    """The correlation of two tensors; 0 where one is constant."""
    if now.size < 2 or np.ptp(now) == 0 or np.ptp(right) == 0:
        return 0.0
    return abs(float(np.corrcoef(now.reshape(-1), right.reshape(-1))[0, 1]))


def _narrow(suspect: Suspect) -> Iterator[Edit]:
    """Numbers that are stored in a narrower type than the source's, and lost bits there."""
    wide = {n: a for n, a in wanted(suspect, False).items() if a.dtype.itemsize > suspect.stored[n].dtype.itemsize}
    lossy = {n: a for n, a in wide.items() if not np.array_equal(a, suspect.stored[n].astype(a.dtype))}
    if lossy and all(_cast(a, suspect.stored[n]) for n, a in lossy.items()):
        kinds = ", ".join(dict.fromkeys(str(suspect.stored[n].dtype) for n in lossy))
        what = f"{', '.join(lossy)} are stored as {kinds}, which rounds the source's numbers"
        torch = suspect.target.form.framework == "torch"
        code = f'model.get_submodule("{suspect.place}").float()   # and load the numbers again' if torch else ""
        yield replace(_set(suspect, "F30", lossy, what, "rounding"), code=code)


def _state(suspect: Suspect, name: str, now: Array, right: Array) -> tuple[str, str, bool] | None:
    """(mode, what it holds, whether that only says that it is wrong); None where it is the source's, changed."""
    bias = all(suspect.target.kind.roles[role].absent == "zeros" for role in roles_in(suspect.target, name))
    if now.size > 1 and (now == now.flat[0]).all():
        mode = "F6" if "b_recurrent" in roles_in(suspect.target, name) else "F14" if bias else "F13"
        return mode, f"is {now.flat[0]:g} everywhere: the source's numbers were not loaded", False
    rows = (~np.isclose(now, right, rtol=1e-6)).reshape(len(now), -1).any(1) if now.ndim > 1 else np.zeros(1, bool)
    if suspect.target.kind.name == "embedding" and rows.sum() == 1 and not now[rows].any():
        return "F37", f"has zeros in row {int(np.argmax(rows))}, which the source does not: its padding row", False
    other = now.size >= FEW and np.ptp(right) > 0 and not _sorted_close(now, right)
    if other and abs(float(np.corrcoef(now.reshape(-1), right.reshape(-1))[0, 1])) < RELATED:
        return ("F14" if bias else "F13"), "holds other numbers than the source: it was not loaded", True
    return _few(now, right)


def _few(now: Array, right: Array) -> tuple[str, str, bool] | None:
    """One number or a few that are not the source's, all the others being just that: changed after they were loaded."""
    odd = np.argwhere(~np.isclose(now, right, rtol=1e-6, equal_nan=True))
    if not 0 < len(odd) <= max(1, now.size // STRAY):
        return None
    where = ", ".join(map(str, odd[0].tolist()))
    many = f"{len(odd)} of {now.size} numbers that are not the source's"
    return "F13", f"holds {many}, the first at [{where}]", True


def _sorted_close(now: Array, right: Array) -> bool:
    """Whether the numbers are nearly the source's in another order: a permutation with noise is no other tensor."""
    spread = float(np.abs(right).max(initial=0.0))
    return bool(np.abs(np.sort(now, None) - np.sort(right, None)).max(initial=0.0) < 1e-3 * spread)


def _rounding(now: Array, right: Array) -> str:
    """The narrower type that the source's numbers went through; "" where none gives these."""
    import ml_dtypes

    kinds = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}
    with np.errstate(all="ignore"):
        for name, kind in kinds.items():
            if kind.itemsize < right.dtype.itemsize and np.array_equal(right.astype(kind).astype(now.dtype), now):
                return name
    return ""


def _set(suspect: Suspect, mode: str, numbers: Mapping[str, Array], what: str, family: str, late: bool = False) -> Edit:
    def apply(s: Suspect) -> Suspect:
        return with_stored(s, dict(numbers))

    return Edit(mode, family, what, apply, ported(suspect), ported(suspect), what, late)


def _folded(suspect: Suspect, goal: Mapping[str, Array]) -> Iterator[Edit]:
    """Two biases summed into one, which the candidate of a GRU does not allow (F5, F6)."""
    pairs = [name for name in goal if {"b_input", "b_recurrent"} & set(roles_in(suspect.target, name))]
    wrong = [name for name in pairs if not np.array_equal(suspect.stored[name], goal[name])]
    if not wrong or suspect.target.kind.name not in ("gru", "lstm"):
        return
    sums = [_sums(suspect, numbers) for numbers in (suspect.stored, goal)]
    if sums[0] is not None and sums[1] is not None and np.allclose(sums[0], sums[1], rtol=1e-6, atol=1e-7):
        what = f"{', '.join(wrong)}: the recurrent bias of the candidate was added into the input bias"
        yield _set(suspect, "F6", {name: goal[name] for name in wrong}, what, "biases")


def _sums(suspect: Suspect, numbers: Mapping[str, Array]) -> Array | None:
    held = opened(with_stored(suspect, numbers), [t.name for t in suspect.target.tensors])
    totals: list[Array] = []
    for atom in atoms_of(suspect.target, "b_input"):
        other = ("b_recurrent", atom[1])
        if other not in suspect.target.places:
            return None
        totals.append(held.atom(atom) + held.atom(other))
    return np.concatenate(totals) if totals else None
