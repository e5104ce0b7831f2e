"""Positions and steps that only one of two models leaves out: a causal mask, masked steps (F37)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.begun import MASK
from layoutx.verify.compare.context import UNMASKED
from layoutx.verify.compare.pairs import Check
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.remarks import Remark
from layoutx.verify.diagnose.suspect import Edit, Suspect

CAUSAL = {
    "torch": "attn_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])   # in the call",
    "keras": "use_causal_mask=True   # in the call",
}
PACKED = "torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)"
NONE, LATER = "no positions", "later positions"
SEEN: dict[str, Callable[[int], Array]] = {  # what is left out -> (query, key), whether the one sees the other
    NONE: lambda n: np.ones((n, n), bool),
    LATER: lambda n: np.tri(n, dtype=bool),
    "earlier positions": lambda n: np.tri(n, dtype=bool).T,
    "earlier positions and its own": lambda n: ~np.tri(n, dtype=bool),
    "its own and later positions": lambda n: np.tri(n, k=-1, dtype=bool),
}


def masks(suspect: Suspect) -> Iterator[Edit]:
    """Attention with a causal mask, without one, and with one whose meaning is inverted: to each from what it has."""
    if suspect.target.kind.name != "attention" or not {"query", "key"} <= suspect.inputs.keys():
        return
    rows, columns = suspect.inputs["query"].shape[1], suspect.inputs["key"].shape[1]
    if rows < 2 or rows != columns:
        return
    now = _named(suspect.inputs.get(MASK))
    for name, seen in SEEN.items():
        if name != now:
            yield _edit(suspect, now, name, seen(rows))


def _named(mask: Array | None) -> str:
    """Which mask this is; "other" for one that no sequence alone tells."""
    if mask is None:
        return NONE
    return next((name for name, seen in SEEN.items() if name != NONE and np.all(mask == seen(mask.shape[-1]))), "other")


def _edit(suspect: Suspect, now: str, then: str, mask: Array) -> Edit:
    place = suspect.place
    inputs = {name: array for name, array in suspect.inputs.items() if name != MASK}
    if then != NONE:
        inputs[MASK] = np.broadcast_to(mask, (len(inputs["query"]), *mask.shape))
    what = f"{place} leaves out {now}, and the source leaves out {then}"
    if now == NONE and then == LATER:
        what = f"{place} sees later positions too: the causal mask of the source is missing"
    elif then == NONE:
        what = f"{place} leaves out positions by a mask, and the source does not"
    elif then == LATER:
        what = f"{place} leaves out {now}, where the source leaves out {then}: the mask is inverted"
    elif now == LATER:
        what = f"{place} leaves out {now} by a mask, where the source leaves out {then}"
    code = f"{place}: {CAUSAL.get(suspect.target.form.framework, 'a causal mask')}"
    code = code if then == LATER else f"{place}: leave the mask out" if then == NONE else f"{place}: leave out {then}"
    option = "none is needed: a mask is no weight; only the model's call is wrong"

    def apply(s: Suspect) -> Suspect:
        return replace(s, inputs=inputs)

    yes = "a causal mask" if then == LATER else "no mask" if then == NONE else f"a mask of {then}"
    return Edit("F37", MASK, what, apply, option, code, yes)


def unmasked(found: Found) -> Found:
    """The fault named, where the comparison saw that only the source's layer is given a mask."""
    if UNMASKED not in found.gap.hint or (found.after == found.after and found.mode):
        return found
    return replace(found, what=f"{found.gap.place} {UNMASKED.partition(':')[0]}", mode="F37", code=PACKED)


def of_masks(checks: Sequence[Check]) -> Iterator[Remark]:
    """Layers that are right alone, and are given no mask in the target."""
    names = [check.layer for check in checks if not check.ok and UNMASKED in check.note]
    if names:
        yield Remark("F37", f"{', '.join(names)}: {UNMASKED.partition(':')[0]}", PACKED, wrong=True)
