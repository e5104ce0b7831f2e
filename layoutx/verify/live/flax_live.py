"""One flax.linen module with given weights, run once (flax 0.12.8, jax 0.10.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, refused
from layoutx.verify.live.jax_live import built, fill, flat, over_time, states, tree, x64

ATTENTION = ("MultiHeadDotProductAttention", "MultiHeadAttention")


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real module gives at inference. `config` holds the attributes of the module; functions by name.

    `flax.RNN.LSTMCell` is RNN(LSTMCell(...)), `flax.Bidirectional.LSTMCell` Bidirectional(RNN(..), RNN(..)), with the
    keywords of all of them side by side. `ConvLocal1D` and `ConvLocal2D` are ConvLocal. A cell is run over
    x (batch, time, ...) from a carry of zeros; h, c are (direction, batch, hidden), of ConvLSTMCell without direction.
    Tensors are named by their paths in `params` and `batch_stats`.

    Raises:
        UsageError: no such module, no such function, or a missing input.
        BindError: the module does not take the config or the tensors.
    """
    import jax

    data = cast_all(x, dtype)
    with x64(), jax.disable_jit():
        module = _build(form, config, dtype)
        try:
            collections = _collections(module, form, data)
        except (TypeError, ValueError, AssertionError) as error:
            raise refused(form, tensors, error) from error
        paths = {path: name for name, held in collections.items() for path in held}
        given = fill(form, {path: a.shape for held in collections.values() for path, a in held.items()}, tensors)
        variables = {
            name: tree({path: jax.numpy.asarray(a, dtype) for path, a in given.items() if paths[path] == name})
            for name in collections
        }
        return {key: np.asarray(value) for key, value in _call(form, module, variables, data).items()}


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Paths and shapes of the real module's variables, as it makes them for inputs of these shapes."""
    kind = "int64" if form.endswith(".Embed") else "float64"
    with x64():
        module = _build(form, config, "float64")
        found = _collections(module, form, {name: np.zeros(tuple(shape), kind) for name, shape in shapes.items()})
    return [(path, tuple(a.shape)) for held in found.values() for path, a in held.items()]


def _build(form: str, config: Mapping[str, Any], dtype: str) -> Any:
    from flax import linen

    typed = {"param_dtype": dtype, "dtype": dtype}
    return built(linen, form, config, lambda name: {"param_dtype": dtype} if name == "PReLU" else typed)


def _collections(module: Any, form: str, data: Arrays) -> dict[str, dict[str, Any]]:
    """Collection -> path -> shape, as the module would make them for this data; nothing is computed."""
    import jax

    arguments = list(data.values())
    if hasattr(module, "initialize_carry"):
        (x,) = inputs(form, data, "x")
        arguments = [module.initialize_carry(jax.random.key(0), x[:, 0].shape), x[:, 0]]
    elif form.endswith(ATTENTION):
        arguments = list(inputs(form, data, "query", "key", "value"))
    made = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return {name: flat(held) for name, held in made.items()}


def _call(form: str, module: Any, variables: Mapping[str, Any], data: Arrays) -> dict[str, Any]:
    import jax

    if form.endswith(ATTENTION):
        return {"y": module.apply(variables, *inputs(form, data, "query", "key", "value"))}
    (array,) = inputs(form, data, "x")
    x = jax.numpy.asarray(array)
    wrapper, _, name = form.removeprefix("flax.").rpartition(".")
    if hasattr(module, "initialize_carry"):
        carry = module.initialize_carry(jax.random.key(0), x[:, 0].shape)
        carry, y = over_time(lambda c, step: module.apply(variables, c, step), carry, x)
    elif wrapper:
        carry, y = module.apply(variables, x, return_carry=True)
    else:
        return {"y": module.apply(variables, x)}
    found = states(*carry) if wrapper == "Bidirectional" else states(carry)
    return {"y": y, **({key: a[0] for key, a in found.items()} if name == "ConvLSTMCell" else found)}
