"""What went into every layer of a model and what came out, in one run: arrays in the model's own axis order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from layoutx.frozen import frozen
from layoutx.plan.plan import Array


@frozen
class Call:
    """One call of one layer.

    Attributes:
        layer: the layer's name (Keras, ONNX node) or module path (torch); as `Side.name`.
        class_name: "Conv2D", "torch.nn.ReLU".
        inputs: positional tensors in order, then those given by keyword; nested ones flattened.
        outputs: tensors in order; tuples and lists flattened (torch LSTM: y, h, c).
        names: keyword of each input, "" for positional ones.
        number: 0 for the layer's first call, 1 for the second of a shared layer.
    """

    layer: str
    class_name: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    names: tuple[str, ...] = ()
    number: int = 0


@frozen
class Recording:
    """One run of one model.

    Attributes:
        framework: "keras", "torch", "onnx", ...; version: of the framework.
        dtype: what was computed in.
        inputs, outputs: of the whole model.
        calls: of all layers, in the order in which they were made; containers after what they contain.
        note: what a reader should know (what could not be recorded, float64 not available).
    """

    framework: str
    version: str
    dtype: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    calls: tuple[Call, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def of(self, layer: str, number: int = 0) -> Call | None:
        """A layer's call of that number; keyed views of Keras and ONNX models write `/` as a dot."""
        calls = [call for call in self.calls if call.number == number]
        exact = next((call for call in calls if call.layer == layer), None)
        dotted = layer.replace("/", ".")
        return exact or next((call for call in calls if call.layer.replace("/", ".") == dotted), None)
