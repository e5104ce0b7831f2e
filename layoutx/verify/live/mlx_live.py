"""One mlx.nn module with given weights, run once on the CPU (mlx 0.32.4): float64 where mlx really computes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, options, refused

RECURRENT = ("RNN", "LSTM", "GRU")
ONE_AXIS = ("Conv1d", "ConvTranspose1d")  # their constructors take integers where the others take tuples

# what takes and gives float64, and has the precision of float32 inside (measured on mlx 0.32.4, CPU)
NO_FLOAT64 = {
    **dict.fromkeys([f"{name}{n}d" for name in ("Conv", "ConvTranspose") for n in (1, 2, 3)], "sums in float32: 1e-6"),
    **dict.fromkeys(("LayerNorm", "InstanceNorm", "GroupNorm"), "mx.fast.layer_norm: 1e-7"),
    "RMSNorm": "mx.fast.rms_norm: 2e-7",
    **dict.fromkeys(("LSTM", "GRU"), "the sigmoid: 1e-8"),
    "RNN": "every function that needs an exponential, but tanh: 1e-8 to 3e-6",
    "MultiHeadAttention": "the softmax: 1e-8",
}


def precision(form: str, config: Mapping[str, Any], dtype: str = "float64") -> str:
    """The dtype that `run` computes in: float64 falls back to float32 where `NO_FLOAT64` says why."""
    name = form.removeprefix("mlx.")
    exact = {
        "GroupNorm": not config.get("pytorch_compatible"),  # written with mean and var, not with mx.fast
        "RNN": config.get("nonlinearity") in (None, "tanh", "relu"),
    }
    return "float32" if name in NO_FLOAT64 and not exact.get(name) else dtype


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the real module gives in evaluation mode, computed in `precision`.

    `config` holds the keywords of the constructor; the `nonlinearity` of an RNN is named as in mlx.nn. Channels come
    last. RNN, GRU, LSTM: y (batch, time, hidden), and h, c (1, batch, hidden) of the last step. Bilinear takes x1, x2;
    MultiHeadAttention query, key, value.

    Raises:
        UsageError: no such module, a quantised one, or a missing input.
        BindError: the module does not take the config or the tensors.
    """
    import mlx.core as mx

    name = form.removeprefix("mlx.")
    dtype = precision(form, config, dtype)
    with mx.stream(mx.cpu):  # a GPU has no float64
        state, data = _arrays(cast_all(tensors, dtype)), _arrays(cast_all(x, dtype))
        module = _build(name, config)
        try:
            module.load_weights(list(state.items()), strict=True)
            module.eval()
            result = _call(name, module, data)
            return {key: np.array(value) for key, value in result.items()}
        except UsageError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise refused(form, tensors, error) from error


def describe(
    form: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] = NOTHING
) -> list[tuple[str, tuple[int, ...]]]:
    """Dotted names and shapes of the real module's parameters, frozen ones too. Raises UsageError, BindError."""
    from mlx.utils import tree_flatten

    parameters = tree_flatten(_build(form.removeprefix("mlx."), config).parameters())
    return [(name, tuple(value.shape)) for name, value in parameters]


def _arrays(arrays: Arrays) -> dict[str, Any]:
    """Without its dtype said, mlx rounds a float64 array of NumPy to float32."""
    import mlx.core as mx

    return {name: mx.array(array, dtype=getattr(mx, str(array.dtype))) for name, array in arrays.items()}


def _build(name: str, config: Mapping[str, Any]) -> Any:
    from mlx import nn

    found = getattr(nn, name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UsageError(f"mlx.nn has no module {name}")
    if name.startswith(("Quantized", "QQ")):
        raise UsageError(f"mlx.nn.{name} is not run here", why="its weight is packed integers with scales and biases")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in options(config, "rank").items()}
    if name in ONE_AXIS:
        given = {key: v[0] if isinstance(v, tuple) and len(v) == 1 else v for key, v in given.items()}
    if "nonlinearity" in given:
        given["nonlinearity"] = getattr(nn, str(given["nonlinearity"]), given["nonlinearity"])
    try:
        return found(**given)
    except (TypeError, ValueError) as error:
        raise refused(f"mlx.{name}", {}, error) from error


def _call(name: str, module: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    if name == "MultiHeadAttention":
        return {"y": module(*inputs(name, data, "query", "key", "value"))}
    if name == "Bilinear":
        return {"y": module(*inputs(name, data, "x1", "x2"))}
    (x,) = inputs(name, data, "x")
    found = module(x)
    if name not in RECURRENT:
        return {"y": found}
    steps = found if isinstance(found, tuple) else (found,)
    return {"y": steps[0], **{state: s[:, -1][None] for state, s in zip("hc", steps, strict=False)}}
