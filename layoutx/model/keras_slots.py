"""Which variables a Keras layer owns, by class and config: their names, their order, where `.weights.h5` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.graph import Node

RNNS = ("SimpleRNN", "LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU")
CONV_RNNS = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
CELLS = {"SimpleRNNCell": "SimpleRNN", "LSTMCell": "LSTM", "GRUCell": "GRU"}
RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "Conv2DTransposeV1": "Conv2DTranspose",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Deconvolution2D": "Conv2DTranspose",
}  # class names of Keras 2 files that mean a stock class under another name
UNTOUCHED = frozenset(
    [
        "InputLayer",
        "Activation",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "ThresholdedReLU",
        "Softmax",
        "Dropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "GaussianDropout",
        "GaussianNoise",
        "AlphaDropout",
        "ActivityRegularization",
        "Masking",
        "Rescaling",
        "UnitNormalization",
        "Identity",
        "RandomFlip",
        "RandomRotation",
        "RandomZoom",
        "RandomTranslation",
        "RandomContrast",
        "RandomBrightness",
    ]
)  # never own a weight and leave the axes of their input as they are (augmentation: at inference)
PLAIN = UNTOUCHED | frozenset(
    [
        "Flatten",
        "Reshape",
        "Permute",
        "RepeatVector",
        "Add",
        "Subtract",
        "Multiply",
        "Average",
        "Maximum",
        "Minimum",
        "Concatenate",
        "Dot",
        "Merge",
        "Lambda",
        "MaxPooling1D",
        "MaxPooling2D",
        "MaxPooling3D",
        "AveragePooling1D",
        "AveragePooling2D",
        "AveragePooling3D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
        "ZeroPadding1D",
        "ZeroPadding2D",
        "ZeroPadding3D",
        "Cropping1D",
        "Cropping2D",
        "Cropping3D",
        "UpSampling1D",
        "UpSampling2D",
        "UpSampling3D",
        "TFOpLambda",
        "SlicingOpLambda",
        "Resizing",
        "CenterCrop",
        "GetItem",
    ]
)  # stock classes that never own a weight


@frozen
class Piece:
    """Variables that one sub-object of a layer owns.

    `groups` are the paths of its HDF5 group below the layer's own, the first that exists counts;
    `names` the form's tensor names in the order of creation; the last `frozen` of them are never trained.
    `again`: variables of other pieces that a `.weights.h5` group holds once more, in front of its own.
    `drop`: why none of these is a weight; "" where they are.
    """

    groups: tuple[str, ...]
    names: tuple[str, ...]
    frozen: int = 0
    again: tuple[str, ...] = ()
    drop: str = ""


# stock classes without weights of which something must be known all the same: the class -> what
STATE = {
    **dict.fromkeys(
        ("StringLookup", "IntegerLookup", "TextVectorization"), "its vocabulary is state that layoutx does not move"
    ),
    "Discretization": "its boundaries are state that layoutx does not move",
    **dict.fromkeys(
        ("Hashing", "HashedCrossing", "CategoryEncoding"), "the target must encode alike, as the config says"
    ),
}
UNREAD = "only training reads it: the stored kernel is used as it is"


def remark(node: Node) -> str:
    """What a target must do itself in place of a layer without weights; "" where nothing is to be said."""
    name = stock(node)
    if name in STATE:
        return f"{name}: {STATE[name]}"
    if name == "Masking":
        value = node.config.get("mask_value", 0.0)
        return f"Masking: layers behind it skip the steps that are all {value}; the target must do so itself"
    return ""


def stock(node: Node) -> str:
    """The stock class that this layer is, "" where it is a custom one."""
    return "" if node.custom or node.operation else RENAMED.get(node.class_name, node.class_name)


def pieces(node: Node, version: int) -> tuple[Piece, ...] | None:
    """What the layer owns, in `layer.weights` order; None where the class is not known.

    Sources: keras 3.15.1 and tf_keras 2.21, `build` of each class; keras 3.15.1 saving_lib.py for the groups.
    """
    name, config = stock(node), node.config
    if name in PLAIN or node.operation:
        return ()
    if name in ("TimeDistributed", "Bidirectional", "SpectralNormalization"):
        return _wrapped(node, name, version)
    if name == "RNN":
        cell = node.part("cell")
        if cell is None or stock(cell) not in CELLS:
            return None
        return tuple(_under("cell", p) for p in pieces(cell, version) or ())
    if name in RNNS or name in CELLS or name in CONV_RNNS:
        group = ("",) if name in CELLS or name.startswith("CuDNN") else ("cell", "")
        names = ("kernel", "recurrent_kernel", *_bias(config))
        return (Piece(group, names),)
    if name in ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"):
        return _attention(config)
    if name == "BatchNormalization":
        names = _affine(config)
        return (Piece(("",), (*names, "moving_mean", "moving_variance"), 2),)
    own = _simple(name, config, version)
    return None if own is None else (Piece(("",), own),)


def _simple(name: str, config: Mapping[str, Any], version: int) -> tuple[str, ...] | None:
    if name in ("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
        return ("kernel", *_bias(config))
    if name == "EinsumDense":
        return ("kernel", "bias") if config.get("bias_axes") else ("kernel",)
    if name in ("DepthwiseConv1D", "DepthwiseConv2D"):
        return ("kernel" if version >= 3 else "depthwise_kernel", *_bias(config))
    if name in ("SeparableConv1D", "SeparableConv2D"):
        return ("depthwise_kernel", "pointwise_kernel", *_bias(config))
    if name == "ReversibleEmbedding":
        return ("embeddings",) if config.get("tie_weights", True) else ("embeddings", "reverse_embeddings")
    if name in ("LayerNormalization", "GroupNormalization"):
        return _affine(config)
    return {
        "Embedding": ("embeddings",),
        "RMSNormalization": ("scale",),
        "ShiftedRMSNormalization": ("scale",),
        "PReLU": ("alpha",),
    }.get(name)


def _bias(config: Mapping[str, Any]) -> tuple[str, ...]:
    return ("bias",) if config.get("use_bias", True) else ()


def _affine(config: Mapping[str, Any]) -> tuple[str, ...]:
    both = (("gamma", config.get("scale", True)), ("beta", config.get("center", True)))
    return tuple(name for name, there in both if there)


def _attention(config: Mapping[str, Any]) -> tuple[Piece, ...]:
    """query, key, (gate), value, output; groups `query_dense` from Keras 3.0.3, `_query_dense` in all others."""
    parts = ["query", "key", *(["gate"] if config.get("use_gate") else []), "value", "attention_output"]
    names = {p: "output_dense" if p == "attention_output" else f"{p}_dense" for p in parts}
    own = ("kernel", *_bias(config))
    return tuple(Piece((names[p], "_" + names[p]), tuple(f"{p}/{n}" for n in own)) for p in parts)


def _wrapped(node: Node, name: str, version: int) -> tuple[Piece, ...] | None:
    forward = node.part("layer")
    inner = pieces(forward, version) if forward is not None and forward.inner is None else None
    if forward is None or inner is None:
        return None
    if name == "TimeDistributed":
        return tuple(_under("layer", p) for p in inner)
    if name == "SpectralNormalization":
        vector = Piece(("",), ("vector_u",), 1, ("the weight again",), UNREAD)
        return (*(_under("layer", p) for p in inner), vector)
    backward = node.part("backward_layer")
    other = inner if backward is None else pieces(backward, version)
    if other is None:
        return None
    both = (("forward_layer", inner), ("backward_layer", other))
    return tuple(
        replace(_under(side, p), names=tuple(f"{side}/{n}" for n in p.names)) for side, own in both for p in own
    )


def _under(group: str, piece: Piece) -> Piece:
    return replace(piece, groups=tuple(f"{group}/{g}" if g else group for g in piece.groups))


def names_of(own: tuple[Piece, ...]) -> tuple[str, ...]:
    """All tensor names of a layer, in order."""
    return tuple(name for piece in own for name in piece.names)
