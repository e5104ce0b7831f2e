"""Input axes whose order is not known: refused where a map may have been flattened into them, never guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from math import prod

from layoutx.errors import ConversionError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.graph import GIVEN
from layoutx.model.keras_rules import CODE
from layoutx.model.onnx_axes import KEEPS_LAST
from layoutx.model.record import LayerRecord, ModelRecord, Refinement
from layoutx.model.refine import UNKNOWN
from layoutx.model.splits import STAYS
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

MAPS = ("conv", "conv_transpose", "separable_conv", "conv_lstm", "locally_connected_1d", "locally_connected_2d")
NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "prelu")  # these read a vector or the map made of it
FEW = 4  # channels of an image, or of a few of them
AXES = ("input", "channel", "features")  # what a flattened map would meet
_CONFIG = "give the model's config (--config model.keras, or its to_json() text)"
_CLASSES = "load the file with its classes (keras.models.load_model) and give the live model"
_HELD = {
    _CONFIG: "the file holds no model config, so",
    _CLASSES: "the model is a subclass, its config names no layers, so",
}
_TRACE = "give the live model, not its weights alone, and inputs (--inputs FILE), on whose shapes it is traced"
MORE = {  # what tells the wiring of a model, by its framework
    "torch": "give the live module, not its weights alone",
    **dict.fromkeys(("nnx", "flax", "equinox", "haiku"), _TRACE),
    "tf1": "turn the rows of the kernel from (h, w, c) to (c, h, w) in an .npz of the same names (--from tf1) and keep "
    "that order, as docs/guides/old-tensorflow.md shows",
}
Layers = Sequence[tuple[LayerRecord, BoundForm]]
_LAYER = re.compile(r'followed through \w+ "([^"]+)"')
LOST = re.compile(r"\b(?!output)(\w+) axis could not be followed")


def unfollowed(
    model: ModelRecord,
    found: Layers,
    registry: Registry,
    framework: str,
    others: Layers = (),
    told: bool = False,
) -> list[ConversionError]:
    """One error for each layer whose input may be a flattened map in an order that nobody can tell.

    That is so where the wiring was lost in a layer that layoutx does not know, in a model that has maps; and
    in a file without wiring, where the input is no other layer's width. Only for a target that keeps
    channels elsewhere than the source, as an ONNX graph may do that keeps them last.

    Args:
        found: the layers to judge, bound; others: the model's other layers as far as they have forms. What is
            left out of a conversion makes maps and widths all the same.
        told: the other model is at hand, and says later in which order it joins the axes of a map.
    """
    same = registry.framework(framework).channels == registry.framework(model.framework).channels
    if same and model.framework != "onnx":
        return []
    seen = _seen(model, (*found, *others), same, told)
    if seen is None:
        return []
    errors = [error for record, bound in found if (error := _axis_error(seen, record, bound)) is not None]
    errors += [_kept_error(record) for record, _ in found if STAYS in record.note and not seen.same]
    made = _remade(seen.whole) if seen.unwired else set()
    errors += [_unit_error(r, b.sizes["output"], seen.more) for r, b in found if b.sizes.get("output") in made]
    return errors


@frozen
class _Seen:
    """What is known of a model that has maps.

    Attributes:
        whole: the layers that have forms. same: both sides keep channels in the same place.
        unwired: nothing tells who reads whom. doubtful: tensors without a form that may be a convolution's.
        biases, widths: the numbers of features that layers without a form, and how many layers with one, give.
        hidden: sizes that may be a flattened map's though layers give as many features.
        more: what would tell the wiring. live: the model is no file.
    """

    whole: Layers
    same: bool
    told: bool
    unwired: bool
    doubtful: Sequence[Tensor]
    biases: Set[int]
    widths: Mapping[int, int]
    hidden: Set[int]
    more: str
    live: bool

    def anothers(self, size: int, bound: BoundForm, axis: str) -> bool:
        """Whether another layer gives so many features, so that no flattened map need be behind them."""
        if axis == "input" and size in self.hidden:
            return False
        return size in self.biases or self.widths.get(size, 0) > (size in _widths(bound))


def _seen(model: ModelRecord, whole: Layers, same: bool, told: bool) -> _Seen | None:
    """None for a model that has no maps."""
    bound_names = {record.name for record, _ in whole}
    unknown = [record for record in model.layers if record.name not in bound_names]
    several = sum(bool(record.tensors) for record in model.layers) > 1
    unwired = not same and several and not any(r.inputs and UNKNOWN not in r.note for r in model.layers)
    maps = any(map(_makes_maps, model.layers)) or any(b.kind.name in MAPS for _, b in whole) or _reshaped(model.layers)
    maps = maps or any(found.last != found.first for record in model.layers for found in record.refine.values())
    live = model.store.path.name.startswith("<")
    doubtful = [] if maps or not unwired else [t for r in unknown for t in r.tensors.values() if len(t.shape) > 2]
    if not maps and not doubtful:
        return None
    return _Seen(
        whole,
        same,
        told,
        unwired,
        doubtful,
        biases=_biases(unknown),
        widths=Counter(width for _, bound in whole for width in _widths(bound)),
        hidden=_flattened(whole) if unwired else set(),
        more=MORE.get(model.framework, _CONFIG if model.store.config is None or live else _CLASSES),
        live=live,
    )


def _axis_error(seen: _Seen, record: LayerRecord, bound: BoundForm) -> ConversionError | None:
    """The error of a layer that reads what may be a flattened map; None where its order is known."""
    joined = next(((axis, found.joined) for axis, found in record.refine.items() if found.joined), None)
    if joined and not seen.told and not seen.same:
        return joined_error(record, *joined)
    lost = LOST.search(record.note)
    axis = lost[1] if lost else next((a for a in AXES if a in bound.sizes), "")
    if not axis or axis in record.refine or (seen.same and KEEPS_LAST not in record.note):
        return None
    size = bound.sizes.get(axis, 0) * (bound.sizes.get("group", 1) if axis == "channel" else 1)
    blind = seen.unwired or (not seen.same and UNKNOWN in record.note)
    if not lost and (not blind or bound.kind.name in MAPS or seen.anothers(size, bound, axis)):
        return None
    return _error(record, size, axis, seen.more if seen.unwired else "", seen.doubtful, seen.live)


def _makes_maps(record: LayerRecord) -> bool:
    """Whether a layer has to do with maps: a convolution or pooling, or an input of rank 3 without the batch."""
    config = record.config
    shape = () if GIVEN in config else config.get("batch_shape") or config.get("batch_input_shape") or ()
    if record.class_name in ("GlobalAveragePooling1D", "GlobalMaxPooling1D"):
        return False  # over the steps of a sequence; a convolution before it tells of itself
    return len(shape) > 3 or any(word in record.class_name for word in ("Conv", "Pool", "UpSampl", "Padding2D"))


def _reshaped(layers: Sequence[LayerRecord]) -> bool:
    """Whether a Reshape may make maps that layers of the user's own are given."""
    made = any(len(record.config.get("target_shape") or ()) > 2 for record in layers)
    return made and any(GIVEN in one.config and len(one.config.get("batch_shape") or ()) > 3 for one in layers)


def _flattened(whole: Layers) -> set[int]:
    """Sizes of inputs that a flattened map may have though they are widths of other layers too: 48 into a Dense of 48.

    There are such sizes where maps are made and no layer reads as many channels as any of them has.
    """
    channels = {size for _, bound in whole if bound.kind.name in MAPS for size in _widths(bound)}
    read = {bound.sizes["input"] for _, bound in whole if bound.kind.name not in MAPS and "input" in bound.sizes}
    return set() if read & channels else {size for size in read for n in channels if size % n == 0}


def _remade(whole: Layers) -> set[int]:
    """Numbers of units that may be made a map again: nobody reads so many, and a convolution reads what nobody makes.

    Of images with few channels nobody makes these either; a map of two sides has a square number of positions.
    """
    made = Counter(size for _, bound in whole if bound.kind.name in MAPS for size in _widths(bound))
    read = {b.sizes.get(axis) for _, b in whole if b.kind.name not in (*MAPS, *NORMS) for axis in AXES}
    found: set[int] = set()
    for _, bound in whole:
        if bound.kind.name not in MAPS or "in" not in bound.sizes:
            continue
        channels = bound.sizes["in"] * bound.sizes.get("group", 1)
        rank = sum(axis in bound.sizes for axis in ("kd", "kh", "kw", "k"))
        if channels <= FEW or made[channels] > (channels in _widths(bound)):
            continue
        units = {b.sizes["output"] for _, b in whole if b.kind.name not in MAPS and "output" in b.sizes} - read
        found |= {n for n in units if n % channels == 0 and n > channels and _even(n // channels, rank)}
    return found


def _even(positions: int, rank: int) -> bool:
    """Whether a map of so many positions can have sides of one length; of a sequence any number."""
    return rank < 2 or round(positions ** (1 / rank)) ** rank == positions


def _unit_error(record: LayerRecord, size: int, more: str) -> ConversionError:
    return ConversionError(
        f"the order of the {size} output units of {record.name} is not known",
        where=["they may be made a map (Reshape), which a convolution reads"],
        why="what reads the layer is unknown; its units lie as h w c in Keras then, as c h w in a channels-first model",
        do=f"{more}, or say that the order stays as it is: --keep-order {record.name}",
    )


def _kept_error(record: LayerRecord) -> ConversionError:
    return ConversionError(
        f"the order of what {record.name} makes is not known",
        where=["a Reshape makes a map of it, alone or added to others"],
        why="it lies as h w c in Keras then, as c h w in a channels-first model, and not all layers that make or read "
        "it can be given that order",
        do=f"say that the order stays as it is: --keep-order {record.name}",
    )


def _widths(bound: BoundForm) -> set[int]:
    """The numbers of features that a layer gives: an input of another size is something flattened or joined."""
    sizes = bound.sizes
    groups = sizes.get("group", 1) if bound.kind.name in ("conv", "conv_transpose") else 1
    directions = len(bound.labels.get("direction", ("forward",)))
    each = (("output", 1), ("out", groups), ("hidden", directions), ("dim", 1))
    return {sizes[axis] * times for axis, times in each if axis in sizes}


def _biases(unknown: Sequence[LayerRecord]) -> set[int]:
    """The same of layers without a form: the length of a vector beside a kernel with that many columns or rows."""
    widths: set[int] = set()
    for record in unknown:
        shapes = [tensor.shape for tensor in record.tensors.values()]
        ends = {size for shape in shapes if len(shape) > 1 for size in (shape[0], shape[-1])}
        widths |= {shape[0] for shape in shapes if len(shape) == 1 and shape[0] in ends}
    return widths


def _error(
    record: LayerRecord, size: int, axis: str, more: str, doubtful: Sequence[Tensor] = (), live: bool = False
) -> ConversionError:
    held = _HELD.get(more, "the model does not tell its wiring:")
    why = f"{held} what feeds the layer is unknown" if more else record.note
    keep = f"say that the order stays as it is: --keep-order {record.name}"
    if not more and (CODE in record.note or UNKNOWN in record.note):
        keep = _both_ways(record, live)
    advice = f"{more}, or " if more else ""
    what = (
        f"the order of the {size} {axis} rows of {record.name} is not known"
        if size
        else (f"the order of the {axis} axis of {record.name} is not known")
    )
    return ConversionError(
        what,
        where=["it may be a flattened map", *(f"of a layer without a form: {t.name} {t.shape}" for t in doubtful[:1])],
        why=f"{why}; a flattened map lies as h w c in Keras, as c h w in a channels-first model",
        do=f"{advice}{keep}",
    )


def joined_error(record: LayerRecord, axis: str, layer: str, there: str = "") -> ConversionError:
    """Channels and positions of a map in one dimension, whose order nobody tells.

    Args:
        layer: what joined them. there: why the other model does not tell it, "" where it is names and numbers alone.
    """
    found = record.refine[axis]
    other = there or "of the other model only names and shapes are known"
    live = "" if there else "give the live target, whose own code is followed (--like package.module:callable); or "
    return ConversionError(
        f"the order of the {axis} axis of {record.name} is not known ({prod(found.sizes.values())} of one map)",
        where=[f"{layer}: {found.last}, and as often {found.first} where channels come first"],
        why=f"{other}; people write it either way",
        do=f"{live}say that the order stays as it is: --keep-order {record.name}",
    )


def dealt_error(record: LayerRecord, there: Refinement) -> ConversionError:
    """Channels that the other model deals out to positions, where this one does not tell what becomes of them."""
    return ConversionError(
        f"the order of the {prod(there.sizes.values())} channels that {record.name} makes is not known",
        where=[f"they are dealt out to positions: {there.first} in the other model"],
        why=f"nothing tells what reads the layer; depth_to_space of Keras and TensorFlow wants {there.last}",
        do=f"give the live model, or say that the order stays as it is: --keep-order {record.name}",
    )


def _both_ways(record: LayerRecord, live: bool) -> str:
    """What to pass where the target flattens as the source does, and where it does not: code tells it, no config."""
    found = _LAYER.search(record.note)
    name = found[1] if found else record.name.rpartition("/")[0]
    say = f'set data_format = "channels_last" on the layer {name}, whose call could not be run on symbolic tensors'
    load = (
        "load the file with its classes (keras.models.load_model) and give the live model, whose calls are run on "
        "symbolic tensors"
    )
    return (
        f"if the target flattens with channels last as well: --keep-order {record.name}; if it flattens with channels "
        f"first, do not: {say if live else load}"
    )
