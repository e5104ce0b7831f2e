"""Which arguments of a torch module's forward another model's inputs are, as their names say: token_ids, input_ids."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import numpy as np

from layoutx.model.matching.assignment import assigned
from layoutx.model.matching.names import all_named, likeness, rarity


def keywords_for(module: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The argument of each of these inputs; () where they are given by position.

    That is so where there is one input, or where the forward has no more arguments than there are inputs; and where
    an input's name has no word in common with its argument.

    Args:
        module: a live torch module. names: of the other model's inputs, in its order.
    """
    try:
        every = signature(module.forward).parameters.values()
    except (TypeError, ValueError, AttributeError):  # compiled
        return ()
    there = [p.name for p in every if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    if len(names) < 2 or len(there) <= len(names) or len(set(names)) < len(names):
        return ()
    words = all_named([*names, *there])
    rare = rarity([words[name] for name in (*names, *there)])
    score = np.array([[likeness(words[a].words, words[b].words, rare) for b in there] for a in names])
    ends = np.array([[a.rpartition("_")[2] == b.rpartition("_")[2] for b in there] for a in names])
    score += ends & (score > 0)  # a padding_mask is a mask first of all
    score[:, 0] += score[:, 0] > 0  # what a forward is given first it cannot do without
    chosen, _ = assigned(np.where(score > 0, score, -np.inf))
    if min(chosen) < 0 or 0 not in chosen:
        return ()
    return tuple(there[column] for column in chosen)
