"""Which layers are captured as witnesses: real constructor keywords, input shapes, and for onnx the weights' shapes.

Nothing here is read from a spec: sizes are different primes where the layer allows it, and no option that a
spec reads is left untried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One layer to capture.

    `tensors`: names and shapes, where the framework cannot list them. `vocab`: x are indices below it.
    `zeros`: tensors of these names (a glob) are zero, for targets that have no place for them.
    """

    form: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Shape]
    tensors: Mapping[str, Shape] | None = None
    refine: Mapping[str, str] = field(default_factory=dict)
    vocab: int = 0
    dtype: str = "float64"
    zeros: str = ""


SIZE: dict[int, Shape] = {1: (5,), 2: (5, 3), 3: (5, 3, 2)}  # of kernels
SMALL: dict[int, Shape] = {1: (3,), 2: (3, 2), 3: (3, 2, 2)}  # of dilated ones
SHORT: dict[int, Shape] = {1: (5,), 2: (5, 4), 3: (4, 3, 2)}  # of what is transposed
SPACE: dict[int, Shape] = {1: (11,), 2: (11, 7), 3: (7, 5, 3)}
EPS = 2.0**-7  # onnx keeps attributes in float32
OTHERS = tuple(sorted(p.stem.removeprefix("witnesses_") for p in Path(__file__).parent.glob("witnesses_*.py")))
WHERE = {"query": (2, 4, 13), "key": (2, 5, 17), "value": (2, 5, 19)}
PAIR = {"query": (2, 4, 15), "key": (2, 5, 17), "value": (2, 5, 17)}  # what every class of three heads of five takes


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    for version in (3, 2):
        yield from keras_plain(version)
        yield from keras_convs(version)
        yield from keras_norms(version)
        yield from keras_recurrent(version)
        yield from keras_attention(version)
    yield from torch_plain()
    yield from torch_convs()
    yield from torch_norms()
    yield from torch_recurrent()
    yield from torch_attention()
    yield from onnx_plain()
    yield from onnx_convs()
    yield from onnx_norms()
    yield from onnx_recurrent()
    yield from onnx_attention()
    for name in OTHERS:
        yield from import_module(f"witnesses_{name}").cases()


def keras_plain(version: int) -> Iterator[Plan]:
    def keras(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
        return Plan(f"keras.{form}", {**config, "version": version}, {"x": x}, None, refine or {}, vocab)

    x = (2, 7)
    yield keras("Dense", x, units=5)
    yield keras("Dense", x, units=5, use_bias=False)
    activations = ["tanh", "relu", "sigmoid", "hard_sigmoid", "swish", "elu", "selu", "softplus", "softsign"]
    for name in [*activations, "exponential", "softmax"] + ["silu"] * (version == 3):
        yield keras("Dense", x, units=5, activation=name)
    for name in ["gelu"] + ["leaky_relu"] * (version == 3):  # their constants are float32 in float64 layers too
        yield replace(keras("Dense", x, units=5, activation=name), dtype="float32")
    yield keras("EinsumDense", x, equation="ab,bc->ac", output_shape=5, bias_axes="c")
    yield keras("EinsumDense", x, equation="ab,cb->ac", output_shape=5)
    yield keras("EinsumDense", (2, 7, 5), equation="abc,bcde->ade", output_shape=[3, 11], bias_axes="de")
    yield keras("EinsumDense", (2, 7, 5), equation="abc,dcbe->aed", output_shape=[3, 11], bias_axes="ed")
    yield keras("EinsumDense", (2, 7, 5), equation="abc,cdb->ad", output_shape=11, bias_axes="d", activation="tanh")
    yield keras("Embedding", (5,), vocab=11, input_dim=11, output_dim=3)
    yield keras("PReLU", (2, 5))
    yield keras("PReLU", (2, 5, 3))
    yield keras("PReLU", (2, 5, 3), shared_axes=[1])
    yield keras("PReLU", (2, 7, 5, 3))
    yield keras("PReLU", (2, 7, 5, 3), shared_axes=[1, 2])
    yield keras("PReLU", (2, 7, 5, 3), shared_axes=[1])
    yield keras("PReLU", (2, 7, 5, 3), shared_axes=[2])
    yield keras("PReLU", (2, 7, 5, 3), shared_axes=[1, 2, 3])


def keras_convs(version: int) -> Iterator[Plan]:
    def keras(form: str, x: Shape, **config: Any) -> Plan:
        return Plan(f"keras.{form}", {**config, "version": version}, {"x": x})

    for rank in (1, 2, 3):
        x, size, small = (2, *SPACE[rank], 3), list(SIZE[rank]), list(SMALL[rank])
        name = f"Conv{rank}D"
        yield keras(name, x, filters=7, kernel_size=size)
        yield keras(name, x, filters=7, kernel_size=size, use_bias=False, strides=[2] * rank)
        yield keras(name, x, filters=7, kernel_size=size, padding="same", strides=[2] * rank, activation="tanh")
        yield keras(name, x, filters=7, kernel_size=small, dilation_rate=[2] * rank)
        yield keras(name, (2, *SPACE[rank], 6), filters=10, kernel_size=size, groups=2)
        yield keras(name, x, filters=6, kernel_size=small, groups=3)
        if rank < 3:
            yield keras(f"Depthwise{name}", (2, *SPACE[rank], 1), kernel_size=small, depth_multiplier=7)
            yield keras(
                name, (2, *SPACE[rank], 6), filters=10, kernel_size=small, groups=2, use_bias=False, dilation_rate=2
            )
            yield keras(f"Depthwise{name}", x, kernel_size=size)
            yield keras(f"Depthwise{name}", x, kernel_size=size, depth_multiplier=2, padding="same")
            yield keras(f"Depthwise{name}", x, kernel_size=size, depth_multiplier=2, use_bias=False, strides=2)
            yield keras(
                f"Depthwise{name}", x, kernel_size=small, depth_multiplier=2, dilation_rate=2, activation="relu"
            )
            yield keras(f"Separable{name}", x, filters=7, kernel_size=size)
            yield keras(f"Separable{name}", x, filters=7, kernel_size=size, depth_multiplier=2, use_bias=False)
            yield keras(
                f"Separable{name}", x, filters=7, kernel_size=size, depth_multiplier=2, padding="same", strides=2
            )
            yield keras(f"Separable{name}", x, filters=7, kernel_size=small, depth_multiplier=2, dilation_rate=2)
        if rank == 1:
            yield keras(name, x, filters=7, kernel_size=size, padding="causal", dilation_rate=2)
        short = (2, *SHORT[rank], 3)
        yield keras(f"{name}Transpose", short, filters=7, kernel_size=size)
        yield keras(f"{name}Transpose", short, filters=7, kernel_size=size, strides=[2] * rank, use_bias=False)
        yield keras(
            f"{name}Transpose",
            short,
            filters=7,
            kernel_size=size,
            strides=[2] * rank,
            padding="same",
            activation="relu",
        )
        if rank < 3:
            yield keras(
                f"{name}Transpose", short, filters=7, kernel_size=size, strides=2, padding="same", output_padding=0
            )
            yield keras(f"{name}Transpose", short, filters=7, kernel_size=size, strides=2, output_padding=1)
        if rank == 2 and version == 2:  # TensorFlow has no other dilated one for the CPU
            yield keras(f"{name}Transpose", short, filters=7, kernel_size=small, dilation_rate=2)
    # TensorFlow computes few layers with channels_first on a CPU; SeparableConv1D of keras 3.15.1 does, but wrongly
    first: dict[str, Any] = {"data_format": "channels_first", "kernel_size": [5, 3]}
    yield keras("DepthwiseConv2D", (2, 3, 11, 7), depth_multiplier=2, **first)
    if version == 2:
        yield keras("Conv2DTranspose", (2, 3, 5, 4), filters=7, **first)
    else:
        yield keras("SeparableConv2D", (2, 3, 11, 7), filters=7, depth_multiplier=2, **first)
        yield keras("Conv3D", (2, 3, 7, 5, 3), filters=7, **{**first, "kernel_size": [5, 3, 2]})


def keras_norms(version: int) -> Iterator[Plan]:
    def keras(form: str, x: Shape, refine: Mapping[str, str] | None = None, **config: Any) -> Plan:
        return Plan(f"keras.{form}", {**config, "version": version}, {"x": x}, None, refine or {})

    yield keras("BatchNormalization", (2, 5))
    yield keras("BatchNormalization", (2, 3, 5), epsilon=EPS, momentum=0.75)
    yield keras("BatchNormalization", (2, 7, 3, 5), scale=False)
    yield keras("BatchNormalization", (2, 7, 3, 5), center=False)
    yield keras("BatchNormalization", (2, 5), center=False, scale=False)
    yield keras("BatchNormalization", (2, 7, 5, 3), axis=1)
    yield keras("BatchNormalization", (2, 7, 3, 2, 5))
    yield keras("LayerNormalization", (2, 7))
    yield keras("LayerNormalization", (2, 7), epsilon=EPS, center=False)
    yield keras("LayerNormalization", (2, 7), epsilon=EPS, scale=False)
    yield keras("LayerNormalization", (2, 7, 5), {"features": "h c"}, axis=[1, 2])
    yield keras("GroupNormalization", (2, 6), groups=3)
    yield keras("GroupNormalization", (2, 5, 6), groups=3, epsilon=EPS, scale=False)
    yield keras("GroupNormalization", (2, 5, 7, 6), groups=2, epsilon=EPS, center=False)
    yield keras("GroupNormalization", (2, 6, 5, 7), groups=2, axis=1)
    for space in ((5,), (5, 7), (5, 7, 2)):
        yield keras("GroupNormalization", (2, *space, 3), groups=-1)
    if version == 3:
        yield keras("RMSNormalization", (2, 7))
        yield keras("RMSNormalization", (2, 7), epsilon=EPS)
        yield keras("RMSNormalization", (2, 7, 5), {"features": "h c"}, axis=[1, 2])
        for more in ({}, {"epsilon": EPS}, {"shift": 0.5}):
            yield keras("ShiftedRMSNormalization", (2, 7), **more)


def keras_recurrent(version: int) -> Iterator[Plan]:
    def keras(form: str, **config: Any) -> Plan:
        # a config of Keras 2 always says it, and without it another function is meant
        after = {"reset_after": True} if version == 2 and form.endswith("GRU") else {}
        return Plan(f"keras.{form}", {**after, **config, "version": version}, {"x": (2, 5, 7)})

    for name in ("SimpleRNN", "LSTM", "GRU"):
        yield keras(name, units=3)
        yield keras(name, units=3, use_bias=False)
        yield keras(name, units=3, activation="relu")
        yield keras(name, units=3, activation="softsign" if name == "SimpleRNN" else "hard_sigmoid")
        yield keras(name, units=3, go_backwards=True)
        yield keras(f"Bidirectional.{name}", units=3)
        yield keras(f"Bidirectional.{name}", units=3, use_bias=False)
        yield keras(f"Bidirectional.{name}", units=3, activation="hard_sigmoid")
        if name == "SimpleRNN":
            yield keras(name, units=3, activation="hard_sigmoid")
        for merge in ("sum", "mul", "ave"):
            yield keras(f"Bidirectional.{name}", units=3, merge_mode=merge)
        if name != "SimpleRNN":
            yield keras(name, units=3, recurrent_activation="hard_sigmoid")
            yield keras(f"Bidirectional.{name}", units=3, recurrent_activation="hard_sigmoid")
    yield keras("GRU", units=3, reset_after=False)
    yield keras("GRU", units=3, reset_after=False, use_bias=False)
    yield keras("GRU", units=3, reset_after=False, recurrent_activation="hard_sigmoid", activation="linear")
    yield keras("Bidirectional.GRU", units=3, reset_after=False)
    if version == 3:
        yield keras("GRU", units=3, reset_after=True)


def keras_attention(version: int) -> Iterator[Plan]:
    config = {"num_heads": 3, "key_dim": 5, "version": version}
    form = "keras.MultiHeadAttention"
    for more in ({}, {"use_bias": False}, {"value_dim": 7}, {"value_dim": 7, "output_shape": 11}):
        yield Plan(form, {**config, **more}, WHERE)
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    yield Plan(form, config, same)
    yield Plan(form, {**config, "use_bias": False}, same)
    if version == 3:
        config = {"head_dim": 5, "num_query_heads": 6, "num_key_value_heads": 3, "version": 3}
        for more in ({}, {"use_bias": False}, {"num_key_value_heads": 6}):
            yield Plan("keras.GroupQueryAttention", {**config, **more}, WHERE)
        yield Plan("keras.GroupQueryAttention", {**config, "num_query_heads": 3}, PAIR)
        yield Plan("keras.GroupQueryAttention", {**config, "num_query_heads": 3}, same)


def torch(form: str, x: Shape, refine: Mapping[str, str] | None = None, vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"torch.{form}", config, {"x": x}, None, refine or {}, vocab)


def torch_plain() -> Iterator[Plan]:
    yield torch("Linear", (2, 7), in_features=7, out_features=5)
    yield torch("Linear", (2, 7), in_features=7, out_features=5, bias=False)
    for bias in (True, False):
        held = {"weight": (7, 5), "bias": (5,)} if bias else {"weight": (7, 5)}
        yield Plan("torch.TransposedLinear", {"bias": bias}, {"x": (2, 7)}, held)
    for more in ({}, {"eps": EPS}, {"shift": 0.5}):
        yield Plan("torch.ShiftedRMSNorm", more, {"x": (2, 7)}, {"weight": (7,)})
    yield torch("Linear.Pointwise", (2, 7), in_features=7, out_features=5)
    yield torch("Linear.Pointwise", (2, 5, 3, 7), in_features=7, out_features=5, bias=False)
    for rank in (1, 2, 3):
        sizes = {"in_channels": 7, "out_channels": 11, "kernel_size": 1}
        yield torch(f"Conv{rank}d.Pointwise", (2, 7, *(1,) * rank), **sizes)
        yield torch(f"Conv{rank}d.Pointwise", (2, 7, *(5, 3, 2)[:rank]), **sizes, bias=False)
        window = dict(zip(("pd", "ph", "pw")[3 - rank :], (2, 3, 5), strict=False))
        patches = {"in_channels": 3, "out_channels": 7, "kernel_size": [*window.values()]}
        own = {"input": " ".join(("c", *window))}
        for more in ({}, {"bias": False}, {"stride": [*window.values()]}):
            yield torch(f"Conv{rank}d.Patches", (2, 3, *window.values()), own, **patches, **more)
    yield torch("Embedding", (5,), vocab=11, num_embeddings=11, embedding_dim=3)
    yield torch("Embedding", (5,), vocab=11, num_embeddings=11, embedding_dim=3, padding_idx=2)
    for more in ({}, {"padding_idx": 1}):
        yield torch("Embedding.Offset", (5,), vocab=11, num_embeddings=13, embedding_dim=3, offset=2, **more)
    yield torch("PReLU", (2, 5), num_parameters=5)
    yield torch("PReLU", (2, 5, 3), num_parameters=5)
    yield torch("PReLU", (2, 5, 7, 3), num_parameters=5)
    yield torch("PReLU", (2, 5, 7, 3))


def torch_convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SPACE[rank], list(SIZE[rank]), list(SMALL[rank])
        plain = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        dilated = {**plain, "kernel_size": small, "dilation": 2}
        grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
        pads = [2, 1, 1][:rank]
        for name, x in ((f"Conv{rank}d", space), (f"ConvTranspose{rank}d", SHORT[rank])):
            yield torch(name, (2, 3, *x), **plain)
            yield torch(name, (2, 3, *x), **plain, bias=False, stride=2)
            yield torch(name, (2, 3, *x), **plain, padding=pads, stride=[2] * rank)
            yield torch(name, (2, 3, *x), **dilated)
            yield torch(name, (2, 6, *x), **grouped)
            yield torch(name, (2, 6, *x), **grouped, bias=False, stride=2, padding=1)
        yield torch(f"Conv{rank}d", (2, 3, *space), **dilated, padding="same")
        yield torch(f"Conv{rank}d", (2, 3, *space), **plain, padding="valid")
        yield torch(f"Conv{rank}d", (2, 3, *space), in_channels=3, out_channels=6, kernel_size=small, groups=3)
        yield torch(f"ConvTranspose{rank}d", (2, 3, *SHORT[rank]), **plain, stride=2, padding=1, output_padding=1)
        for more in ({}, {"stride": 2, "padding": 1}, {"dilation": 2, "kernel_size": small}):
            tensors = {
                "depthwise.weight": (6, 1, *more.get("kernel_size", size)),
                "pointwise.weight": (7, 6) + (1,) * rank,
            }
            config = {"in_channels": 3, "out_channels": 7, "depth_multiplier": 2, "kernel_size": size, **more}
            x = {"x": (2, 3, *space)}
            form = f"torch.SeparableConv{rank}d"
            yield Plan(form, {**config, "bias": False}, x, tensors)
            yield Plan(form, config, x, {**tensors, "pointwise.bias": (7,)})


def torch_norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        x = (2, 5, *(7, 3, 2)[:rank])
        name = f"BatchNorm{rank}d"
        yield torch(name, x, num_features=5)
        yield torch(name, x, num_features=5, eps=EPS, momentum=0.25, affine=False)
        yield torch(name, x, num_features=5, bias=False)
        yield torch(name, x, num_features=5, track_running_stats=False)
        name = f"InstanceNorm{rank}d"
        yield torch(name, x, num_features=5)
        yield torch(name, x, num_features=5, eps=EPS, affine=True)
        yield torch(name, x, num_features=5, affine=True, track_running_stats=True)
        yield torch(name, x, num_features=5, eps=EPS, track_running_stats=True)
    yield torch("BatchNorm1d", (2, 5), num_features=5)
    yield torch("GroupNorm", (2, 6), num_groups=3, num_channels=6)
    yield torch("GroupNorm", (2, 6, 5), num_groups=2, num_channels=6, eps=EPS)
    yield torch("GroupNorm", (2, 6, 5, 7), num_groups=2, num_channels=6, bias=False)
    yield torch("GroupNorm", (2, 6, 5, 7), num_groups=2, num_channels=6, affine=False)
    for space in ((7,), (7, 3), (7, 3, 2)):
        yield torch("GroupNorm", (2, 5, *space), num_groups=5, num_channels=5)
    yield torch("LayerNorm", (2, 7), normalized_shape=7)
    yield torch("LayerNorm", (2, 7), normalized_shape=[7], eps=EPS, bias=False)
    yield torch("LayerNorm", (2, 7), normalized_shape=7, elementwise_affine=False)
    yield torch("LayerNorm", (2, 7, 5), {"features": "h c"}, normalized_shape=[7, 5])
    yield torch("RMSNorm", (2, 7), normalized_shape=7)
    yield torch("RMSNorm", (2, 7), normalized_shape=7, eps=EPS)
    yield torch("RMSNorm", (2, 7), normalized_shape=7, eps=EPS, elementwise_affine=False)
    yield torch("RMSNorm", (2, 7, 5), {"features": "h c"}, normalized_shape=[7, 5])


def torch_recurrent() -> Iterator[Plan]:
    sizes = {"input_size": 7, "hidden_size": 3}
    for name in ("RNN", "LSTM", "GRU"):
        relu = [{"nonlinearity": "relu"}] if name == "RNN" else []
        yield torch(name, (5, 2, 7), **sizes, batch_first=False)
        for more in ({}, {"bias": False}, {"bidirectional": True}, *relu):
            yield torch(name, (2, 5, 7), **sizes, batch_first=True, **more)
        yield torch(name, (2, 5, 7), **sizes, batch_first=True, num_layers=2)
        yield torch(name, (2, 5, 7), **sizes, batch_first=True, num_layers=3, bidirectional=True)
        yield torch(name, (5, 2, 7), **sizes, batch_first=False, num_layers=2, bidirectional=True, bias=False)
        for more in ({}, {"bias": False}, *relu):
            yield torch(f"{name}Cell", (2, 5, 7), **sizes, **more)
    wide = {"input_size": 7, "hidden_size": 5, "proj_size": 3}
    for more in ({}, {"bias": False}, {"bidirectional": True}, {"bidirectional": True, "num_layers": 2}):
        yield torch("LSTM", (2, 11, 7), **wide, batch_first=True, **more)


def torch_attention() -> Iterator[Plan]:
    config = {"embed_dim": 15, "num_heads": 3, "batch_first": True}
    form = "torch.MultiheadAttention"
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    other = {"query": (2, 4, 15), "key": (2, 5, 17), "value": (2, 5, 19)}
    for bias in (True, False):
        yield Plan(form, {**config, "bias": bias, "_qkv_same_embed_dim": True}, same)
        yield Plan(form, {**config, "bias": bias, "kdim": 17, "vdim": 19, "_qkv_same_embed_dim": False}, other)
    first = {name: (shape[1], shape[0], shape[2]) for name, shape in same.items()}
    yield Plan(form, {**config, "batch_first": False, "_qkv_same_embed_dim": True}, first)
    for kv, value in ((6, 5), (3, 5), (2, 7)):
        tensors = {
            "q_proj.weight": (30, 13),
            "q_proj.bias": (30,),
            "k_proj.weight": (kv * 5, 17),
            "k_proj.bias": (kv * 5,),
        }
        tensors |= {"v_proj.weight": (kv * value, 19), "v_proj.bias": (kv * value,)}
        tensors |= {"out_proj.weight": (11, 6 * value), "out_proj.bias": (11,)}
        for bias in (True, False):
            held = {name: shape for name, shape in tensors.items() if bias or not name.endswith("bias")}
            heads = {"num_heads": 6, "num_kv_heads": kv, "bias": bias}
            yield Plan("torch.AttentionProjections", heads, WHERE, held)
    tensors = {}
    for name, weight in {"q": (15, 15), "k": (15, 17), "v": (15, 17), "out": (15, 15)}.items():
        tensors |= {f"{name}_proj.weight": weight, f"{name}_proj.bias": weight[:1]}
    yield Plan("torch.AttentionProjections", {"num_heads": 3, "num_kv_heads": 3, "bias": True}, PAIR, tensors)
    form = "torch.PackedAttention"
    for each, first, last, bias in product((False, True), (False, True), (False, True), ("both", "in", "out", "")):
        turned = {"each_head": each, "in_turned": first, "out_turned": last}
        given = {**turned, "in_bias": bias in ("both", "in"), "out_bias": bias in ("both", "out")}
        tensors = {"in_proj.weight": (15, 45) if first else (45, 15), "in_proj.bias": (45,)}
        tensors |= {"out_proj.weight": (15, 11) if last else (11, 15), "out_proj.bias": (11,)}
        held = {n: s for n, s in tensors.items() if not n.endswith("bias") or given[f"{n.partition('_')[0]}_bias"]}
        batch = bias != "in"
        x = {name: shape if batch else (shape[1], shape[0], shape[2]) for name, shape in same.items()}
        yield Plan(form, {"num_heads": 3, **given, "batch_first": batch}, x, held)
    tensors = {"in_proj.weight": (45, 15), "in_proj.bias": (45,), "out_proj.weight": (15, 15), "out_proj.bias": (15,)}
    yield Plan(form, {"num_heads": 3}, same, tensors)
    tensors = {}
    for name in ("q", "k", "v", "out"):
        tensors |= {f"{name}_proj.weight": (15, 15), f"{name}_proj.bias": (15,)}
    yield Plan("torch.AttentionProjections", {"num_heads": 3, "num_kv_heads": 3, "bias": True}, same, tensors)


def onnx(form: str, x: Shape, tensors: Mapping[str, Shape], vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"onnx.{form}", config, {"x": x}, tensors, {}, vocab)


def onnx_plain() -> Iterator[Plan]:
    yield onnx("Gemm", (2, 7), {"B": (7, 5), "C": (5,)})
    yield onnx("Gemm", (2, 7), {"B": (5, 7), "C": (5,)}, transB=1)
    yield onnx("Gemm", (2, 7), {"B": (5, 7)}, transB=1)
    yield onnx("Gemm.Pointwise", (2, 7), {"B": (7, 5), "C": (5,)})
    yield onnx("Gemm.Pointwise", (2, 7), {"B": (5, 7), "C": (5,)}, transB=1)
    yield onnx("MatMul.Pointwise", (2, 5, 3, 7), {"B": (7, 5), "bias": (5,)})
    yield onnx("MatMul", (2, 7), {"B": (7, 5), "bias": (5,)})
    yield onnx("MatMul", (2, 7), {"B": (7, 5)})
    yield onnx("Gather", (5,), {"data": (11, 3)}, vocab=11)
    yield onnx("PRelu", (2, 5), {"slope": (5,)})
    yield onnx("PRelu", (2, 5, 3), {"slope": (5, 1)})
    yield onnx("PRelu", (2, 5, 7, 3), {"slope": (5, 1, 1)})
    yield onnx("PRelu", (2, 5, 7, 3), {"slope": (1, 1, 1)})


def onnx_convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        space, size, small = SPACE[rank], SIZE[rank], SMALL[rank]
        shorter = SHORT[rank]
        two, pads = [2] * rank, [[1], [2, 1], [1, 0, 1]][rank - 1] + [[2], [0, 1], [2, 1, 0]][rank - 1]
        for name, x, into, out in (("Conv", space, (7, 3), 7), ("ConvTranspose", shorter, (3, 7), 7)):
            yield onnx(name, (2, 3, *x), {"W": (*into, *size), "B": (out,)})
            yield onnx(name, (2, 3, *x), {"W": (*into, *size)}, strides=two, pads=pads, kernel_shape=list(size))
            yield onnx(name, (2, 3, *x), {"W": (*into, *small), "B": (out,)}, dilations=two)
            yield onnx(name, (2, 3, *x), {"W": (*into, *size), "B": (out,)}, auto_pad="SAME_UPPER", strides=two)
            yield onnx(name, (2, 3, *x), {"W": (*into, *size), "B": (out,)}, auto_pad="VALID")
        yield onnx("Conv", (2, 6, *space), {"W": (10, 3, *small), "B": (10,)}, group=2)
        yield onnx("Conv", (2, 3, *space), {"W": (6, 1, *small), "B": (6,)}, group=3)
        yield onnx("ConvTranspose", (2, 6, *shorter), {"W": (6, 5, *small), "B": (10,)}, group=2)
        yield onnx(
            "ConvTranspose", (2, 3, *shorter), {"W": (3, 7, *size), "B": (7,)}, strides=two, output_padding=[1] * rank
        )
        tensors = {"depthwise.W": (6, 1, *size), "pointwise.W": (7, 6) + (1,) * rank}
        yield onnx("SeparableConv", (2, 3, *space), tensors, group=3)
        yield onnx("SeparableConv", (2, 3, *space), {**tensors, "pointwise.B": (7,)}, group=3, strides=two, pads=pads)


def onnx_norms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        x = (2, 5, *(7, 3, 2)[:rank])
        four = dict.fromkeys(("scale", "B", "input_mean", "input_var"), (5,))
        yield onnx("BatchNormalization", x, four, epsilon=EPS)
        yield onnx("InstanceNormalization", x, dict.fromkeys(("scale", "B"), (5,)), epsilon=EPS)
        yield onnx("GroupNormalization", x, dict.fromkeys(("scale", "bias"), (5,)), num_groups=5, epsilon=EPS)
    yield onnx("GroupNormalization", (2, 6, 5), dict.fromkeys(("scale", "bias"), (6,)), num_groups=3, epsilon=EPS)
    yield onnx(
        "GroupNormalization", (2, 6, 5, 7), dict.fromkeys(("scale", "bias"), (6,)), num_groups=2, epsilon=2.0**-9
    )
    yield onnx("LayerNormalization", (2, 7), {"Scale": (7,), "B": (7,)}, epsilon=EPS)
    yield onnx("LayerNormalization", (2, 7), {"Scale": (7,)}, epsilon=EPS)
    x, two = {"x": (2, 7, 5)}, {"features": "h c"}
    config = {"axis": 1, "epsilon": EPS}
    yield Plan("onnx.LayerNormalization", config, x, {"Scale": (7, 5), "B": (7, 5)}, two)
    yield onnx("RMSNormalization", (2, 7), {"scale": (7,)}, epsilon=EPS)
    yield Plan("onnx.RMSNormalization", config, x, {"scale": (7, 5)}, two)


def onnx_recurrent() -> Iterator[Plan]:
    plain = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
    for name, activations in plain.items():
        rows = 3 * {"RNN": 1, "LSTM": 4, "GRU": 3}[name]
        one = {"W": (1, rows, 7), "R": (1, rows, 3), "B": (1, 2 * rows)}
        both = {"W": (2, rows, 7), "R": (2, rows, 3), "B": (2, 2 * rows)}
        bare = {key: shape for key, shape in both.items() if key != "B"}
        resets = [{"linear_before_reset": 0}, {"linear_before_reset": 1}] if name == "GRU" else [{}]
        for reset in resets:
            yield onnx(name, (5, 2, 7), one, hidden_size=3, **reset)
            yield onnx(name, (5, 2, 7), both, hidden_size=3, direction="bidirectional", **reset)
            yield onnx(name, (5, 2, 7), bare, hidden_size=3, direction="bidirectional", **reset)
            yield onnx(name, (5, 2, 7), one, hidden_size=3, direction="reverse", **reset)
            relu = ["Relu"] if name == "RNN" else [a.replace("Tanh", "Relu") for a in activations]
            yield onnx(name, (5, 2, 7), one, hidden_size=3, activations=relu, **reset)
            yield onnx(name, (5, 2, 7), both, hidden_size=3, direction="bidirectional", activations=relu * 2, **reset)
            if name == "LSTM":
                yield onnx(name, (5, 2, 7), {**one, "P": (1, 9)}, hidden_size=3)
                yield onnx(name, (5, 2, 7), {**both, "P": (2, 9)}, hidden_size=3, direction="bidirectional")
                without = {key: shape for key, shape in one.items() if key != "B"}
                yield onnx(name, (5, 2, 7), {**without, "P": (1, 9)}, hidden_size=3, direction="reverse")
            if name != "RNN":
                hard = ["HardSigmoid", *activations[1:]]
                yield onnx(name, (5, 2, 7), one, hidden_size=3, activations=hard, **reset)
                yield onnx(
                    name, (5, 2, 7), both, hidden_size=3, direction="bidirectional", activations=hard * 2, **reset
                )
            else:
                yield onnx(name, (5, 2, 7), one, hidden_size=3, activations=["Sigmoid"])
                yield onnx(name, (5, 2, 7), both, hidden_size=3, direction="bidirectional", activations=["Sigmoid"] * 2)


def onnx_attention() -> Iterator[Plan]:
    for kv, value in ((6, 5), (3, 5), (2, 7)):
        tensors = {"q.B": (13, 30), "q.bias": (30,), "k.B": (17, kv * 5), "k.bias": (kv * 5,)}
        tensors |= {"v.B": (19, kv * value), "v.bias": (kv * value,), "out.B": (6 * value, 11), "out.bias": (11,)}
        for bias in (True, False):
            held = {name: shape for name, shape in tensors.items() if bias or not name.endswith("bias")}
            yield Plan("onnx.AttentionProjections", {"num_heads": 6, "num_kv_heads": kv}, WHERE, held)
    tensors = {}
    for name, weight in {"q": (15, 15), "k": (17, 15), "v": (17, 15), "out": (15, 15)}.items():
        tensors |= {f"{name}.B": weight, f"{name}.bias": weight[1:]}
    yield Plan("onnx.AttentionProjections", {"num_heads": 3, "num_kv_heads": 3}, PAIR, tensors)
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    tensors = {}
    for name in ("q", "k", "v", "out"):
        tensors |= {f"{name}.B": (15, 15), f"{name}.bias": (15,)}
    yield Plan("onnx.AttentionProjections", {"num_heads": 3, "num_kv_heads": 3}, same, tensors)
