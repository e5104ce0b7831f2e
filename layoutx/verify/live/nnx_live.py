"""One flax.nnx module with given weights, run once (flax 0.12.8, jax 0.10.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, refused
from layoutx.verify.live.jax_live import built, fill, over_time, states, x64

UNTYPED = ("PReLU",)  # modules that make their weights in no dtype but that of their start


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real module gives at inference. `config` holds the keywords of its constructor; functions by name.

    `nnx.RNN.LSTMCell` is RNN(LSTMCell(...)), `nnx.Bidirectional.LSTMCell` Bidirectional(RNN(..), RNN(..)), with the
    keywords of all of them side by side. A cell is run over x (batch, time, ...) from a carry of zeros; h, c are
    (direction, batch, hidden). Tensors are named by their paths among the variables Param and BatchStat.

    Raises:
        UsageError: no such module, no such function, or a missing input.
        BindError: the module does not take the config or the tensors.
    """
    import jax
    from flax import nnx

    data = cast_all(x, dtype)
    with x64(), jax.disable_jit():
        module = _build(form, config, dtype)
        variables = _variables(module)
        given = fill(form, {path: variable.shape for path, variable in variables.items()}, tensors)
        for path, array in given.items():
            variables[path].set_value(jax.numpy.asarray(array, dtype))  # BatchStat starts in float32
        try:
            found = _call(form, module, data, nnx.Rngs(0))
        except (TypeError, ValueError) as error:
            raise refused(form, tensors, error) from error
        return {key: np.asarray(value) for key, value in found.items()}


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Paths and shapes of the real module's variables; the config tells them all, `shapes` are not looked at."""
    with x64():
        return [(path, tuple(v.shape)) for path, v in _variables(_build(form, config, "float64")).items()]


def _build(form: str, config: Mapping[str, Any], dtype: str) -> Any:
    from flax import nnx

    def more(name: str) -> dict[str, Any]:
        # SimpleCell computes in float32 where it is not told otherwise
        typed = {"param_dtype": dtype, "dtype": dtype, **({"decode": False} if name == "MultiHeadAttention" else {})}
        return typed if name in UNTYPED else {**typed, "rngs": nnx.Rngs(0)}

    if form.endswith("Einsum"):  # use_bias is a spec's own key: the layer says it by bias_shape
        config = {key: value for key, value in config.items() if key != "use_bias"}
    return built(nnx, form, config, more)


def _variables(module: Any) -> dict[str, Any]:
    """Path -> variable, without those of random numbers and caches."""
    from flax import nnx

    found = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    parts = [(path, variable) for path, variable in found]
    return {"/".join(map(str, path)): variable for path, variable in parts}


def _call(form: str, module: Any, data: Arrays, rngs: Any) -> dict[str, Any]:
    import jax

    if form.endswith("MultiHeadAttention"):
        query, key, value = inputs(form, data, "query", "key", "value")
        # the fused attention of jax takes its softmax in float32; flax has a plain one for when weights are asked for
        return {"y": module(query, key, value, sow_weights=query.dtype == np.float64)}
    (array,) = inputs(form, data, "x")
    x = jax.numpy.asarray(array)
    if hasattr(module, "initialize_carry"):
        carry, y = over_time(module, module.initialize_carry(x[:, 0].shape, rngs), x)
        return {"y": y, **states(carry)}
    if not form.startswith(("nnx.RNN.", "nnx.Bidirectional.")):
        return {"y": module(x)}
    carry, y = module(x, return_carry=True)
    return {"y": y, **(states(*carry) if form.startswith("nnx.Bidirectional.") else states(carry))}
