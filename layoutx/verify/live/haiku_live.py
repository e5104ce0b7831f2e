"""One dm-haiku module with given weights, run once (dm-haiku 0.0.17, jax 0.10.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.empty import NOTHING
from layoutx.verify.live.arrays import Array, Arrays, cast, cast_all, inputs, options, refused
from layoutx.verify.live.jax_live import class_named, fill, x64

CELLS = ("VanillaRNN", "LSTM", "GRU", "Conv1DLSTM", "Conv2DLSTM", "Conv3DLSTM")
TRAINING = ("counter", "hidden")  # of a moving average: inference reads its `average` alone
REQUIRED: Mapping[str, Mapping[str, Any]] = {  # what a constructor insists on, where the config leaves it out
    "BatchNorm": {"create_scale": True, "create_offset": True, "decay_rate": 0.99},
    "InstanceNorm": {"create_scale": True, "create_offset": True},
    "LayerNorm": {"axis": -1, "create_scale": True, "create_offset": True},
    "RMSNorm": {"axis": -1},
}
Paths = Mapping[str, tuple[str, str]]


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real module gives at inference. `config` holds the keywords of its constructor.

    Weights are named by the path below the module, as the two-level dict of haiku has it: `w`, `linear/w` (LSTM),
    `~/mean_ema/average` (BatchNorm; the rest of its state is filled with NaN, since inference must not read it).
    A cell is unrolled over x (batch, time, ...) from a state of zeros; h, c are (1, batch, hidden), those of a
    convolutional one (batch, ..., hidden).

    Raises:
        UsageError: no such module, or a missing input.
        BindError: the module does not take the config or the tensors.
    """
    import jax

    name = class_named(form, "haiku")
    with x64():
        data = {key: jax.numpy.asarray(array) for key, array in cast_all(x, dtype).items()}
        _inputs(name, data)
        try:
            module = _transformed(name, config)
            params, state = _drawn(module, data)
            real = _paths(params, state)
            shapes = {native: _at(params, state, at).shape for native, at in real.items()}
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            raise refused(form, tensors, error) from error
        weights = fill(form, shapes, cast_all(tensors, dtype))
        arrays = {at: jax.numpy.asarray(weights[native]) for native, at in real.items()}
        found, _ = module.apply(_filled(params, arrays), _filled(state, arrays), None, data, False)
        return {key: cast(value, dtype) for key, value in found.items()}


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] = NOTHING
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what the real module reads at inference, for inputs of these shapes. Raises UsageError."""
    import jax

    name = class_named(form, "haiku")
    with x64():
        whole = jax.numpy.int32 if name == "Embed" else jax.numpy.float64
        data = {key: jax.ShapeDtypeStruct(tuple(shape), whole) for key, shape in shapes.items()}
        params, state = _drawn(_transformed(name, config), data)
        return [(native, _at(params, state, at).shape) for native, at in _paths(params, state).items()]


def _inputs(name: str, data: Mapping[str, Any]) -> list[Any]:
    names = ("query", "key", "value") if name == "MultiHeadAttention" else ("x",)
    return inputs(f"haiku.{name}", data, *names)


def _transformed(name: str, config: Mapping[str, Any]) -> Any:
    """The module as a pair of pure functions of (data, is_training)."""
    import haiku

    words = {**REQUIRED.get(name, {}), **options(config)}
    if name == "MultiHeadAttention" and not {"w_init", "w_init_scale"} & set(words):
        words["w_init"] = haiku.initializers.VarianceScaling()  # the constructor insists on one

    def layer(data: Mapping[str, Any], training: bool) -> dict[str, Any]:
        given = _inputs(name, data)
        more = {"input_shape": given[0].shape[2:-1]} if name in CELLS and name.startswith("Conv") else {}
        module = getattr(haiku, name)(**{**more, **words})
        if name in CELLS:
            return _unrolled(name, module, given[0])
        return {"y": module(*given, is_training=training) if name == "BatchNorm" else module(*given)}

    return haiku.transform_with_state(layer)


def _unrolled(name: str, module: Any, x: Any) -> dict[str, Any]:
    import haiku
    import jax

    start = jax.tree.map(lambda s: s.astype(x.dtype), module.initial_state(x.shape[0]))
    y, last = haiku.static_unroll(module, x, start, time_major=False)
    states = {"h": last.hidden, "c": last.cell} if name.endswith("LSTM") else {"h": last}
    return {"y": y, **{key: s if name.startswith("Conv") else s[None] for key, s in states.items()}}


def _drawn(module: Any, data: Mapping[str, Any]) -> tuple[Any, Any]:
    """Shapes of params and state; a BatchNorm makes its state in training only."""
    import jax

    key = jax.random.PRNGKey(0)
    found: tuple[Any, Any] = jax.eval_shape(lambda given: module.init(key, given, True), dict(data))
    return found


def _paths(params: Any, state: Any) -> Paths:
    """Native name -> (haiku's name of the module, name in it); the outermost module's own name is left out."""
    return {
        "/".join([*place.split("/")[1:], leaf]): (place, leaf)
        for part in (params, state)
        for place, leaves in part.items()
        for leaf in leaves
        if part is params or leaf not in TRAINING
    }


def _at(params: Any, state: Any, at: tuple[str, str]) -> Any:
    place, leaf = at
    return params[place][leaf] if leaf in params.get(place, {}) else state[place][leaf]


def _filled(part: Any, arrays: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Arrays in the place of shapes; NaN, or the lowest whole number, where inference must not look."""
    import jax

    def unread(shape: Any) -> Any:
        whole = jax.numpy.issubdtype(shape.dtype, jax.numpy.integer)
        return jax.numpy.full(shape.shape, jax.numpy.iinfo(shape.dtype).min if whole else jax.numpy.nan, shape.dtype)

    return {
        place: {leaf: arrays[place, leaf] if (place, leaf) in arrays else unread(shape) for leaf, shape in held.items()}
        for place, held in part.items()
    }
