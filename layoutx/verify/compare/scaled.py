"""A table whose class does more with it in one model than in the other, which does that elsewhere.

It multiplies what is looked up (Gemma), or adds its rows to what it is given (a PositionEmbedding of the user's own).
"""

from __future__ import annotations

from dataclasses import replace

from layoutx.verify.compare.hints import multiple
from layoutx.verify.compare.layers import Looked, noted
from layoutx.verify.compare.limits import OK, OPEN
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.reached import unreached

ELSEWHERE = "the weights are the same, and so are the models' outputs: one class does more with them than the other"
OUTSIDE = "its class multiplies in one model, in the other what comes after it does"


def used_outside(couple: Couple, one: Looked) -> Looked:
    """The call as right where the two outputs are a multiple of each other and the weights are the same.

    Of use where the models' outputs agree: what was multiplied otherwise would show there. Of tables alone: these have
    no settings, where a norm of another eps gives a multiple too. Other outputs of the same weights are not compared.
    """
    if couple.source.bound.kind.name != "embedding" or all(check.ok for check in one.checks) or unreached(couple):
        return one
    one = _multiplied(one)
    checks = tuple(c if c.ok else noted(replace(c, verdict=OPEN, where=""), ELSEWHERE) for c in one.checks)
    return replace(one, checks=checks, suspects={}, link=one.link if checks == one.checks else None)


def _multiplied(one: Looked) -> Looked:
    wrong = [check for check in one.checks if not check.ok and check.layer in one.suspects]
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
