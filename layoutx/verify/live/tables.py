"""A bare parameter of the user's own module, (rows, width) or (1, rows, width), run once: its rows looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, refused


def looked_up(form: str, tensors: Arrays, x: Arrays, dtype: str = "float64", version: int = 3) -> dict[str, Array]:
    """The rows that `x` names, as a module of the framework gives them that holds the parameter and nothing else.

    Raises:
        UsageError: a missing input.
        BindError: not one tensor of two dimensions, or of three whose first is one.
    """
    if len(tensors) != 1:
        raise refused(form, tensors, "a bare parameter is one tensor")
    (table,) = cast_all(tensors, dtype).values()
    if table.ndim not in (2, 3) or table.shape[:-2] not in ((), (1,)):
        raise refused(form, tensors, "a table has rows and a width")
    (rows,) = inputs(form, x, "x")
    run = _tf_keras if version == 2 else RUNNERS[form]
    return {"y": np.asarray(run(table, np.asarray(rows)))}


def _torch(table: Array, rows: Array) -> Any:
    import torch

    class Rows(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pos = torch.nn.Parameter(torch.zeros(table.shape, dtype=torch.from_numpy(table).dtype))

        def forward(self, x: Any) -> Any:
            return self.pos.flatten(0, -2)[x]

    module = Rows()
    module.load_state_dict({"pos": torch.from_numpy(table)})
    with torch.no_grad():
        return module(torch.from_numpy(rows)).numpy()


def _linen(table: Array, rows: Array) -> Any:
    import jax
    from flax import linen

    from layoutx.verify.live.jax_live import x64

    class Rows(linen.Module):  # type: ignore[misc]
        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            pos = self.param("pos", linen.initializers.zeros, table.shape, table.dtype)
            return pos.reshape(-1, pos.shape[-1])[x]

    with x64():
        return Rows().apply({"params": {"pos": jax.numpy.asarray(table)}}, jax.numpy.asarray(rows))


def _nnx(table: Array, rows: Array) -> Any:
    import jax
    from flax import nnx

    from layoutx.verify.live.jax_live import x64

    class Rows(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.pos = nnx.Param(jax.numpy.zeros(table.shape, table.dtype))

        def __call__(self, x: Any) -> Any:
            return self.pos[...].reshape(-1, table.shape[-1])[x]

    with x64():
        module = Rows()
        module.pos.set_value(jax.numpy.asarray(table))
        return module(jax.numpy.asarray(rows))


def _keras(table: Array, rows: Array) -> Any:
    import keras

    class Rows(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.pos = self.add_weight(shape=table.shape, name="embeddings")

        def call(self, x: Any) -> Any:
            return keras.ops.take(keras.ops.reshape(self.pos, (-1, table.shape[-1])), x, axis=0)

    layer = Rows(dtype=table.dtype.name)
    layer.build(rows.shape)
    layer.set_weights([table])
    return np.asarray(layer(rows))


def _tf_keras(table: Array, rows: Array) -> Any:
    import tensorflow
    import tf_keras

    class Rows(tf_keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.pos = self.add_weight(shape=table.shape, name="embeddings")
            super().build(shape)

        def call(self, x: Any) -> Any:
            return tensorflow.gather(tensorflow.reshape(self.pos, (-1, table.shape[-1])), x)

    layer = Rows(dtype=table.dtype.name)
    layer.build(rows.shape)
    layer.set_weights([table])
    return np.asarray(layer(rows))


def _onnx(table: Array, rows: Array) -> Any:
    """What the node adds to zeros, row by row."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    kind = helper.np_dtype_to_tensor_dtype(table.dtype)
    shape = (1, *table.shape[-2:])
    graph = helper.make_graph(
        [helper.make_node("Add", ["zeros", "pos"], ["y"])],
        "rows",
        [helper.make_tensor_value_info("zeros", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(table, "pos")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    (found,) = ReferenceEvaluator(model).run(["y"], {"zeros": np.zeros(shape, table.dtype)})
    return np.asarray(found)[0][rows]


RUNNERS: Mapping[str, Callable[[Array, Array], Any]] = {
    "torch.Parameter": _torch,
    "flax.Param": _linen,
    "nnx.Param": _nnx,
    "keras.PositionEmbedding": _keras,
    "onnx.Add": _onnx,
}
