"""Normalisations: subtract a mean, divide by a root, scale and shift; they differ in where the mean is taken."""

from __future__ import annotations

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.shapes import Array, Arrays, Facts, common_dtype, epsilon, need, sizes_of

SMALLEST = 1e-7  # keras.config.epsilon(), beside which no deviation counts


def batch_norm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = (x - mean - offset) / sqrt(variance + eps) * gamma + beta, by channel.

    gamma, beta, mean, variance, offset (channel), all but mean and variance may be absent; `count` is not used.
    x (batch..., channel) -> y. Fact `statistics`: `running` (the stored ones), `batch` (of x itself, as torch does
    where track_running_stats=False); `eps_added_to`: `variance`, or `deviation` (its root, Keras 1.0.7 on Theano).
    Setting `eps`.
    """
    (data,) = need("batch_norm", x, "x")
    vectors = {name: (roles.get(name), "channel") for name in ("gamma", "beta", "mean", "variance", "offset")}
    sizes_of("batch_norm", {**vectors, "x": (data, "batch... channel")})
    if _statistics("batch_norm", facts, "running", "batch") == "running":
        mean, variance = need("batch_norm", roles, "mean", "variance")
        mean = mean + roles["offset"] if "offset" in roles else mean
    else:
        mean, variance = _moments(data, tuple(range(data.ndim - 1)))
    eps = epsilon("batch_norm", settings, common_dtype(data, variance))
    after = facts.get("eps_added_to", "variance") == "deviation"
    root = np.sqrt(variance) + eps if after else np.sqrt(variance + eps)
    return {"y": _affine((data - mean) / root, roles.get("gamma"), roles.get("beta"))}


def layer_norm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = (x - mean) / sqrt(variance + eps) * gamma + beta, mean and variance over the features of each sample.

    gamma, beta (features), either may be absent; x (batch..., features) -> y. Setting `eps`.
    """
    (data,) = need("layer_norm", x, "x")
    gamma, beta = roles.get("gamma"), roles.get("beta")
    sizes_of("layer_norm", {"gamma": (gamma, "features"), "beta": (beta, "features"), "x": (data, "batch... features")})
    mean, variance = _moments(data, (-1,))
    root = np.sqrt(variance + epsilon("layer_norm", settings, common_dtype(data, gamma)))
    return {"y": _affine((data - mean) / root, gamma, beta)}


def rms_norm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = x / sqrt(mean(x^2) + eps) * gamma + beta, the mean over the features of each sample.

    gamma, beta (features) or absent; x (batch..., features) -> y. Setting `eps`, None for the dtype's machine epsilon.
    """
    (data,) = need("rms_norm", x, "x")
    gamma = roles.get("gamma")
    beta = roles.get("beta")
    given = {"gamma": (gamma, "features"), "beta": (beta, "features"), "x": (data, "batch... features")}
    sizes_of("rms_norm", given)
    square = np.mean(data * data, axis=-1, keepdims=True)
    root = np.sqrt(square + epsilon("rms_norm", settings, common_dtype(data, gamma)))
    return {"y": _affine(data / root, gamma, beta)}


def group_norm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = (x - mean) / sqrt(variance + eps) * gamma + beta, over the channels of a group and all positions.

    gamma, beta, mean, variance (group, channel), any may be absent; x (batch, ..., group*channel) -> y, the groups
    being contiguous blocks of channels. Fact `statistics`: `instance` (of each sample), `running` (the stored
    ones: torch InstanceNorm with track_running_stats=True). Settings `eps`, and `groups` where no role is given.
    """
    kind = "group_norm"
    (data,) = need(kind, x, "x")
    pairs = {name: (roles.get(name), "group channel") for name in ("gamma", "beta", "mean", "variance")}
    sizes = sizes_of(kind, {**pairs, "x": (data, "batch space... group*channel")})
    group = sizes.get("group", settings.get("groups"))
    if group is None or data.shape[-1] % group:
        raise SizeError(
            f"{kind}: {data.shape[-1]} channels cannot be laid in {group} groups",
            do="give gamma (group, channel), or the setting groups that divides the channels",
        )
    grouped = data.reshape(*data.shape[:-1], group, -1)
    if _statistics(kind, facts, "instance", "running") == "running":
        mean, variance = need(kind, roles, "mean", "variance")
    else:
        mean, variance = _moments(grouped, (*range(1, data.ndim - 1), -1))
    root = np.sqrt(variance + epsilon(kind, settings, common_dtype(data, *(a for a, _ in pairs.values()))))
    return {"y": _affine((grouped - mean) / root, roles.get("gamma"), roles.get("beta")).reshape(data.shape)}


def normalization(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = (x - mean) / max(sqrt(variance), 1e-7); with the fact `invert`, y = x * max(sqrt(variance), 1e-7) + mean.

    mean, variance (channel), one of length one serves all; x (batch, ..., channel) -> y of the same shape.
    The settings `given_mean`, `given_variance` stand in for roles that are not stored.
    """
    kind = "normalization"
    (data,) = need(kind, x, "x")
    given = {name: settings.get(f"given_{name}") for name in ("mean", "variance")}
    plain = {name: np.asarray(value, np.float64).reshape(-1) for name, value in given.items() if value is not None}
    mean, variance = need(kind, {**plain, **roles}, "mean", "variance")
    sizes_of(kind, {"mean": (mean, "channel"), "variance": (variance, "channel")})
    if mean.size > 1:
        sizes_of(kind, {"mean": (mean, "channel"), "x": (data, "batch space... channel")})
    root = np.maximum(np.sqrt(variance), SMALLEST)
    return {"y": data * root + mean if facts.get("invert") else (data - mean) / root}


def _statistics(kind: str, facts: Facts, *allowed: str) -> str:
    value = facts.get("statistics", allowed[0])
    if value not in allowed:
        raise UsageError(f"{kind}: statistics={value!r} is unknown", where=f"known: {', '.join(allowed)}")
    return str(value)


def _moments(data: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and biased variance over some axes, kept as dims of one."""
    mean = data.mean(axis=axes, keepdims=True)
    return mean, np.mean((data - mean) ** 2, axis=axes, keepdims=True)


def _affine(y: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta
