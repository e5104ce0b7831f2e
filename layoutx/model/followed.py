"""Input axes whose order is not known: refused where a map may have been flattened into them, never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layoutx.errors import ConversionError
from layoutx.model.onnx_axes import KEEPS_LAST
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

MAPS = ("conv", "conv_transpose", "separable_conv")
AXES = ("input", "channel", "features")  # what a flattened map would meet
_LOST = re.compile(r"\b(?!output)(\w+) axis could not be followed")


def unfollowed(
    model: ModelRecord,
    found: Sequence[tuple[LayerRecord, BoundForm]],
    registry: Registry,
    framework: str,
    others: Sequence[tuple[LayerRecord, BoundForm]] = (),
) -> list[ConversionError]:
    """One error for each layer whose input may be a flattened map in an order that nobody can tell.

    That is so where the wiring was lost in a layer that layoutx does not know, in a model that has maps; and
    in a file without wiring, where the input is no other layer's width. Only for a target that keeps
    channels elsewhere than the source, as an ONNX graph may do that keeps them last.

    Args:
        found: the layers to judge, bound; others: the model's other layers as far as they have forms. What is
            left out of a conversion makes maps and widths all the same.
    """
    same = registry.framework(framework).channels == registry.framework(model.framework).channels
    if same and model.framework != "onnx":
        return []
    whole = [*found, *others]
    bound_names = {record.name for record, _ in whole}
    unknown = [record for record in model.layers if record.name not in bound_names]
    several = sum(bool(record.tensors) for record in model.layers) > 1
    unwired = not same and several and not any(record.inputs for record in model.layers)
    maps = any(map(_makes_maps, model.layers)) or any(b.kind.name in MAPS for _, b in whole)
    maps = maps or (unwired and any(len(t.shape) > 2 for record in unknown for t in record.tensors.values()))
    errors = []
    for record, bound in found:
        lost = _LOST.search(record.note)
        axis = lost[1] if lost else next((a for a in AXES if a in bound.sizes), "")
        if not maps or not axis or axis in record.refine or (same and KEEPS_LAST not in record.note):
            continue
        size = bound.sizes.get(axis, 0)
        if lost or (unwired and bound.kind.name not in MAPS and size not in _widths(whole, record) | _biases(unknown)):
            errors.append(_error(record, size, axis, unwired))
    return errors


def _makes_maps(record: LayerRecord) -> bool:
    """Whether a layer has to do with maps: a convolution or pooling, or an input of rank 3 without the batch."""
    shape = record.config.get("batch_shape") or record.config.get("batch_input_shape") or ()
    return len(shape) > 3 or any(word in record.class_name for word in ("Conv", "Pool", "UpSampl", "Padding2D"))


def _widths(found: Sequence[tuple[LayerRecord, BoundForm]], besides: LayerRecord) -> set[int]:
    """The numbers of features that other layers give: an input of another size is something flattened or joined."""
    widths: set[int] = set()
    for record, bound in found:
        if record is besides:
            continue
        sizes = bound.sizes
        groups = sizes.get("group", 1) if bound.kind.name in ("conv", "conv_transpose") else 1
        directions = len(bound.labels.get("direction", ("forward",)))
        for axis, times in (("output", 1), ("out", groups), ("hidden", directions), ("dim", 1)):
            if axis in sizes:
                widths.add(sizes[axis] * times)
    return widths


def _biases(unknown: Sequence[LayerRecord]) -> set[int]:
    """The same of layers without a form: the length of a vector beside a kernel with that many columns or rows."""
    widths: set[int] = set()
    for record in unknown:
        shapes = [tensor.shape for tensor in record.tensors.values()]
        ends = {size for shape in shapes if len(shape) > 1 for size in (shape[0], shape[-1])}
        widths |= {shape[0] for shape in shapes if len(shape) == 1 and shape[0] in ends}
    return widths


def _error(record: LayerRecord, size: int, axis: str, unwired: bool) -> ConversionError:
    why = "the file holds no model config, so what feeds the layer is unknown" if unwired else record.note
    advice = "give the model's config (--config model.keras, or its to_json() text), or " if unwired else ""
    what = (
        f"the order of the {size} {axis} rows of {record.name} is not known"
        if size
        else (f"the order of the {axis} axis of {record.name} is not known")
    )
    return ConversionError(
        what,
        where="it may be a flattened map",
        why=f"{why}; a flattened map lies as h w c in Keras, as c h w in a channels-first model",
        do=f"{advice}say that the order stays as it is: --keep-order {record.name}",
    )
