"""One equinox.nn layer with given weights, run once, mapped over the batch (equinox 0.13.8, jax 0.10.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from layoutx.empty import NOTHING
from layoutx.verify.live.arrays import Array, Arrays, cast, cast_all, inputs, options, refused
from layoutx.verify.live.jax_live import class_named, fill, x64

CELLS = ("LSTMCell", "GRUCell")
STATISTICS = ("ema_state_index", "batch_state_index")  # of a BatchNorm: each holds a mean and a variance
OWN = ("batch_counter",)  # part of a BatchNorm's state; a config says it, since it changes what the state means


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real layer gives at inference. `config` holds the keywords of its constructor.

    Inputs and outputs have the batch in front, over which the layer is mapped; channels come first after it. Weights
    are named by their attributes: `weight`, `query_proj/weight`; the pair of running statistics in the state of a
    BatchNorm is `ema_state_index/mean` and `/var`, or with mode="batch" `batch_state_index/mean` and `/var`, whose
    `batch_counter` the config gives. A cell is run over x (batch, time, input) from zeros; h, c are
    (1, batch, hidden). The slopes of a PReLU are its `init_alpha`, so any shape is taken.

    Raises:
        UsageError: no such layer, or a missing input.
        BindError: the layer does not take the config or the tensors.
    """
    import jax

    name = class_named(form, "equinox.nn")
    with x64():
        data = {key: jax.numpy.asarray(array) for key, array in cast_all(x, dtype).items()}
        given = _inputs(name, data)
        weights = cast_all(tensors, dtype)
        try:
            layer, state = _built(name, config, weights, dtype)
        except (TypeError, ValueError, KeyError, NotImplementedError) as error:
            raise refused(form, tensors, error) from error
        shapes = {path: leaf.shape for path, leaf in _leaves(layer, state).items()}
        layer, state = _with(layer, state, fill(form, shapes, weights), config.get("batch_counter", 0))
        found = _call(name, layer, state, given)
        return {key: cast(value, dtype) for key, value in found.items()}


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] = NOTHING
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real layer's arrays, in the order of its fields; then of its state. Raises UsageError."""
    with x64():
        leaves = _leaves(*_built(class_named(form, "equinox.nn"), config, {}, "float64"))
        return [(path, tuple(leaf.shape)) for path, leaf in leaves.items()]


def _inputs(name: str, data: Mapping[str, Any]) -> list[Any]:
    names = ("query", "key", "value") if name == "MultiheadAttention" else ("x",)
    return inputs(f"equinox.{name}", data, *names)


def _built(name: str, config: Mapping[str, Any], weights: Arrays, dtype: str) -> tuple[Any, Any]:
    """A layer at inference and its state (None where it has none)."""
    import equinox
    import jax

    kind = getattr(equinox.nn, name)
    more: dict[str, Any] = {"key": jax.random.PRNGKey(0), "dtype": jax.numpy.dtype(dtype), "axis_name": "batch"}
    words = {
        **{key: value for key, value in more.items() if key in signature(kind).parameters},
        **options(config, *OWN),
    }
    if name == "PReLU":
        slope = weights.get("negative_slope", words.get("init_alpha", 0.25))
        return kind(jax.numpy.asarray(slope, dtype)), None
    if name == "BatchNorm":
        layer, state = equinox.nn.make_with_state(kind)(**words)
        return equinox.nn.inference_mode(layer), state
    return equinox.nn.inference_mode(kind(**words)), None


def _paths(layer: Any) -> dict[tuple[Any, ...], str]:
    """jax's path of each array -> its attributes' names, joined."""
    import equinox
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(equinox.filter(layer, equinox.is_array))
    return {path: "/".join(str(key.name) for key in path) for path, _ in leaves}


def _leaves(layer: Any, state: Any) -> dict[str, Any]:
    """Name -> array of all weights, and of the statistics that inference reads."""
    import equinox
    import jax

    names = _paths(layer)
    leaves, _ = jax.tree_util.tree_flatten_with_path(equinox.filter(layer, equinox.is_array))
    found = {names[path]: leaf for path, leaf in leaves}
    for index in STATISTICS if state is not None else ():
        if getattr(layer, index) is not None:
            found |= {
                f"{index}/{part}": array
                for part, array in zip(("mean", "var"), state.get(getattr(layer, index)), strict=True)
            }
    return found


def _with(layer: Any, state: Any, weights: Arrays, counter: int) -> tuple[Any, Any]:
    """The layer and its state with these arrays in their places."""
    import equinox
    import jax

    names = _paths(layer)
    arrays, rest = equinox.partition(layer, equinox.is_array)
    placed = jax.tree_util.tree_map_with_path(lambda path, _: jax.numpy.asarray(weights[names[path]]), arrays)
    layer = equinox.combine(placed, rest)
    for index in STATISTICS if state is not None else ():
        if getattr(layer, index) is not None:
            both = tuple(jax.numpy.asarray(weights[f"{index}/{part}"]) for part in ("mean", "var"))
            state = state.set(getattr(layer, index), both)
    if state is not None and layer.batch_counter is not None:
        state = state.set(layer.batch_counter, jax.numpy.asarray(counter))
    return layer, state


def _call(name: str, layer: Any, state: Any, given: Sequence[Any]) -> dict[str, Any]:
    import jax

    if name in CELLS:
        return _over_time(layer, given[0])
    if state is not None:
        both = jax.vmap(layer, axis_name=layer.axis_name, in_axes=(0, None), out_axes=(0, None))
        return {"y": both(given[0], state)[0]}
    return {"y": jax.vmap(layer)(*given)}


def _over_time(cell: Any, x: Any) -> dict[str, Any]:
    import jax

    start = jax.numpy.zeros((x.shape[0], cell.hidden_size), x.dtype)
    states: Any = (start, start) if type(cell).__name__ == "LSTMCell" else start
    outputs = []
    for t in range(x.shape[1]):
        states = jax.vmap(cell)(x[:, t], states)
        outputs.append(states[0] if isinstance(states, tuple) else states)
    last = states if isinstance(states, tuple) else (states,)
    return {"y": jax.numpy.stack(outputs, 1), **{key: s[None] for key, s in zip(("h", "c"), last, strict=False)}}
