"""Input axes whose order is not known: refused where a map may have been flattened into them, never guessed."""

from __future__ import annotations

from collections.abc import Sequence

from layoutx.errors import ConversionError
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

MAPS = ("conv", "conv_transpose", "separable_conv")
LOST = "could not be followed"


def unfollowed(
    model: ModelRecord, found: Sequence[tuple[LayerRecord, BoundForm]], registry: Registry, framework: str
) -> list[ConversionError]:
    """One error for each Dense whose rows may be a flattened map in an order that nobody can tell.

    That is so where the model's wiring is unknown, or lost in a layer that layoutx does not know; and only
    where the rows are a multiple of the channels of some convolution, for a target that keeps channels first.
    """
    if registry.framework(framework).channels == registry.framework(model.framework).channels:
        return []
    unwired = len(found) > 1 and not any(record.inputs for record in model.layers)
    channels = {n for _, bound in found if bound.kind.name in MAPS and (n := _channels(bound)) > 1}
    errors = []
    for record, bound in found:
        rows = bound.sizes.get("input", 0)
        if not rows or "input" in record.refine or not (unwired or LOST in record.note):
            continue
        maps = sorted(c for c in channels if rows % c == 0 and rows > c)
        if maps:
            errors.append(_error(record, rows, maps, unwired))
    return errors


def _channels(bound: BoundForm) -> int:
    sizes = bound.sizes
    return sizes["out"] * (sizes.get("group", 1) if bound.kind.name != "separable_conv" else 1)


def _error(record: LayerRecord, rows: int, maps: Sequence[int], unwired: bool) -> ConversionError:
    why = "the file holds no model config, so what feeds the layer is unknown" if unwired else record.note
    advice = "give the model's config (--config model.keras, or its to_json() text), or " if unwired else ""
    return ConversionError(
        f"the order of the {rows} input rows of {record.name} is not known",
        where=f"{rows} is a multiple of the {' or '.join(map(str, maps))} channels of a convolution",
        why=f"{why}; a flattened map has its rows as h w c in Keras, as c h w in a channels-first model",
        do=f"{advice}say that the rows stay as they are: --keep-order",
    )
