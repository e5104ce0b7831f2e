"""The NumPy reference of ConvLSTM, bilinear, locally connected, Normalization and weighed attention: against the real
layers, and against plain computations of another make."""

from __future__ import annotations

from itertools import product
from math import exp, sqrt, tanh

import numpy as np
import pytest

from layoutx.errors import BindError, SizeError, UsageError
from layoutx.verify import live
from layoutx.verify.forward import forward
from layoutx.verify.forward.activations import sigmoid

BATCH, TIME, INPUT, HIDDEN = 2, 3, 3, 5


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def agree(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(got) == sorted(wanted)
    for name, array in got.items():
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, wanted[name], rtol=1e-12, atol=1e-12, err_msg=name)


def apart(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    return float(np.abs(got["y"] - wanted["y"]).max())


# ConvLSTM: roles (gate i f g o, hidden, input, kh, kw), Keras (kh, kw, input, gate i f c o x hidden)


def conv_lstm_roles() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    w, r = rand(1, 4, HIDDEN, INPUT, 3, 2) / 3, rand(2, 4, HIDDEN, HIDDEN, 3, 2) / 3
    roles = {"w_input": w, "w_recurrent": r, "b_input": rand(3, 4, HIDDEN), "b_recurrent": rand(4, 4, HIDDEN)}
    bias = (roles["b_input"] + roles["b_recurrent"]).reshape(-1)
    kernels = {
        name: a.reshape(4 * HIDDEN, *a.shape[2:]).transpose(2, 3, 1, 0)
        for name, a in {"kernel": w, "recurrent_kernel": r}.items()
    }
    return roles, {**kernels, "bias": bias}


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({}, {}),
        ({"padding": "same", "strides": [2, 2]}, {"padding": "same", "strides": [2, 2]}),
        ({"padding": "same", "dilation_rate": 2}, {"padding": "same", "dilation": 2}),
    ],
)
@pytest.mark.parametrize("version", [3, 2])
def test_conv_lstm_is_keras(version: int, more: dict, settings: dict) -> None:
    pytest.importorskip("tf_keras" if version == 2 else "keras")
    roles, tensors = conv_lstm_roles()
    x = {"x": rand(5, BATCH, TIME, 7, 6, INPUT)}
    config = {"filters": HIDDEN, "kernel_size": [3, 2], "version": version, **more}
    real = live.run("keras.ConvLSTM2D", {**config, "recurrent_activation": "sigmoid"}, tensors, x)
    agree(forward("conv_lstm", roles, x, {}, settings), real)
    swapped = {**roles, "w_recurrent": roles["w_recurrent"][[1, 0, 2, 3]]}
    assert apart(forward("conv_lstm", swapped, x, {}, settings), real) > 1e-3


def test_conv_lstm_with_a_kernel_of_one_is_an_lstm_at_every_position() -> None:
    roles, _ = conv_lstm_roles()
    small = {name: a[..., :1, 1:] if name.startswith("w_") else a for name, a in roles.items()}
    x = rand(6, BATCH, TIME, 4, 3, INPUT)
    got = forward("conv_lstm", small, {"x": x})
    flat = {name: a[..., 0, 0][np.newaxis] if name.startswith("w_") else a[np.newaxis] for name, a in small.items()}
    for p, q in product(range(4), range(3)):
        one = forward("lstm", flat, {"x": x[:, :, p, q]})
        np.testing.assert_allclose(got["y"][:, :, p, q], one["y"], rtol=1e-12)
        np.testing.assert_allclose(got["c"][:, p, q], one["c"][0], rtol=1e-12)


def test_conv_lstm_step_by_scalar_loops() -> None:
    """Rank 1, an even kernel: "same" puts the odd position at the end."""
    w, r, b = rand(1, 4, 2, 3, 2), rand(2, 4, 2, 2, 2), rand(3, 4, 2)
    x = rand(4, 1, 2, 3, 3)
    got = forward("conv_lstm", {"w_input": w, "w_recurrent": r, "b_input": b}, {"x": x}, {}, {"padding": "same"})
    h = c = np.zeros((3, 2))
    for t in range(2):
        gates = np.zeros((4, 3, 2))
        for g, p, u, k in product(range(4), range(3), range(2), range(2)):
            if p + k < 3:
                gates[g, p, u] += sum(w[g, u, n, k] * x[0, t, p + k, n] for n in range(3))
                gates[g, p, u] += sum(r[g, u, n, k] * h[p + k, n] for n in range(2))
        i, f, a, o = gates + b[:, np.newaxis]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(a)
        h = sigmoid(o) * np.tanh(c)
    np.testing.assert_allclose(got["h"][0], h, rtol=1e-12)
    np.testing.assert_allclose(got["y"][0, 1], h, rtol=1e-12)


def test_conv_lstm_errors_name_the_axes() -> None:
    roles, _ = conv_lstm_roles()
    x = {"x": rand(5, BATCH, TIME, 7, 6, INPUT)}
    with pytest.raises(SizeError, match="3 gates"):
        forward("conv_lstm", {name: a[:3] for name, a in roles.items()}, x)
    with pytest.raises(SizeError, match="spatial axes"):
        forward("conv_lstm", roles, {"x": x["x"][..., 0, :]})


# bilinear


def test_bilinear_is_torch() -> None:
    pytest.importorskip("torch")
    roles = {"weight": rand(1, 3, 7, 5), "bias": rand(2, 3)}
    x = {"x1": rand(3, 2, 7), "x2": rand(4, 2, 5)}
    config = {"in1_features": 7, "in2_features": 5, "out_features": 3}
    agree(forward("bilinear", roles, x), live.run("torch.Bilinear", config, roles, x))
    bare = {"weight": roles["weight"]}
    agree(forward("bilinear", bare, x), live.run("torch.Bilinear", {**config, "bias": False}, bare, x))
    by_matrix = [x["x1"] @ roles["weight"][o] @ x["x2"].T for o in range(3)]
    np.testing.assert_allclose(forward("bilinear", bare, x)["y"], np.stack([np.diag(m) for m in by_matrix], -1))


# locally connected: roles (oh, ow, kh, kw, in, out), Keras (oh x ow, kh x kw x in, out)


@pytest.mark.parametrize("first", [False, True])
def test_locally_connected_is_tf_keras(first: bool) -> None:
    pytest.importorskip("tf_keras")
    kernel = rand(1, 3, 2, 3, 2, INPUT, 7)
    x = rand(2, BATCH, 7, 4, INPUT)
    got = forward("locally_connected_2d", {"kernel": kernel}, {"x": x}, {}, {"strides": [2, 2]})["y"]
    rows = kernel.transpose(0, 1, 4, 2, 3, 5) if first else kernel
    stored = {"kernel": rows.reshape(6, 3 * 2 * INPUT, 7)}
    config = {"filters": 7, "kernel_size": [3, 2], "strides": [2, 2], "use_bias": False, "version": 2}
    config |= {"data_format": "channels_first"} if first else {}
    data = {"x": np.moveaxis(x, -1, 1) if first else x}
    real = live.run("keras.LocallyConnected2D", config, stored, data)["y"]
    np.testing.assert_allclose(got, np.moveaxis(real, 1, -1) if first else real, rtol=1e-12)


def test_tf_keras_reads_a_channels_first_bias_in_another_order() -> None:
    """Why a bias of channels_first layers is not described: (oh, out) numbers are read as (out, oh)."""
    pytest.importorskip("tf_keras")
    kernel, bias, x = rand(1, 9, 3 * INPUT, 7), rand(2, 9, 7), rand(3, BATCH, INPUT, 11)
    config = {"filters": 7, "kernel_size": 3, "data_format": "channels_first", "version": 2}
    plain = live.run("keras.LocallyConnected1D", {**config, "use_bias": False}, {"kernel": kernel}, {"x": x})["y"]
    real = live.run("keras.LocallyConnected1D", config, {"kernel": kernel, "bias": bias}, {"x": x})["y"]
    np.testing.assert_allclose(real - plain, np.broadcast_to(bias.reshape(7, 9), real.shape), rtol=1e-12)


def test_locally_connected_with_one_kernel_everywhere_is_a_convolution() -> None:
    one, bias, x = rand(1, 5, INPUT, 7), rand(2, 7), rand(3, BATCH, 11, INPUT)
    roles = {"kernel": np.broadcast_to(one, (7, *one.shape)), "bias": np.broadcast_to(bias, (7, 7))}
    conv = {"kernel": one.transpose(2, 1, 0)[np.newaxis], "bias": bias[np.newaxis]}
    np.testing.assert_allclose(
        forward("locally_connected_1d", roles, {"x": x})["y"], forward("conv", conv, {"x": x})["y"], rtol=1e-12
    )


def test_locally_connected_refuses_what_it_does_not_know() -> None:
    roles, x = {"kernel": rand(1, 7, 5, INPUT, 7)}, {"x": rand(3, BATCH, 11, INPUT)}
    with pytest.raises(UsageError, match="padding"):
        forward("locally_connected_1d", roles, x, {}, {"padding": "same"})
    with pytest.raises(SizeError, match="positions"):
        forward("locally_connected_1d", roles, x, {}, {"strides": 2})


# Normalization


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("version", [3, 2])
def test_normalization_is_keras(version: int, invert: bool) -> None:
    pytest.importorskip("tf_keras" if version == 2 else "keras")
    roles = {"mean": rand(1, 5), "variance": np.array([0.5, 2.0, 3.0, 1e-20, 0.0])}  # the last two: below 1e-7
    x = {"x": rand(2, BATCH, 3, 5)}
    config = {"invert": invert, "version": version}
    real = live.run("keras.Normalization", config, {**roles, "count": np.array(17)}, x)
    got = forward("normalization", roles, x, {"invert": invert})
    np.testing.assert_allclose(got["y"], real["y"], rtol=1e-7)  # Keras keeps 1e-7 in float32
    assert apart(forward("normalization", {**roles, "mean": -roles["mean"]}, x, {"invert": invert}), real) > 1e-3


def test_normalization_by_hand_and_with_numbers_of_the_config() -> None:
    x = rand(2, BATCH, 3)
    wanted = [[(v - m) / sqrt(s) for v, m, s in zip(row, (1.0, 2.0, 3.0), (4.0, 9.0, 25.0), strict=True)] for row in x]
    given = {"given_mean": [1.0, 2.0, 3.0], "given_variance": [4.0, 9.0, 25.0]}
    np.testing.assert_allclose(forward("normalization", {}, {"x": x}, {}, given)["y"], wanted, rtol=1e-12)
    with pytest.raises(UsageError, match="missing mean"):
        forward("normalization", {}, {"x": x})


# attention that only weighs its scores


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize(
    ("kind", "form", "config", "roles", "facts"),
    [
        ("additive_attention", "AdditiveAttention", {}, {"scale": rand(1, 7)}, {}),
        ("additive_attention", "AdditiveAttention", {"use_scale": False}, {}, {}),
        ("attention_scale", "Attention", {}, {}, {}),
        ("attention_scale", "Attention", {"use_scale": True}, {"scale": rand(2)}, {}),
        (
            "attention_scale",
            "Attention",
            {"use_scale": True, "score_mode": "concat"},
            {"scale": rand(3), "concat_score_weight": rand(4) + 0.5},
            {"score_mode": "concat"},
        ),
    ],
)
def test_scored_attention_is_keras(kind: str, form: str, config: dict, roles: dict, facts: dict, version: int) -> None:
    pytest.importorskip("tf_keras" if version == 2 else "keras")
    x = {"query": rand(5, 2, 3, 7), "key": rand(6, 2, 5, 7), "value": rand(7, 2, 5, 7)}
    real = live.run(f"keras.{form}", {**config, "version": version}, roles, x)
    agree(forward(kind, roles, x, facts), real)
    assert apart(forward(kind, roles, {**x, "key": x["value"]}, facts), real) > 1e-3


def test_scored_attention_by_scalar_loops() -> None:
    query, key, value, scale = rand(1, 1, 2, 3), rand(2, 1, 4, 3), rand(3, 1, 4, 5), rand(4, 3)
    x = {"query": query, "key": key, "value": value}
    for kind, roles, facts, score in (
        ("additive_attention", {"scale": scale}, {}, lambda q, k: sum(scale * np.tanh(q + k))),
        ("attention_scale", {"scale": np.array(0.7)}, {}, lambda q, k: 0.7 * sum(q * k)),
        (
            "attention_scale",
            {"scale": np.array(0.7), "concat_score_weight": np.array(1.3)},
            {"score_mode": "concat"},
            lambda q, k: 1.3 * sum(tanh(0.7 * (a + b)) for a, b in zip(q, k, strict=True)),
        ),
    ):
        got = forward(kind, roles, x, facts)["y"]
        for q in range(2):
            weights = [exp(score(query[0, q], key[0, k])) for k in range(4)]
            mixed = sum(w * value[0, k] for k, w in enumerate(weights)) / sum(weights)
            np.testing.assert_allclose(got[0, q], mixed, rtol=1e-12)
    with pytest.raises(UsageError, match="score_mode"):
        forward("attention_scale", {}, x, {"score_mode": "cosine"})


# layers whose real class is another one, or needs a GPU


@pytest.mark.parametrize(("name", "gates"), [("CuDNNLSTM", 4), ("CuDNNGRU", 3)])
def test_weights_of_cudnn_layers_by_cudnn_own_order(name: str, gates: int) -> None:
    """A gate's columns, read row by row, are (hidden, input): true for any sizes, and a layout only where they are
    equally many."""
    pytest.importorskip("tf_keras")
    inputs, hidden = 7, 3
    config = {"units": hidden, "version": 2}
    described = dict(live.describe(f"keras.{name}", config, {"x": (2, 5, inputs)}))
    assert described == {
        "kernel": (inputs, gates * hidden),
        "recurrent_kernel": (hidden, gates * hidden),
        "bias": (2 * gates * hidden,),
    }
    tensors = {key: rand(n, *shape) for n, (key, shape) in enumerate(described.items())}
    x = {"x": rand(9, 2, 5, inputs)}
    blocks = [b.reshape(hidden, inputs) for b in np.split(tensors["kernel"], gates, axis=1)]
    recurrent = [b.reshape(hidden, hidden) for b in np.split(tensors["recurrent_kernel"], gates, axis=1)]
    own = [0, 1, 2, 3][:gates]  # Keras i f c o and z r h are i f g o and z r n here
    b_input, b_recurrent = (b.reshape(gates, hidden) for b in np.split(tensors["bias"], 2))
    roles = {"w_input": blocks, "w_recurrent": recurrent, "b_input": b_input, "b_recurrent": b_recurrent}
    one = {key: np.stack([np.asarray(blocks_)[g] for g in own])[np.newaxis] for key, blocks_ in roles.items()}
    agree(forward("lstm" if gates == 4 else "gru", one, x), live.run(f"keras.{name}", config, tensors, x))


@pytest.mark.parametrize(
    ("lazy", "arguments", "plain", "shape"),
    [
        ("LazyLinear", (5,), "Linear", (2, 7)),
        ("LazyConv1d", (5, 3), "Conv1d", (2, 7, 11)),
        ("LazyConvTranspose2d", (5, 3), "ConvTranspose2d", (2, 7, 11, 13)),
        ("LazyBatchNorm1d", (), "BatchNorm1d", (2, 7)),
        ("LazyInstanceNorm2d", (), "InstanceNorm2d", (2, 7, 3, 5)),
    ],
)
def test_lazy_modules_of_torch_become_plain_ones(lazy: str, arguments: tuple, plain: str, shape: tuple) -> None:
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, lazy)(*arguments)
    module(torch.ones(shape))
    assert type(module) is getattr(torch.nn, plain)


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_a_bag_of_one_is_its_row(mode: str) -> None:
    pytest.importorskip("torch")
    table = {"weight": rand(1, 11, 3)}
    config = {"num_embeddings": 11, "embedding_dim": 3, "mode": mode}
    x = {"x": np.array([4, 0, 10])}
    real = live.run("torch.EmbeddingBag", config, table, x)
    agree(forward("embedding", {"table": table["weight"]}, x), real)
    whole = live.run("torch.EmbeddingBag", config, table, {"x": x["x"][np.newaxis]})["y"]
    np.testing.assert_allclose(whole[0], getattr(np, mode)(real["y"], axis=0), rtol=1e-12)


def test_runners_refuse_foreign_weights() -> None:
    pytest.importorskip("tf_keras")
    with pytest.raises(BindError, match="has 1 weights"):
        live.run(
            "keras.AdditiveAttention", {"version": 2}, {}, {k: rand(1, 2, 3, 5) for k in ("query", "key", "value")}
        )
    with pytest.raises(UsageError, match="no layer LocallyConnected1D"):
        live.run("keras.LocallyConnected1D", {"filters": 3, "kernel_size": 2}, {}, {"x": rand(1, 2, 5, 3)})
