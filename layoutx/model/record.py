"""A model as layoutx sees it: layers with their forms, configs and tensors, and how axes reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from layoutx.files.store import NOTHING, Store, Tensor
from layoutx.frozen import frozen

QUANTISED = "quantised: layoutx does not undo that; convert the float model"
UNTRAINED = "not trained"  # how what is told of numbers ends that a model could as well make when it is called
MADE = "is made of it in the graph"  # how a stored tensor is told that others are computed from


@frozen
class Refinement:
    """What one axis of a layer is made of, in the two orders that frameworks flatten it.

    `last` and `first` are layout dims over the same leaf axes: `(h w c)` where channels come last
    (Keras), `(c h w)` where they come first (torch, onnx). `sizes` gives every leaf axis its size;
    `why` says where it comes from ("flatten(conv1)"). `own` is "last" where the model's own file
    flattens channels-last though its framework keeps them first (an ONNX graph that Keras exported), and "first" where
    it is the other way round (a flax model that turns its map before it flattens it). `joined` names the layer that
    makes one dimension of the channels and some of the positions alone (the features of each time step), or deals
    channels out to positions: no framework has a habit for that, so that the other model's own program has to tell.
    """

    last: str
    first: str
    sizes: Mapping[str, int]
    why: str
    own: str = ""
    joined: str = ""


@frozen
class Piece:
    """A run of an axis: the axes that were laid end to end in it, outermost first, and the layers that made them.

    The first of `origins` made the channels; others only the positions (a pooling). A size may be None: not known.
    `turned`: some of the axes stand in another order than they were made in.
    """

    axes: tuple[tuple[str, int | None], ...]
    origins: tuple[str, ...]
    turned: bool = field(default=False, compare=False)

    @property
    def size(self) -> int | None:
        """How long the run is."""
        total = 1
        for _, size in self.axes:
            if size is None:
                return None
            total *= size
        return total


@frozen
class Way:
    """How the output of a layer comes to one that reads it, through operations without weights.

    Attributes:
        maker: name of the record that made it; "" for an input of the model.
        pooled: the windows that it went through, "avg" and "max"; "gate" where an activation made it a factor of what
            had none.
        at, of: which operand of a concatenation it is, those of nested ones counted through, and of how many; 0 of 1
            where it is laid beside nothing.
        active: it has just gone through an activation, "sigmoid" or another; a product alone tells what comes of that.
    """

    maker: str
    pooled: tuple[str, ...] = ()
    at: int = 0
    of: int = 1
    active: str = field(default="", compare=False)


@frozen
class LayerRecord:
    """One layer of a model, or one part of it that has a form of its own.

    Attributes:
        name: unique in the model; nested models join with "/", `encoder/dense_1`.
        class_name: the framework's class as the file says it ("Dense", "mypkg>Gate").
        form: the registry's form ("keras.Dense"); "" where the class is unknown or holds no weights.
        config: the layer's own config as the form's spec spells it, with `version` (framework major).
        tensors: form tensor name -> stored tensor, in the form's order; for an unknown class the
            file's own names.
        instance: what the form's `each` axis is here, as {"layer": 1}.
        refine: axis name -> Refinement.
        pieces: axis name -> what it is made of, end to end, as the model's own framework lays it.
        inputs: names of the records that feed this one, in order; () where wiring is unknown.
        ways: how each of them comes here, where operations without weights are no records of their own.
        alone: the record whose output this one reads just as it comes, and nobody else does; "" where there is none,
            or nobody knows.
        note: why the form was chosen where the config did not say, or why there is none.
        called: what its user called it, where `name` is one that Keras made (`dense_1`, in its weights files or live).
    """

    name: str
    class_name: str
    form: str = ""
    config: Mapping[str, Any] = NOTHING
    tensors: Mapping[str, Tensor] = NOTHING
    instance: Mapping[str, Any] = NOTHING
    refine: Mapping[str, Refinement] = NOTHING
    inputs: tuple[str, ...] = ()
    note: str = ""
    pieces: Mapping[str, tuple[Piece, ...]] = field(default=NOTHING, compare=False)
    alone: str = field(default="", compare=False)
    ways: tuple[Way, ...] = field(default=(), compare=False)
    called: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """What errors call it: `layer conv1 (Conv2D)`."""
        return f"layer {self.name} ({self.class_name})"


@frozen
class ModelRecord:
    """A whole model: its layers in the model's own order, and the tensors no layer owns.

    `framework` is `keras`, `keras1`, `torch` or `onnx`; `version` as the file says it; `leftover`
    maps tensors that belong to no layer (optimizer state, say) to the reason they are left out. `channels` is "first"
    or "last" where the model itself says how it takes its maps, whatever is usual in its framework. `copies` maps
    tensors that hold the numbers of another one, for a further call of its layer, to that one.
    """

    framework: str
    version: str
    layers: tuple[LayerRecord, ...]
    store: Store
    leftover: Mapping[str, str] = field(default_factory=dict)
    channels: str = ""
    copies: Mapping[str, str] = NOTHING
