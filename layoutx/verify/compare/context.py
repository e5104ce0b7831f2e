"""A recurrent layer that is right alone and wrong in its model: a mask, or first states, that only one side gets."""

from __future__ import annotations

from dataclasses import replace

from layoutx.errors import LayoutxError
from layoutx.verify.compare.apart import where
from layoutx.verify.compare.begun import ATTENTION, MASK, STEPS
from layoutx.verify.compare.calls import call_of
from layoutx.verify.compare.layers import Looked, noted
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.named import Named
from layoutx.verify.compare.pairs import Couple, Half
from layoutx.verify.compare.stacks import Stacks, named_in
from layoutx.verify.recording import Recording

UNMASKED = (
    "the source leaves out masked steps (mask_zero, Masking), the target reads every step: "
    "torch.nn.utils.rnn.pack_padded_sequence does the same"
)
UNSEEN = (
    "the source's attention leaves out masked steps (mask_zero, Masking), the target sees every step: "
    "key_padding_mask of torch.nn.MultiheadAttention does the same"
)
UNBEGUN = "the source begins with states that it is given, the target with zeros"


def lacking(couple: Couple, runs: Runs, number: int = 0) -> str:
    """What the source's layer gets besides its data and the target's does not, in words; "" for nothing."""
    if runs.target is None or couple.source.bound.kind.name not in (*STEPS, *ATTENTION):
        return ""
    here = _named(couple, couple.source, runs.source, runs.sources, number)
    there = _named(couple, couple.target, runs.target, runs.targets, number)
    if here is None or there is None:
        return ""
    unmasked = UNSEEN if couple.source.bound.kind.name in ATTENTION else UNMASKED
    begins = "h0" in here.inputs and bool(here.inputs["h0"].any()) and "h0" not in there.inputs
    found = (unmasked if MASK in here.inputs and MASK not in there.inputs else "", UNBEGUN if begins else "")
    return "; ".join(words for words in found if words)


def in_context(couple: Couple, one: Looked, runs: Runs) -> Looked:
    """The layer's own run, where it agrees alone, is given the same in both models, and gives something else.

    Of use where the models' outputs differ: nothing else would then name the layer.
    """
    link = one.link
    if couple.source.bound.kind.name not in (*STEPS, *ATTENTION) or link is None or link.gave is None or not one.checks:
        return one
    given_same = link.given is None or link.given.verdict == OK
    if link.gave.verdict == OK or not given_same or any(not check.ok for check in one.checks):
        return one
    side, first = link.gave, one.checks[0]
    why = lacking(couple, runs, link.call) or "alone it gives the right output"
    found = replace(
        first,
        layer=link.layer,
        verdict=side.verdict,
        largest=side.apart.largest,
        relative=side.apart.relative,
        scale=side.apart.scale,
        where=where(side.apart, side.words),
        how="in the target's own run",
    )
    return replace(one, checks=(noted(found, why),))


def _named(couple: Couple, side: Half, recording: Recording, stacks: Stacks, number: int) -> Named | None:
    call = call_of(side, recording, number)
    try:
        return named_in(side, call, couple.last, stacks) if call is not None else None
    except LayoutxError:
        return None
