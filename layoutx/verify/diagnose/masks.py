"""Positions and steps that only one of two models leaves out: a causal mask, masked steps (F37)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from layoutx.verify.compare.begun import MASK
from layoutx.verify.compare.context import UNMASKED
from layoutx.verify.compare.pairs import Check
from layoutx.verify.diagnose.between import Found, place_of
from layoutx.verify.diagnose.remarks import Remark
from layoutx.verify.diagnose.suspect import Edit, Suspect

CAUSAL = {
    "torch": "attn_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])   # in the call",
    "keras": "use_causal_mask=True   # in the call",
}
PACKED = "torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)"


def masks(suspect: Suspect) -> Iterator[Edit]:
    """Attention with a causal mask, or without one."""
    if suspect.target.kind.name != "attention" or not {"query", "key"} <= suspect.inputs.keys():
        return
    rows, columns = suspect.inputs["query"].shape[1], suspect.inputs["key"].shape[1]
    if rows < 2 or rows != columns:
        return
    causal = np.broadcast_to(np.tri(rows, columns, dtype=bool), (len(suspect.inputs["query"]), rows, columns))
    place = suspect.place
    if MASK not in suspect.inputs:
        what = f"{place} sees later positions too: the causal mask of the source is missing"
        code = f"{place}: {CAUSAL.get(suspect.target.form.framework, 'a causal mask')}"
        inputs = {**suspect.inputs, MASK: causal}
    else:
        what = f"{place} leaves out positions by a mask, and the source does not"
        code = f"{place}: leave the mask out"
        inputs = {name: array for name, array in suspect.inputs.items() if name != MASK}
    option = "none is needed: a mask is no weight; only the model's call is wrong"

    def apply(s: Suspect) -> Suspect:
        return replace(s, inputs=inputs)

    yield Edit("F37", MASK, what, apply, option, code, "a causal mask" if MASK in inputs else "no mask")


def unmasked(found: Found) -> Found:
    """The fault named, where the comparison saw that only the source's layer is given a mask."""
    if UNMASKED not in found.gap.hint or (found.after == found.after and found.mode):
        return found
    return replace(found, what=f"{place_of(found.gap)} {UNMASKED.partition(':')[0]}", mode="F37", code=PACKED)


def of_masks(checks: Sequence[Check]) -> Iterator[Remark]:
    """Layers that are right alone, and are given no mask in the target."""
    names = [check.layer for check in checks if not check.ok and UNMASKED in check.note]
    if names:
        yield Remark("F37", f"{', '.join(names)}: {UNMASKED.partition(':')[0]}", PACKED, wrong=True)
