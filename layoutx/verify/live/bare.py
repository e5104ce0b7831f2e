"""A bare parameter of the user's own module, run once: its rows looked up, or its factors multiplied by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, refused

Use = Callable[[Any, Any], Any]  # what the module makes of its parameter and of its input


def used(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What a module of the framework gives that holds the parameter and nothing else.

    A table, (rows, width), (1, rows, width) or one row, gives the rows that `x` names; factors are spread over `x`;
    matrices, of two to four dimensions, multiply it one by one, from the other side where the config says `turned`.

    Raises:
        UsageError: a missing input.
        BindError: not one tensor; a table without rows and a width.
    """
    if len(tensors) != 1:
        raise refused(form, tensors, "a bare parameter is one tensor")
    (held,) = cast_all(tensors, dtype).values()
    if form in TABLES and (held.ndim not in (1, 2, 3) or held.shape[:-2] not in ((), (1,))):
        raise refused(form, tensors, "a table has rows and a width, or is one row")
    (data,) = inputs(form, x if form in TABLES else cast_all(x, dtype), "x")
    if form in MATRICES:
        return {"y": _multiplied_by(form, config, held, np.asarray(data))}
    run = (TF_KERAS if config.get("version", 3) == 2 else RUNNERS)[form]
    return {"y": np.asarray(run(held, np.asarray(data)))}


def _rows(table: Any, x: Any) -> Any:
    return table.reshape(-1, table.shape[-1])[x]


def _taken(table: Any, x: Any) -> Any:
    import keras

    return keras.ops.take(keras.ops.reshape(table, (-1, table.shape[-1])), x, axis=0)


def _gathered(table: Any, x: Any) -> Any:
    import tensorflow

    return tensorflow.gather(tensorflow.reshape(table, (-1, table.shape[-1])), x)


def _looked_up(table: Any, x: Any) -> Any:
    import tensorflow

    return tensorflow.nn.embedding_lookup(table.reshape(-1, table.shape[-1]), x)


def _times(factors: Any, x: Any) -> Any:
    return x * factors


def _multiplied(matrix: Any, x: Any) -> Any:
    return x @ matrix


def _turned(matrix: Any, x: Any) -> Any:
    return x @ matrix.mT


def _multiplied_by(form: str, config: Mapping[str, Any], held: Array, data: Array) -> Array:
    """The data, (batch, input) or (batch, outer, stack, row), through one matrix or each its own, as it came."""
    own = MATRICES[form] if config.get("version", 3) == 3 else _tf_keras
    use = _turned if config.get("turned") else _multiplied
    if data.ndim == 2:
        return np.asarray(own(held, data, use))
    some = data[:, 0] if held.ndim == 3 else data[:, 0, 0] if held.ndim == 2 else data
    made = np.moveaxis(np.asarray(own(held, np.ascontiguousarray(np.moveaxis(some, 0, -2)), use)), -2, 0)
    return made.reshape(*data.shape[:3], made.shape[-1])


def _torch(held: Array, data: Array, use: Use) -> Any:
    import torch

    class Own(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.own = torch.nn.Parameter(torch.zeros(held.shape, dtype=torch.from_numpy(held).dtype))

        def forward(self, x: Any) -> Any:
            return use(self.own, x)

    module = Own()
    module.load_state_dict({"own": torch.from_numpy(held)})
    with torch.no_grad():
        return module(torch.from_numpy(data)).numpy()


def _linen(held: Array, data: Array, use: Use) -> Any:
    import jax
    from flax import linen

    from layoutx.verify.live.jax_live import x64

    class Own(linen.Module):  # type: ignore[misc]
        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return use(self.param("own", linen.initializers.zeros, held.shape, held.dtype), x)

    with x64():
        return Own().apply({"params": {"own": jax.numpy.asarray(held)}}, jax.numpy.asarray(data))


def _nnx(held: Array, data: Array, use: Use) -> Any:
    import jax
    from flax import nnx

    from layoutx.verify.live.jax_live import x64

    class Own(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.own = nnx.Param(jax.numpy.zeros(held.shape, held.dtype))

        def __call__(self, x: Any) -> Any:
            return use(self.own[...], x)

    with x64():
        module = Own()
        module.own.set_value(jax.numpy.asarray(held))
        return module(jax.numpy.asarray(data))


def _keras(held: Array, data: Array, use: Use) -> Any:
    import keras

    return _layer(keras.layers.Layer, held, data, use)


def _tf_keras(held: Array, data: Array, use: Use) -> Any:
    import tf_keras

    return _layer(tf_keras.layers.Layer, held, data, use)


def _layer(base: Any, held: Array, data: Array, use: Use) -> Any:
    class Own(base):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.own = self.add_weight(shape=held.shape, name="own")
            super().build(shape)

        def call(self, x: Any) -> Any:
            return use(self.own, x)

    layer = Own(dtype=held.dtype.name)
    layer.build(data.shape)
    layer.set_weights([held])
    return np.asarray(layer(data))


def _scaled(held: Array, data: Array) -> Any:
    """Keras' own layer where it is one: a vector of factors."""
    from keras.src.applications.convnext import LayerScale

    return _application(LayerScale, held, data) if held.ndim == 1 else _keras(held, data, _times)


def _tf_scaled(held: Array, data: Array) -> Any:
    from tf_keras.src.applications.convnext import LayerScale

    return _application(LayerScale, held, data) if held.ndim == 1 else _tf_keras(held, data, _times)


def _application(kind: Any, held: Array, data: Array) -> Any:
    layer = kind(1.0, len(held), dtype=held.dtype.name)
    layer(data)  # tf_keras makes the factors at the first call, whatever was built before
    layer.set_weights([held])
    return np.asarray(layer(data))


def _node(op: str, held: Array, data: Array, **attributes: int) -> Any:
    """What the node makes of the numbers that it stores."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    kind = helper.np_dtype_to_tensor_dtype(held.dtype)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "own"], ["y"], **attributes)],
        "own",
        [helper.make_tensor_value_info("x", kind, data.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(held, "own")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    (found,) = ReferenceEvaluator(model).run(["y"], {"x": data})
    return np.asarray(found)


def _added(held: Array, data: Array) -> Any:
    """What the node adds to zeros, row by row."""
    return _node("Add", held, np.zeros((1, *held.shape[-2:]), held.dtype))[0][data]


def _laid(held: Array, data: Array) -> Any:
    """What the node lays behind a sequence of nothing."""
    rows = held.reshape(1, *held.shape[-2:])
    return _node("Concat", rows, np.zeros((1, 0, rows.shape[-1]), rows.dtype), axis=1)[0][data]


TABLES: Mapping[str, Callable[[Array, Array], Any]] = {
    "torch.Parameter": partial(_torch, use=_rows),
    "flax.Param": partial(_linen, use=_rows),
    "nnx.Param": partial(_nnx, use=_rows),
    "keras.PositionEmbedding": partial(_keras, use=_taken),
    "tf1.Variable": _looked_up,
    "onnx.Add": _added,
    "onnx.Concat": _laid,
}
SCALES: Mapping[str, Callable[[Array, Array], Any]] = {
    "torch.LayerScale": partial(_torch, use=_times),
    "flax.LayerScale": partial(_linen, use=_times),
    "nnx.LayerScale": partial(_nnx, use=_times),
    "keras.LayerScale": _scaled,
    "torch.Number": partial(_torch, use=_times),
    "flax.Number": partial(_linen, use=_times),
    "nnx.Number": partial(_nnx, use=_times),
    "keras.Number": partial(_keras, use=_times),
    "onnx.Mul": partial(_node, "Mul"),
}
MATRICES: Mapping[str, Callable[[Array, Array, Use], Any]] = {
    "torch.Matrices": _torch,
    "flax.Matrices": _linen,
    "nnx.Matrices": _nnx,
    "keras.Matrices": _keras,
    "torch.Matrix": _torch,
    "flax.Matrix": _linen,
    "nnx.Matrix": _nnx,
}
RUNNERS = {**TABLES, **SCALES}
TF_KERAS: Mapping[str, Callable[[Array, Array], Any]] = {
    "keras.PositionEmbedding": partial(_tf_keras, use=_gathered),
    "keras.LayerScale": _tf_scaled,
    "keras.Number": partial(_tf_keras, use=_times),
}
