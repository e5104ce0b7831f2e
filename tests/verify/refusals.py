"""Which conversions must be refused, with the mathematical reason: the table that the matrix is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from layoutx.spec.bound import BoundForm

Data = Mapping[str, int]  # axis of the data -> length, where it says more than the weights


@dataclass(frozen=True)
class Refusal:
    """Sources of a kind (`holds`) that no target of these names can hold, and why."""

    kind: str
    target: str
    why: str
    holds: Callable[[BoundForm], bool]


def size(bound: BoundForm, axis: str) -> int:
    return bound.sizes.get(axis, 1)


def fact(name: str, *allowed: Any) -> Callable[[BoundForm], bool]:
    return lambda bound: bound.facts[name] not in allowed


def directions(*wanted: tuple[str, ...]) -> Callable[[BoundForm], bool]:
    return lambda bound: bound.labels["direction"] not in wanted


def spatial(bound: BoundForm) -> list[int]:
    return [bound.sizes[name] for names in bound.kind.spread.values() for name in names if name in bound.sizes]


def biased(bound: BoundForm, role: str) -> bool:
    return any(name == role for name, _ in bound.places)


ONE, BOTH = ("forward",), ("forward", "backward")
BATCH, RUNNING = "statistics are those of the batch at hand", "running statistics are not those of each sample"
REFUSALS = [
    Refusal(
        "conv", "keras.DepthwiseConv?D", "a depthwise layer sees one channel an output", lambda b: size(b, "in") > 1
    ),
    Refusal("dense", "*.Matrix", "a bare matrix has no bias", lambda b: biased(b, "bias")),
    Refusal("conv_transpose", "keras.*", "Keras has no grouped transposed convolution", lambda b: size(b, "group") > 1),
    Refusal("batch_norm", "keras.*", BATCH, fact("statistics", "running")),
    Refusal("batch_norm", "onnx.*", BATCH, fact("statistics", "running")),
    Refusal("group_norm", "*.GroupNorm*", RUNNING, fact("statistics", "instance")),
    Refusal("group_norm", "onnx.*", RUNNING, fact("statistics", "instance")),
    Refusal(
        "group_norm", "*.Instance*", "instance normalisation has one channel a group", lambda b: size(b, "channel") > 1
    ),
    Refusal(
        "prelu",
        "torch.*",
        "torch has one slope a channel, the same at all positions",
        lambda b: max(spatial(b), default=1) > 1,
    ),
    Refusal("prelu", "onnx.*", "this form has one slope a channel", lambda b: max(spatial(b), default=1) > 1),
    Refusal(
        "attention",
        "keras.MultiHeadAttention",
        "each query head has its own keys and values",
        lambda b: size(b, "rep") > 1,
    ),
    Refusal(
        "attention",
        "torch.MultiheadAttention",
        "each query head has its own keys and values",
        lambda b: size(b, "rep") > 1,
    ),
    Refusal(
        "attention",
        "torch.MultiheadAttention",
        "values are as wide as keys",
        lambda b: size(b, "value") != size(b, "head"),
    ),
    Refusal(
        "attention",
        "torch.MultiheadAttention",
        "the heads together are as wide as the queries",
        lambda b: size(b, "embed_q") != size(b, "kv") * size(b, "head"),
    ),
    Refusal(
        "attention",
        "torch.MultiheadAttention",
        "the result is as wide as the queries",
        lambda b: size(b, "out") != size(b, "embed_q"),
    ),
    Refusal(
        "attention",
        "torch.PackedAttention",
        "each query head has its own keys and values",
        lambda b: size(b, "rep") > 1,
    ),
    Refusal(
        "attention",
        "torch.PackedAttention",
        "values are as wide as keys",
        lambda b: size(b, "value") != size(b, "head"),
    ),
    Refusal(
        "attention",
        "torch.PackedAttention",
        "queries, keys and values are made of the same inputs",
        lambda b: not size(b, "embed_q") == size(b, "embed_k") == size(b, "embed_v"),
    ),
    Refusal(
        "attention",
        "onnx.MultiheadAttention",
        "each query head has its own keys and values",
        lambda b: size(b, "rep") > 1,
    ),
    Refusal(
        "attention",
        "onnx.MultiheadAttention",
        "values are as wide as keys",
        lambda b: size(b, "value") != size(b, "head"),
    ),
    Refusal(
        "attention",
        "keras.GroupQueryAttention",
        "values are as wide as keys",
        lambda b: size(b, "value") != size(b, "head"),
    ),
    Refusal(
        "attention",
        "keras.GroupQueryAttention",
        "the result is as wide as the queries",
        lambda b: size(b, "out") != size(b, "embed_q"),
    ),
    *(
        Refusal("lstm", target, "its hidden state is not projected", lambda b: biased(b, "w_projection"))
        for target in ("keras.*", "onnx.*", "torch.LSTMCell")
    ),
    *(
        Refusal("lstm", target, "its gates do not see the cell state", lambda b: biased(b, "peephole"))
        for target in ("keras.*", "torch.*")
    ),
    Refusal("normalization", "*", "a mean that the config gives is stored nowhere", lambda b: not biased(b, "mean")),
    Refusal("gru", "keras.*CuDNN*", "cuDNN applies the reset gate after the product", fact("reset", "after")),
    Refusal("gru", "torch.*", "torch applies the reset gate after the product", fact("reset", "after")),
    *(
        refusal
        for kind, stacks in (("simple_rnn", "RNN"), ("lstm", "LSTM"), ("gru", "GRU"))
        for refusal in (
            Refusal(kind, "keras.Bidirectional.*", "the layer has two directions", directions(BOTH)),
            Refusal(kind, f"keras.{'Simple' * (stacks == 'RNN')}{stacks}", "the layer runs forward", directions(ONE)),
            Refusal(kind, f"keras.CuDNN{stacks}", "the layer runs forward", directions(ONE)),
            Refusal(kind, f"torch.{stacks}", "torch runs forward, or both ways", directions(ONE, BOTH)),
            Refusal(kind, f"torch.{stacks}Cell", "a cell runs forward", directions(ONE)),
            Refusal(kind, "torch.layoutx.*", "the module runs forward, or both ways", directions(ONE, BOTH)),
        )
    ),
    Refusal("simple_rnn", "torch.*", "torch has tanh and relu", fact("activation", "tanh", "relu")),
    Refusal(
        "simple_rnn",
        "keras.*",
        "Keras has no name for it",
        lambda b: b.facts["activation"] in ("gelu_tanh", "leaky_relu_0.01"),
    ),
    Refusal("batch_norm", "torch.layoutx.*", "the module keeps running statistics", fact("statistics", "running")),
    *(
        Refusal("batch_norm", f"{name}.*", "eps is added to the variance there", fact("eps_added_to", "variance"))
        for name in ["keras", "torch", "onnx", "flax", "nnx", "haiku", "equinox", "paddle", "mlx", "tf1", "tflite"]
    ),
    Refusal(
        "simple_rnn", "onnx.*", "the spec reads these operators' names", fact("activation", "tanh", "relu", "sigmoid")
    ),
    *(
        refusal
        for kind in ("lstm", "gru")
        for refusal in (
            Refusal(kind, "keras.*CuDNN*", "cuDNN has tanh", fact("activation", "tanh")),
            Refusal(kind, "keras.*CuDNN*", "cuDNN has the sigmoid", fact("gate_activation", "sigmoid")),
            Refusal(kind, "torch.*", "torch has tanh", fact("activation", "tanh")),
            Refusal(kind, "torch.*", "torch has the sigmoid", fact("gate_activation", "sigmoid")),
            Refusal(kind, "onnx.*", "the spec reads these operators' names", fact("activation", "tanh", "relu")),
            Refusal(
                kind,
                "onnx.*",
                "ONNX has HardSigmoid with slope 0.2",
                fact("gate_activation", "sigmoid", "hard_sigmoid_0.2"),
            ),
        )
    ),
]
OWN = "torch.layoutx."
SLOPES = {2: "hard_sigmoid_1/6", 3: "hard_sigmoid_0.2"}  # what a version of Keras does not have


def refusal(source: BoundForm, target: str, config: Mapping[str, Any]) -> str:
    """Why a source cannot become a target; "" where it must."""
    for entry in REFUSALS:
        if entry.target.startswith("torch.") and (OWN in entry.target) != (OWN in target):
            continue  # torch's own layers and those of layoutx.torch, which have what torch lacks
        if entry.kind == source.kind.name and fnmatch(target, entry.target) and entry.holds(source):
            return entry.why
    lacks = SLOPES.get(config.get("version", 0), "nothing")
    slopes = [source.facts.get(name) for name in ("activation", "gate_activation")]
    return f"this version of Keras has no {lacks}" if lacks in slopes else ""
