"""Witnesses of the kinds beyond the plain ones in keras, tf_keras, torch and onnx: ConvLSTM, locally connected, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from witness_cases import SMALL, Plan, Shape

SPACE: dict[int, Shape] = {1: (7,), 2: (5, 4), 3: (4, 3, 2)}
KERNEL: dict[int, Shape] = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}  # an even size shows where "same" puts the odd pixel


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    for version in (3, 2):
        yield from conv_lstms(version)
        yield from normalizations(version)
        yield from scored(version)
    yield from locally_connected()
    yield from cudnn()
    yield from gates_and_tables()
    yield from packed_attention()
    yield from torch_and_onnx()


def keras(form: str, x: Shape, version: int, refine: Mapping[str, str] | None = None, **config: Any) -> Plan:
    return Plan(f"keras.{form}", {**config, "version": version}, {"x": x}, None, refine or {})


def conv_lstms(version: int) -> Iterator[Plan]:
    for rank in (1, 2, 3):
        form, x, size = f"ConvLSTM{rank}D", (2, 3, *SPACE[rank], 3), list(KERNEL[rank])
        yield keras(form, x, version, filters=5, kernel_size=size)
        yield keras(form, x, version, filters=5, kernel_size=size, use_bias=False, padding="same")
        hard = {"activation": "hard_sigmoid", "recurrent_activation": "hard_sigmoid"}
        yield keras(form, x, version, filters=5, kernel_size=size, **hard)
        if rank == 3:  # slow, and no other option knows the rank
            continue
        yield keras(form, x, version, filters=5, kernel_size=size, strides=[2] * rank, activation="relu")
        yield keras(form, x, version, filters=5, kernel_size=size, strides=[2] * rank, padding="same")
        yield keras(form, x, version, filters=5, kernel_size=list(SMALL[rank]), dilation_rate=[2] * rank)
        yield keras(form, x, version, filters=5, kernel_size=size, go_backwards=True)
        yield keras(form, x, version, filters=5, kernel_size=size, recurrent_activation="sigmoid")


def normalizations(version: int) -> Iterator[Plan]:
    yield keras("Normalization", (2, 5), version)
    yield keras("Normalization", (2, 3, 5), version)
    yield keras("Normalization", (2, 5, 3), version, axis=1)
    yield keras("Normalization", (2, 5, 7, 3), version, axis=[1])
    yield keras("Normalization", (2, 5, 3), version, {"channel": "h c"}, axis=[1, 2])
    yield keras("Normalization", (2, 5), version, axis=None)
    yield keras("Normalization", (2, 3, 5), version, axis=None)
    yield keras("Normalization", (2, 5), version, invert=True)
    yield keras("Normalization", (2, 3), version, mean=[0.5, -0.25, 2.0], variance=[0.25, 2.0, 3.0])
    yield keras("Normalization", (2, 3), version, mean=0.5, variance=2.0, axis=None)


def scored(version: int) -> Iterator[Plan]:
    same = {"query": (2, 4, 7), "key": (2, 5, 7), "value": (2, 5, 7)}
    wide = {"query": (2, 4, 7), "key": (2, 5, 7), "value": (2, 5, 11)}
    for scale in (True, False):
        for mode in ("dot", "concat"):
            config = {"use_scale": scale, "score_mode": mode, "version": version}
            yield Plan("keras.Attention", config, wide)
    yield Plan("keras.AdditiveAttention", {"version": version}, same)
    if version == 3:  # tf_keras takes the scale's length from the values
        yield Plan("keras.AdditiveAttention", {"version": 3}, wide)


def locally_connected() -> Iterator[Plan]:
    for form, x, size, out in (("1D", (2, 11, 3), [5], None), ("2D", (2, 7, 5, 3), [3, 2], [5, 4])):
        form = f"LocallyConnected{form}"
        rank = len(size)
        bare = {} if out is None else {"_output_shape": out}
        first = (x[0], x[-1], *x[1:-1])
        yield keras(form, x, 2, filters=7, kernel_size=size)
        yield keras(form, x, 2, filters=7, kernel_size=size, use_bias=False, **bare)
        yield keras(form, x, 2, filters=7, kernel_size=size, strides=[2] * rank, activation="tanh")
        yield keras(form, first, 2, filters=7, kernel_size=size, data_format="channels_first", use_bias=False, **bare)
        flat = {"filters": 7, "kernel_size": size, "implementation": 3}
        yield keras(form, x, 2, **flat)
        positions = out or [x[1] - size[0] + 1]
        yield keras(form, first, 2, **flat, data_format="channels_first", use_bias=False, _output_shape=positions)


def cudnn() -> Iterator[Plan]:
    for name in ("CuDNNLSTM", "CuDNNGRU"):
        yield keras(name, (2, 5, 7), 2, units=3)
        yield keras(name, (2, 4, 3), 2, units=5, go_backwards=True)
        yield keras(f"Bidirectional.{name}", (2, 5, 7), 2, units=3)
        yield keras(f"Bidirectional.{name}", (2, 5, 7), 2, units=3, merge_mode="sum")
    for name in ("CuDNNGRU", "Bidirectional.CuDNNGRU"):
        yield replace(keras(name, (2, 3, 5), 2, units=7), zeros="*bias")


def packed_attention() -> Iterator[Plan]:
    """torch's attention as its exporter writes it: heads 3 of 5, data of the widths that each packing allows."""
    one = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    two = {**one, "key": (2, 5, 17), "value": (2, 5, 17)}
    ways: dict[str, tuple[dict[str, Shape], dict[str, Shape]]] = {
        "qkv": (one, {"in_proj": (15, 45)}),
        "kv": (two, {"q_proj": (15, 15), "kv_proj": (17, 30)}),
        "none": ({**two, "value": (2, 5, 19)}, {"q_proj": (15, 15), "k_proj": (17, 15), "v_proj": (19, 15)}),
    }
    for packed, (data, parts) in ways.items():
        for bias in (True, False):
            for first, kept in ((True, False), (False, False), (True, True)):
                turned = {"in_transB": int(kept), "out_transB": int(first)}
                config = {"num_heads": 3, "packed": packed, **turned, "batch_first": first}
                x = {name: (a, b, c) if first else (b, a, c) for name, (a, b, c) in data.items()}
                whole = {**parts, "out_proj": (15, 15)}
                tensors: dict[str, Shape] = {}
                for slot, shape in whole.items():
                    stored = shape[::-1] if kept else shape
                    tensors |= {f"{slot}.B": stored, **({f"{slot}.bias": shape[1:]} if bias else {})}
                yield Plan("onnx.MultiheadAttention", config, x, tensors)


def gates_and_tables() -> Iterator[Plan]:
    yield Plan("keras.ReversibleEmbedding", {"input_dim": 11, "output_dim": 3, "version": 3}, {"x": (5,)}, vocab=11)
    for form, slot in (
        ("torch.Parameter", ""),
        ("flax.Param", ""),
        ("nnx.Param", ""),
        ("keras.PositionEmbedding", "embeddings"),
        ("onnx.Add", "B"),
        ("onnx.Concat", "B"),
        ("tf1.Variable", ""),
    ):
        yield Plan(form, {}, {"x": (5,)}, {slot: (11, 3)}, vocab=11)
        yield Plan(form, {"leading": True}, {"x": (5,)}, {slot: (1, 11, 3)}, vocab=11)
        if not form.startswith(("onnx", "tf1")):
            yield Plan(form, {"row": True}, {"x": (5,)}, {slot: (3,)}, vocab=1)
    for shape, more in (((11, 3), {}), ((1, 11, 3), {"leading": True}), ((3,), {"row": True})):
        config = {"version": 2, **more}
        many = 1 if "row" in more else 11
        yield Plan("keras.PositionEmbedding", config, {"x": (5,)}, {"embeddings": shape}, vocab=many)
    yield from scales()
    yield from matrices()
    for mode in ("mean", "sum", "max"):
        config = {"num_embeddings": 11, "embedding_dim": 3, "mode": mode}
        yield Plan("torch.EmbeddingBag", config, {"x": (5,)}, vocab=11)


def scales() -> Iterator[Plan]:
    """One factor a channel, as vectors and with ones around them: for sequences, and for maps of channels first."""
    ways: list[tuple[dict[str, Any], Shape, Shape]] = [({}, (2, 5), (5,)), ({}, (2, 7, 3, 5), (5,))]
    ways += [({"leading": True}, (2, 5), (1, 5))]
    for rank, space in SPACE.items():
        space, ones, alike = tuple(n + 2 for n in space), (1,) * rank, {"rank": rank}
        ways += [({**alike}, (2, 5, *space), (5, *ones)), ({**alike, "leading": True}, (2, 5, *space), (1, 5, *ones))]
        ways += [({**alike, "leading": True, "last": True}, (2, *space, 5), (1, *ones, 5))]
    bare = [("torch.LayerScale", ""), ("flax.LayerScale", ""), ("nnx.LayerScale", ""), ("onnx.Mul", "B")]
    for config, x, shape in ways:
        for form, slot in bare:
            yield Plan(form, config, {"x": x}, {slot: shape})
        for version in (3, 2):
            yield Plan("keras.LayerScale", {**config, "version": version}, {"x": x}, {"gamma": shape})
    numbers: list[tuple[dict[str, Any], Shape, Shape]] = [
        ({"scalar": True, "rank": rank}, (2, 3, 5, 7, 1)[-1 - max(rank, 1) :], (1,) * rank) for rank in range(5)
    ]
    for config, x, shape in ways + numbers:
        for form in ("torch.Number", "flax.Number", "nnx.Number"):
            yield Plan(form, config, {"x": x}, {"": shape})
        for version in (3, 2):
            yield Plan("keras.Number", {**config, "version": version}, {"x": x}, {"number": shape})


def matrices() -> Iterator[Plan]:
    """Bare matrices, one and several side by side, as they are and turned over; a Linear read as one."""
    for rank in (2, 3, 4):
        outer, stack = (7 if rank == 4 else 1), (3 if rank > 2 else 1)
        many, x = (7, 3)[4 - rank :], (2, outer, stack, 5)
        for turned in (False, True):
            config = {"rank": rank, "turned": turned}
            shape = (*many, *((11, 5) if turned else (5, 11)))
            for form in ("torch.Matrices", "flax.Matrices", "nnx.Matrices"):
                yield Plan(form, config, {"x": x}, {"": shape})
        for version in (3, 2):
            yield Plan("keras.Matrices", {"rank": rank, "version": version}, {"x": x}, {"matrix": (*many, 5, 11)})
    for form in ("torch.Matrix", "flax.Matrix", "nnx.Matrix"):
        yield Plan(form, {}, {"x": (2, 5)}, {"": (5, 11)})
        yield Plan(form, {"turned": True}, {"x": (2, 5)}, {"": (11, 5)})
    sizes = {"in_features": 5, "out_features": 11, "bias": False}
    yield Plan("torch.Linear.Matrices", sizes, {"x": (2, 1, 1, 5)}, {"weight": (11, 5)})


def torch_and_onnx() -> Iterator[Plan]:
    for bias in (True, False):
        sizes = {"in1_features": 7, "in2_features": 5, "out_features": 3, "bias": bias}
        yield Plan("torch.Bilinear", sizes, {"x1": (2, 7), "x2": (2, 5)})
    for x, more in (((2, 5), {}), ((2, 5, 7), {"eps": 2.0**-7, "affine": False}), ((2, 5, 7, 3), {"momentum": 0.25})):
        yield Plan("torch.SyncBatchNorm", {"num_features": 5, **more}, {"x": x})
    statistics = {"mean": (5,), "variance": (5,)}
    yield Plan("torch.SyncBatchNorm", {"num_features": 5}, {"x": (2, 5, 7, 3, 2)})
    yield Plan("torch.Normalization", {}, {"x": (2, 5)}, statistics)
    yield Plan("torch.Normalization", {"invert": True}, {"x": (2, 3, 5)}, statistics)
    for x in ((2, 5), (2, 3, 5)):
        yield Plan("onnx.Normalization", {}, {"x": x}, {"sub.B": (5,), "div.B": (5,)})
        yield Plan("onnx.Normalization", {"invert": True}, {"x": x}, {"mul.B": (5,), "add.B": (5,)})
    yield Plan("onnx.Normalization", {"axis": 1}, {"x": (2, 5, 7, 3)}, {"sub.B": (5,), "div.B": (5,)})
    for more in ({"alpha": 0.5, "beta": 0.25}, {"alpha": -2.0, "beta": 1.5, "transB": 1}, {"alpha": 0.75}):
        into = (5, 7) if more.get("transB") else (7, 5)
        yield Plan("onnx.Gemm", more, {"x": (2, 7)}, {"B": into, "C": (5,)})
    yield Plan("onnx.Gemm", {"alpha": 0.5}, {"x": (2, 7)}, {"B": (7, 5)})
