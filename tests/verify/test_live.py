"""The runners of real layers: each form runs, ONNX agrees with torch, and wrong weights are refused by name."""

import subprocess
import sys

import numpy as np
import pytest

from layoutx.errors import BindError, LayoutxError, UsageError
from layoutx.verify import live
from layoutx.verify.forward import forward


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def close(got: dict, wanted: dict, tolerance: float = 1e-12) -> None:
    assert sorted(got) == sorted(wanted)
    for name, array in got.items():
        np.testing.assert_allclose(array, wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)


def onnx_both(form: str, config: dict, tensors: dict, x: dict, wanted: dict) -> None:
    """The operator in float32 (onnxruntime) and in what `precision` promises (the reference evaluator)."""
    from layoutx.verify.live import onnx_live

    for dtype in ("float64", "float32"):
        got = live.run(form, config, tensors, x, dtype)
        real = onnx_live.precision(form, config, dtype)
        assert {str(array.dtype) for array in got.values()} == {real}
        close(got, wanted, 1e-12 if real == "float64" else 2e-5)


# torch


def test_torch_stacks_give_all_layers_and_directions() -> None:
    pytest.importorskip("torch")
    x = rand(1, 2, 5, 3)
    config = {"input_size": 3, "hidden_size": 7, "num_layers": 2, "bidirectional": True}
    for name, states in (("RNN", "h"), ("GRU", "h"), ("LSTM", "hc")):
        shapes = live.describe(f"torch.{name}", config, {})
        assert shapes[-1][0] == "bias_hh_l1_reverse"
        tensors = {n: rand(k, *shape) / 3 for k, (n, shape) in enumerate(shapes)}
        result = live.run(f"torch.{name}", config, tensors, {"x": x})
        assert {n: a.shape for n, a in result.items()} == {"y": (2, 5, 14), **dict.fromkeys(states, (4, 2, 7))}
        later = live.run(f"torch.{name}", {**config, "batch_first": False}, tensors, {"x": x.swapaxes(0, 1)})
        np.testing.assert_allclose(later["y"].swapaxes(0, 1), result["y"], rtol=1e-12)
    assert live.run("torch.RNN", config, {n: rand(1, *s) for n, s in live.describe("torch.RNN", config, {})}, {"x": x},
                    "float32")["y"].dtype == np.float32  # fmt: skip


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_torch_cells_are_the_stacks_step_by_step(name: str) -> None:
    pytest.importorskip("torch")
    config = {"input_size": 3, "hidden_size": 7}
    tensors = {n: rand(k, *shape) for k, (n, shape) in enumerate(live.describe(f"torch.{name}Cell", config, {}))}
    whole = {f"{n}_l0": array for n, array in tensors.items()}
    x = {"x": rand(9, 2, 5, 3)}
    close(live.run(f"torch.{name}Cell", config, tensors, x), live.run(f"torch.{name}", config, whole, x))


def test_torch_refuses_what_is_not_its_own() -> None:
    pytest.importorskip("torch")
    config = {"in_features": 3, "out_features": 5}
    with pytest.raises(BindError, match=r"the real torch\.Linear does not take this") as caught:
        live.run("torch.Linear", config, {"weight": rand(1, 3, 5), "bias": rand(2, 5)}, {"x": rand(3, 2, 3)})
    assert "given: weight (3, 5), bias (5,)" in str(caught.value)
    assert "size mismatch for weight" in str(caught.value)
    with pytest.raises(BindError, match="does not take this"):
        live.run("torch.Linear", {**config, "units": 3}, {}, {"x": rand(3, 2, 3)})
    with pytest.raises(UsageError, match=r"torch\.nn has no Denes"):
        live.run("torch.Denes", {}, {}, {"x": rand(3, 2, 3)})
    shapes = {"in_proj_weight": (6, 2), "in_proj_bias": (6,), "out_proj.weight": (2, 2), "out_proj.bias": (2,)}
    tensors = {name: rand(1, *shape) for name, shape in shapes.items()}
    with pytest.raises(UsageError, match="needs the inputs query, key, value"):
        live.run("torch.MultiheadAttention", {"embed_dim": 2, "num_heads": 1}, tensors, {"x": rand(1, 2, 3, 2)})


# keras


@pytest.mark.parametrize("version", [3, 2])
def test_keras_describes_its_weights_in_order(version: int) -> None:
    pytest.importorskip("tensorflow")
    x = {"x": (2, 5, 3)}
    dense = live.describe("keras.Dense", {"version": version, "units": 7}, x)
    assert dense == [("kernel", (3, 7)), ("bias", (7,))]
    both = live.describe("keras.Bidirectional.LSTM", {"version": version, "layer": {"units": 7}}, x)
    assert [shape for _, shape in both] == [(3, 28), (7, 28), (28,)] * 2
    assert both[0][0].startswith("forward_lstm")
    assert both[5][0].endswith("bias")
    shapes = {"query": (2, 5, 3), "key": (2, 7, 11), "value": (2, 7, 13)}
    config = {"version": version, "num_heads": 2, "key_dim": 5}
    paths = [name for name, _ in live.describe("keras.MultiHeadAttention", config, shapes)]
    parts = ("query", "key", "value", "attention_output")
    assert paths == [f"{part}/{leaf}" for part in parts for leaf in ("kernel", "bias")]
    assert live.describe("keras.Embedding", {"version": version, "input_dim": 11, "output_dim": 3}, {"x": (2, 5)}) == [
        ("embeddings", (11, 3))
    ]


@pytest.mark.parametrize("version", [3, 2])
def test_keras_embedding_and_serialised_inner_layers(version: int) -> None:
    pytest.importorskip("tensorflow")
    table, rows = rand(1, 11, 3), np.array([[0, 10], [4, 7]])
    config = {"version": version, "input_dim": 11, "output_dim": 3}
    np.testing.assert_array_equal(
        live.run("keras.Embedding", config, {"embeddings": table}, {"x": rows})["y"], table[rows]
    )
    inner = {"units": 7, "reset_after": False}
    shapes = live.describe("keras.Bidirectional.GRU", {"version": version, "layer": inner}, {"x": (2, 5, 3)})
    tensors = {name: rand(k, *shape) for k, (name, shape) in enumerate(shapes)}
    x = {"x": rand(9, 2, 5, 3)}
    plain = live.run("keras.Bidirectional.GRU", {"version": version, "layer": inner}, tensors, x)
    nested = {"version": version, "layer": {"class_name": "GRU", "config": inner}}
    close(live.run("keras.Bidirectional.GRU", nested, tensors, x), plain)
    beside = {"version": version, "merge_mode": "concat", **inner}
    close(live.run("keras.Bidirectional.GRU", beside, tensors, x), plain)
    assert {n: a.shape for n, a in plain.items()} == {"y": (2, 5, 14), "h": (2, 2, 7)}


@pytest.mark.parametrize("version", [3, 2])
def test_keras_refuses_another_order(version: int) -> None:
    pytest.importorskip("tensorflow")
    x = {"x": rand(1, 2, 5, 3)}
    config = {"version": version}
    norm = {name: rand(k, 3) for k, name in enumerate(["beta", "gamma", "moving_mean", "moving_variance"])}
    with pytest.raises(LayoutxError, match=r"are not those of the real keras\.BatchNormalization") as caught:
        live.run("keras.BatchNormalization", config, norm, x)
    assert "at this position the layer has gamma (3,)" in str(caught.value)
    with pytest.raises(BindError, match="does not take this") as caught_count:
        live.run("keras.Dense", {**config, "units": 7}, {"kernel": rand(1, 3, 7)}, x)
    assert "the layer has 2 weights: kernel (3, 7), bias (7,)" in str(caught_count.value)
    with pytest.raises(BindError, match="does not take this"):
        live.run("keras.Dense", {**config, "units": 7}, {"kernel": rand(1, 7, 3), "bias": rand(2, 7)}, x)
    attention = {**config, "num_heads": 2, "key_dim": 5}
    shapes = live.describe("keras.MultiHeadAttention", attention, dict.fromkeys(("query", "key", "value"), (2, 5, 3)))
    tensors = {name: rand(k, *shape) for k, (name, shape) in enumerate(shapes)}
    names = list(tensors)
    swapped = {n: tensors[n] for n in [*names[2:4], *names[:2], *names[4:]]}  # key before query: the same shapes
    data = {n: rand(4, 2, 5, 3) for n in ("query", "key", "value")}
    with pytest.raises(LayoutxError, match="are not those of the real"):
        live.run("keras.MultiHeadAttention", attention, swapped, data)
    with pytest.raises(UsageError, match="has no layer Densse"):
        live.run("keras.Densse", config, {}, x)
    with pytest.raises(BindError, match="does not take this"):
        live.run("keras.Dense", {**config, "unitz": 7}, {}, x)


# onnx


def test_onnx_dense_embedding_and_prelu() -> None:
    pytest.importorskip("onnxruntime")
    w, b, x = rand(1, 3, 5), rand(2, 5), rand(3, 2, 3)
    wanted = {"y": x @ w + b}
    onnx_both("onnx.Gemm", {}, {"B": w, "C": b}, {"x": x}, wanted)
    onnx_both("onnx.Gemm", {"transB": 1, "rank": None}, {"B": w.T, "C": b}, {"x": x}, wanted)
    onnx_both("onnx.MatMul", {}, {"B": w, "bias": b}, {"x": x}, wanted)
    onnx_both("onnx.MatMul", {}, {"B": w}, {"x": x[None]}, {"y": x[None] @ w})
    onnx_both("onnx.Gather", {}, {"data": w}, {"x": np.array([[2, 0]])}, {"y": w[[[2, 0]]]})
    onnx_both("onnx.PRelu", {}, {"slope": b}, {"x": x @ w}, forward("prelu", {"alpha": b}, {"x": x @ w}))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_onnx_convs_are_torch(rank: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    size, space = (3, 5, 2)[:rank], (7, 8, 5)[:rank]
    for groups in (1, 2):
        x, bias = {"x": rand(1, 2, 2 * groups, *space)}, rand(3, 3 * groups)
        pairs = {"Conv": (3 * groups, 2), "ConvTranspose": (2 * groups, 3)}
        for name, (first, second) in pairs.items():
            w = rand(2, first, second, *size)
            sizes = {"in_channels": 2 * groups, "out_channels": 3 * groups, "kernel_size": size, "groups": groups}
            steps = {"stride": 2, "padding": 1, "dilation": 2}
            wanted = live.run(f"torch.{name}{rank}d", {**sizes, **steps}, {"weight": w, "bias": bias}, x)
            attributes = {"rank": rank, "group": groups, "strides": [2] * rank, "dilations": [2] * rank}
            onnx_both(f"onnx.{name}", {**attributes, "pads": [1] * 2 * rank}, {"W": w, "B": bias}, x, wanted)


def test_onnx_same_upper_is_same_of_the_reference() -> None:
    pytest.importorskip("onnxruntime")
    x, w, bias = rand(1, 2, 2, 7, 8), rand(2, 3, 2, 3, 5), rand(3, 3)
    settings, config = {"padding": "same", "strides": 2}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    last = {"x": np.moveaxis(x, 1, -1)}
    y = forward("conv", {"kernel": w[None], "bias": bias[None]}, last, {}, settings)["y"]
    onnx_both("onnx.Conv", config, {"W": w, "B": bias}, {"x": x}, {"y": np.moveaxis(y, -1, 1)})
    w = rand(2, 2, 3, 3, 5)
    y = forward("conv_transpose", {"kernel": w[None], "bias": bias[None]}, last, {}, settings)["y"]
    onnx_both("onnx.ConvTranspose", config, {"W": w, "B": bias}, {"x": x}, {"y": np.moveaxis(y, -1, 1)})


def test_onnx_norms_are_torch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    g, b, mean, var, x = rand(1, 6), rand(2, 6), rand(3, 6), np.abs(rand(4, 6)) + 0.5, {"x": rand(5, 2, 6, 5)}
    eps, e = {"epsilon": 2**-7}, {"eps": 2**-7}  # ONNX attributes are float32: 0.01 would differ in the ninth digit
    native = {"weight": g, "bias": b, "running_mean": mean, "running_var": var, "num_batches_tracked": np.array(3)}
    wanted = live.run("torch.BatchNorm1d", {"num_features": 6, **e}, native, x)
    tensors = {"scale": g, "B": b, "input_mean": mean, "input_var": var}
    onnx_both("onnx.BatchNormalization", eps, tensors, x, wanted)
    affine = {"weight": g, "bias": b}
    wanted = live.run("torch.GroupNorm", {"num_groups": 2, "num_channels": 6, **e}, affine, x)
    onnx_both("onnx.GroupNormalization", {"num_groups": 2, **eps}, {"scale": g, "bias": b}, x, wanted)
    wanted = live.run("torch.InstanceNorm1d", {"num_features": 6, "affine": True, **e}, affine, x)
    onnx_both("onnx.InstanceNormalization", eps, {"scale": g, "B": b}, x, wanted)
    last = {"x": rand(5, 2, 5, 6)}
    wanted = live.run("torch.LayerNorm", {"normalized_shape": 6, **e}, affine, last)
    onnx_both("onnx.LayerNormalization", eps, {"Scale": g, "B": b}, last, wanted)
    wanted = live.run("torch.RMSNorm", {"normalized_shape": 6, **e}, {"weight": g}, last)
    onnx_both("onnx.RMSNormalization", eps, {"scale": g}, last, wanted)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("name", "order", "config", "options"),
    [
        ("RNN", [0], {}, {}),
        ("RNN", [0], {"activations": ["Relu"]}, {"nonlinearity": "relu"}),
        ("LSTM", [0, 3, 1, 2], {}, {}),
        ("GRU", [1, 0, 2], {"linear_before_reset": 1}, {}),
    ],
)
def test_onnx_recurrent_is_torch(name: str, order: list, config: dict, options: dict, directions: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    gates, hidden = len(order), 7
    whole = {"input_size": 3, "hidden_size": hidden, "bidirectional": directions == 2, **options}
    tensors = {n: rand(k, *s) / 2 for k, (n, s) in enumerate(live.describe(f"torch.{name}", whole, {}))}
    x = rand(9, 2, 5, 3)
    wanted = live.run(f"torch.{name}", whole, tensors, {"x": x})
    blocks = [a.reshape(gates, hidden, -1)[order].reshape(gates * hidden, -1) for a in tensors.values()]
    sides = [blocks[4 * d : 4 * d + 4] for d in range(directions)]
    w, r = (np.stack([side[k] for side in sides]) for k in (0, 1))
    bias = np.stack([np.concatenate([side[2], side[3]])[:, 0] for side in sides])
    if directions == 2 and "activations" in config:
        config = {**config, "activations": config["activations"] * 2}
    # torch (batch, time, direction*hidden) -> (time, direction, batch, hidden)
    y = wanted["y"].reshape(2, 5, directions, hidden).transpose(1, 2, 0, 3)
    onnx_both(f"onnx.{name}", config, {"W": w, "R": r, "B": bias}, {"x": x.swapaxes(0, 1)}, {**wanted, "y": y})


@pytest.mark.parametrize(
    ("name", "kind", "order", "config", "facts"),
    [
        ("GRU", "gru", [0, 1, 2], {"linear_before_reset": 0}, {"reset": "before"}),
        ("GRU", "gru", [0, 1, 2], {"activations": ["HardSigmoid", "Tanh"]},
         {"reset": "before", "gate_activation": "hard_sigmoid_0.2"}),
        ("LSTM", "lstm", [0, 3, 1, 2], {"direction": "reverse"}, {"direction": "backward"}),
        ("LSTM", "lstm", [0, 3, 1, 2], {"activations": ["HardSigmoid", "Softsign", "Softsign"]},
         {"activation": "softsign", "gate_activation": "hard_sigmoid_0.2"}),
    ],
)  # fmt: skip
def test_onnx_recurrent_variants_are_the_reference(
    name: str, kind: str, order: list, config: dict, facts: dict
) -> None:
    pytest.importorskip("onnxruntime")
    gates = len(order)
    w, r, b, s = rand(1, 1, gates, 7, 3) / 2, rand(2, 1, gates, 7, 7) / 2, rand(3, 1, gates, 7), rand(4, 1, gates, 7)
    x = rand(9, 2, 5, 3)
    wanted = forward(kind, {"w_input": w, "w_recurrent": r, "b_input": b, "b_recurrent": s}, {"x": x}, facts)
    flat = [array[:, order].reshape(1, gates * 7, -1) for array in (w, r, b, s)]
    tensors = {"W": flat[0], "R": flat[1], "B": np.concatenate(flat[2:], axis=1)[:, :, 0]}
    wanted["y"] = wanted["y"].transpose(1, 0, 2)[:, None]
    onnx_both(f"onnx.{name}", config, tensors, {"x": x.swapaxes(0, 1)}, wanted)


def test_onnx_composites_are_torch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    x = {"x": rand(1, 2, 5, 7, 8)}
    deep, point, bias = rand(2, 15, 1, 3, 2), rand(3, 7, 15, 1, 1), rand(4, 7)
    tensors = {"depthwise.weight": deep, "pointwise.weight": point, "pointwise.bias": bias}
    wanted = live.run("torch.SeparableConv2d", {"stride": 2}, tensors, x)
    named = {"depthwise.W": deep, "pointwise.W": point, "pointwise.B": bias}
    onnx_both("onnx.SeparableConv", {"rank": 2, "strides": [2, 2]}, named, x, wanted)
    data = {"query": rand(1, 2, 5, 11), "key": rand(2, 2, 7, 3), "value": rand(3, 2, 7, 2)}
    for kv in (6, 2):
        into = {"q": (11, 30), "k": (3, 5 * kv), "v": (2, 5 * kv), "o": (30, 13)}
        b = {n: rand(k, *shape) / 2 for k, (n, shape) in enumerate(into.items())}
        v = {n: rand(k, shape[1]) for k, (n, shape) in enumerate(into.items())}
        full = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
        linear = {f"{full[n]}.{leaf}": a for n in into for leaf, a in (("weight", b[n].T), ("bias", v[n]))}
        named = {f"{n}.{leaf}": a for n in into for leaf, a in (("B", b[n]), ("bias", v[n]))}
        config = {"num_heads": 6, "num_kv_heads": kv}
        wanted = live.run("torch.AttentionProjections", config, linear, data)
        onnx_both("onnx.AttentionProjections", config, named, data, wanted)


def test_onnx_refuses_what_is_no_slot() -> None:
    pytest.importorskip("onnxruntime")
    x = {"x": rand(1, 2, 3)}
    with pytest.raises(BindError, match=r"the real onnx\.Gemm does not take this") as caught:
        live.run("onnx.Gemm", {}, {"weight": rand(1, 3, 5)}, x)
    assert "weight is no input; the slots are A, B, C" in str(caught.value)
    with pytest.raises(BindError, match="does not take this"):
        live.run("onnx.Gemm", {}, {"B": rand(1, 5, 7)}, x)
    with pytest.raises(UsageError, match="ONNX has no operator Gem"):
        live.run("onnx.Gem", {}, {}, x)
    with pytest.raises(UsageError, match="cannot be listed"):
        live.describe("onnx.Gemm", {}, {})


# all


def test_frameworks_are_named_and_not_imported() -> None:
    with pytest.raises(UsageError, match=r"no framework runs 'jax\.Dense'"):
        live.run("jax.Dense", {}, {}, {})
    with pytest.raises(UsageError, match="no framework is called 'jax'"):
        live.available("jax")
    calls = "[live.available(name) for name in live.NEEDS]; print(*sys.modules)"
    code = f"import sys; from layoutx.verify import live, forward; {calls}"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "keras", "tf_keras", "tensorflow", "onnx", "onnxruntime"} & set(loaded)


def test_available_is_the_version() -> None:
    torch = pytest.importorskip("torch")
    assert torch.__version__.split("+")[0] == live.available("torch").split("+")[0]  # builds differ in their suffix
