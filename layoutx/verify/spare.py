"""Masks of padding that one model takes and the other has no argument for: left out where they mask nothing.

keras_hub's models take token_ids and padding_mask, many a torch module of one's own (nanoGPT, llama2.c) ids alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import numpy as np

from layoutx.plan.plan import Array

MASK = "mask"


def spare_masks(module: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The masks among these inputs, where a live torch module's forward takes the others and no mask; else ().

    Args:
        names: of the other model's inputs; () where they have none.
    """
    try:
        every = list(signature(module.forward).parameters.values())
    except (TypeError, ValueError, AttributeError):  # compiled
        return ()
    masks = tuple(name for name in names if MASK in name.lower())
    plain = all(p.kind is Parameter.POSITIONAL_OR_KEYWORD and MASK not in p.name.lower() for p in every)
    least = sum(p.default is Parameter.empty for p in every)
    return masks if plain and least <= len(names) - len(masks) <= len(every) else ()


def opened(arrays: Sequence[Array], names: Sequence[str], spare: Collection[str]) -> list[Array]:
    """Inputs that were made up, with these masks masking nothing."""
    if not spare:
        return list(arrays)
    return [np.ones_like(array) if name in spare else array for array, name in zip(arrays, names, strict=True)]


def left(inputs: Mapping[str, Array], spare: Collection[str]) -> tuple[int, ...]:
    """The places of the inputs without these masks; of all where one of them masks something."""
    masked = any(not np.asarray(inputs[name]).all() for name in spare)
    return tuple(i for i, name in enumerate(inputs) if masked or name not in spare)


def making(
    made: Callable[..., list[Array]], names: Sequence[str], spare: Collection[str]
) -> Callable[..., list[Array]]:
    """What makes inputs up, with these masks masking nothing."""
    return lambda **how: opened(made(**how), names, spare)


def told(spare: Collection[str]) -> str:
    """What was done, in words; "" where nothing was."""
    text = f"without {', '.join(spare)}, which one model alone takes: nothing was masked"
    return text if spare else ""
