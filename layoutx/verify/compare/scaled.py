"""A table of which one model's class multiplies what is looked up, and the other model does so behind it (Gemma)."""

from __future__ import annotations

from dataclasses import replace

from layoutx.verify.compare.hints import multiple
from layoutx.verify.compare.layers import Looked, noted
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.reached import unreached

OUTSIDE = "its class multiplies in one model, in the other what comes after it does"


def scaled_outside(couple: Couple, one: Looked) -> Looked:
    """The call as right where the two outputs are a multiple of each other and the weights are the same.

    Of use where the models' outputs agree: what was multiplied otherwise would show there. Of tables alone: these have
    no settings, where a norm of another eps gives a multiple too.
    """
    if couple.source.bound.kind.name != "embedding":
        return one
    wrong = [check for check in one.checks if not check.ok and check.layer in one.suspects]
    if not wrong or unreached(couple):
        return one
    told = {check.layer: _times(one, check.layer) for check in wrong}
    checks = tuple(
        noted(replace(check, verdict=OK, where=""), f"{told[check.layer]}: {OUTSIDE}")
        if told.get(check.layer)
        else check
        for check in one.checks
    )
    kept = {layer: made for layer, made in one.suspects.items() if not told.get(layer)}
    return replace(one, checks=checks, suspects=kept)


def _times(one: Looked, layer: str) -> str:
    suspect = one.suspects[layer]()
    both = [(suspect.expected[name], suspect.found[name]) for name in suspect.expected if name in suspect.found]
    found = {multiple(*pair) for pair in both}
    return found.pop() if len(found) == 1 else ""
