"""Which TensorFlow 1 layers and cells are captured; block cells of tf.contrib by the operators that they called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, Plan, Shape

X, FIRST = (2, 5, 7), (5, 2, 7)
UNITS: dict[str, Any] = {"num_units": 3}


def cases() -> Iterator[Plan]:
    """All of them."""
    yield from plain()
    yield from convs()
    yield from contrib()
    yield from recurrent()
    yield from blocks()


def tf1(form: str, x: Shape, **config: Any) -> Plan:
    return Plan(f"tf1.{form}", config, {"x": x})


def plain() -> Iterator[Plan]:
    yield tf1("Dense", (2, 7), units=5)
    yield tf1("Dense", (2, 7), units=5, use_bias=False)
    for name in ("tanh", "relu", "sigmoid", "hard_sigmoid", "swish", "elu", "selu", "softplus", "softsign"):
        yield tf1("Dense", (2, 7), units=5, activation=name)
    yield tf1("BatchNormalization", (2, 5))
    yield tf1("BatchNormalization", (2, 3, 5), epsilon=EPS, momentum=0.75)
    yield tf1("BatchNormalization", (2, 7, 3, 5), scale=False)
    yield tf1("BatchNormalization", (2, 7, 3, 5), center=False)
    yield tf1("BatchNormalization", (2, 5), center=False, scale=False)
    yield tf1("BatchNormalization", (2, 7, 5, 3), axis=1)
    yield tf1("BatchNormalization", (2, 7, 3, 2, 5))


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        x, size, small = (2, *SPACE[rank], 3), list(SIZE[rank]), list(SMALL[rank])
        name = f"Conv{rank}D"
        yield tf1(name, x, filters=7, kernel_size=size)
        yield tf1(name, x, filters=7, kernel_size=size, use_bias=False, strides=[2] * rank)
        yield tf1(name, x, filters=7, kernel_size=size, padding="same", strides=[2] * rank, activation="tanh")
        yield tf1(name, x, filters=7, kernel_size=small, dilation_rate=[2] * rank)
        yield tf1(name, (2, *SPACE[rank], 1), filters=7, kernel_size=small)
        if rank < 3:
            name = f"SeparableConv{rank}D"
            yield tf1(name, x, filters=7, kernel_size=size)
            yield tf1(name, x, filters=7, kernel_size=size, depth_multiplier=2, use_bias=False)
            yield tf1(name, x, filters=7, kernel_size=size, depth_multiplier=2, padding="same", strides=2)
            yield tf1(name, x, filters=7, kernel_size=small, depth_multiplier=2, dilation_rate=2, activation="relu")
        if rank > 1:
            x, name = (2, *SHORT[rank], 3), f"Conv{rank}DTranspose"
            yield tf1(name, x, filters=7, kernel_size=size)
            yield tf1(name, x, filters=7, kernel_size=size, strides=[2] * rank, use_bias=False)
            yield tf1(name, x, filters=7, kernel_size=size, strides=[2] * rank, padding="same", activation="relu")
    # the one that TensorFlow computes with channels_first on a CPU
    yield tf1("Conv2DTranspose", (2, 3, 5, 4), filters=7, kernel_size=[5, 3], data_format="channels_first")


def contrib() -> Iterator[Plan]:
    """What tf.contrib.layers and Google's scripts compute by plain operations."""

    def plan(form: str, x: Shape, tensors: dict[str, Shape], **config: Any) -> Plan:
        return replace(tf1(form, x, **config), tensors=tensors)

    norms: list[tuple[str, Shape, dict[str, Any]]] = [
        ("LayerNorm", (2, 6), {}),
        ("LayerNorm", (2, 6), {"epsilon": EPS}),
        ("GroupNorm", (2, 5, 3, 6), {"groups": 3}),
        ("GroupNorm", (2, 5, 6), {"groups": 2, "epsilon": EPS}),
        ("InstanceNorm", (2, 5, 3, 6), {}),
        ("InstanceNorm", (2, 5, 6), {"epsilon": EPS}),
    ]
    for name, x, config in norms:
        yield plan(name, x, {"gamma": (6,), "beta": (6,)}, **config)
        yield plan(name, x, {"beta": (6,)}, **config, scale=False)
        yield plan(name, x, {"gamma": (6,)}, **config, center=False)
    for x, mult, config in (
        ((2, 11, 7, 3), 1, {"padding": "VALID"}),
        ((2, 11, 7, 3), 2, {"padding": "VALID", "depth_multiplier": 2}),
        ((2, 11, 7, 3), 2, {"padding": "SAME", "stride": 2, "depth_multiplier": 2}),
        ((2, 11, 7, 3), 1, {"padding": "SAME", "rate": 2}),
    ):
        kernel: dict[str, Shape] = {"depthwise_kernel": (5, 3, 3, mult)}
        yield plan("DepthwiseConv2D", x, {**kernel, "bias": (3 * mult,)}, **config)
        yield plan("DepthwiseConv2D", x, kernel, **config, use_bias=False)
    rows: dict[str, Shape] = {"output_weights": (5, 7)}
    yield plan("Output", (2, 7), {**rows, "output_bias": (5,)})
    yield plan("Output", (2, 7), rows, use_bias=False)


def recurrent() -> Iterator[Plan]:
    more: list[dict[str, Any]] = [{}, {"activation": "relu"}, {"activation": "softsign"}]
    lstm: list[dict[str, Any]] = [{"forget_bias": 0.0}, {"forget_bias": 0.75}]
    whole: list[dict[str, Any]] = [
        {"use_peepholes": True},
        {"num_proj": 2},
        {"use_peepholes": True, "num_proj": 2, "forget_bias": 0.75},
    ]
    cells = {"BasicRNNCell": more, "GRUCell": more, "BasicLSTMCell": more + lstm, "LSTMCell": more + lstm + whole}
    for name, configs in cells.items():
        for config in configs:
            yield tf1(name, X, **UNITS, **config)
            yield tf1(f"Bidirectional.{name}", X, **UNITS, **config)
        yield tf1(name, FIRST, **UNITS, time_major=True)
        yield tf1(f"Bidirectional.{name}", FIRST, **UNITS, time_major=True)


def blocks() -> Iterator[Plan]:
    def block(form: str, x: Shape, tensors: dict[str, Shape], **config: Any) -> Plan:
        return replace(tf1(form, x, **UNITS, **config), tensors=tensors, dtype="float32")

    lstm: dict[str, Shape] = {"kernel": (10, 12), "bias": (12,)}
    seeing: dict[str, Shape] = {**lstm, "w_i_diag": (3,), "w_f_diag": (3,), "w_o_diag": (3,)}
    for name, x in (("LSTMBlockCell", X), ("LSTMBlockFusedCell", FIRST)):
        yield block(name, x, lstm)
        yield block(name, x, lstm, forget_bias=0.0)
        yield block(name, x, lstm, forget_bias=0.75, cell_clip=-1)
        yield block(name, x, seeing, use_peephole=True)
        yield block(name, x, seeing, use_peephole=True, forget_bias=0.75)
    yield block("LSTMBlockCell", FIRST, seeing, use_peephole=True, time_major=True)
    yield block("BlockLSTMV2", FIRST, lstm)
    yield block("BlockLSTMV2", FIRST, seeing, use_peephole=True)
    yield block("CudnnCompatibleLSTMCell", X, lstm)
    yield block("CudnnCompatibleLSTMCell", FIRST, lstm, time_major=True)
    crossed: dict[str, Shape] = {"w_c": (10, 6), "b_ru": (6,), "w_ru": (10, 3), "b_c": (3,)}
    gru: dict[str, Shape] = {
        "gates/kernel": (10, 6),
        "gates/bias": (6,),
        "candidate/kernel": (10, 3),
        "candidate/bias": (3,),
    }
    for name, tensors in (("GRUBlockCell", crossed), ("GRUBlockCellV2", gru)):
        yield block(name, X, tensors)
        yield block(name, FIRST, tensors, time_major=True)
