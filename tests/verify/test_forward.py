"""The NumPy forward passes against torch and Keras in float64, from native tensors to roles by hand."""

import numpy as np
import pytest

from layoutx.errors import SizeError, UsageError
from layoutx.verify import live
from layoutx.verify.forward import KINDS, forward
from layoutx.verify.forward.activations import PLAIN, activation


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def fill(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [rand(seed, *shape) for seed, shape in enumerate(shapes, start=10)]


def agree(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(got) == sorted(wanted)
    for name, array in got.items():
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, wanted[name], rtol=1e-12, atol=1e-12, err_msg=name)


# dense, embedding, prelu


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_dense(shape: tuple[int, ...]) -> None:
    pytest.importorskip("torch")
    kernel, bias, x = *fill((5, 7), (7,)), rand(1, *shape)
    tensors = {"weight": kernel.T, "bias": bias}
    wanted = live.run("torch.Linear", {"in_features": 5, "out_features": 7}, tensors, {"x": x})
    agree(forward("dense", {"kernel": kernel, "bias": bias}, {"x": x}), wanted)
    wanted = live.run(
        "torch.Linear", {"in_features": 5, "out_features": 7, "bias": False}, {"weight": kernel.T}, {"x": x}
    )
    agree(forward("dense", {"kernel": kernel}, {"x": x}), wanted)


@pytest.mark.parametrize("version", [3, 2])
def test_dense_is_keras(version: int) -> None:
    pytest.importorskip("tensorflow")
    kernel, bias, x = fill((5, 7), (7,), (2, 3, 5))
    tensors = {"kernel": kernel, "bias": bias}
    wanted = live.run("keras.Dense", {"version": version, "units": 7}, tensors, {"x": x})
    agree(forward("dense", tensors, {"x": x}), wanted)
    config = {"version": version, "equation": "abc,cd->abd", "output_shape": [None, 7], "bias_axes": "d"}
    agree(live.run("keras.EinsumDense", config, tensors, {"x": x}), wanted)


def test_embedding() -> None:
    pytest.importorskip("torch")
    table, x = rand(1, 11, 3), np.array([[0, 10, 4], [7, 7, 1]])
    wanted = live.run("torch.Embedding", {"num_embeddings": 11, "embedding_dim": 3}, {"weight": table}, {"x": x})
    agree(forward("embedding", {"table": table}, {"x": x}), wanted)
    for wrong in (np.array([11]), np.array([-1])):
        with pytest.raises(UsageError, match=r"holds .*\.\.") as caught:
            forward("embedding", {"table": table}, {"x": wrong})
        assert "table (vocab=11, dim=3)" in str(caught.value)
    with pytest.raises(UsageError, match="x is float64"):
        forward("embedding", {"table": table}, {"x": rand(1, 2)})


def test_prelu() -> None:
    pytest.importorskip("torch")
    alpha, x = fill((5,), (2, 5, 3, 7))
    wanted = live.run("torch.PReLU", {"num_parameters": 5}, {"weight": alpha}, {"x": x})["y"]
    agree(forward("prelu", {"alpha": alpha}, {"x": np.moveaxis(x, 1, -1)}), {"y": np.moveaxis(wanted, 1, -1)})
    with pytest.raises(SizeError, match=r"alpha \(5,\) does not fit"):
        forward("prelu", {"alpha": alpha}, {"x": x})


@pytest.mark.parametrize("version", [3, 2])
def test_prelu_is_keras(version: int) -> None:
    pytest.importorskip("tensorflow")
    x = rand(1, 2, 3, 7, 5)
    for shared, shape in (([], (3, 7, 5)), ([1, 2], (1, 1, 5)), ([2], (3, 1, 5))):
        alpha = rand(2, *shape)
        config = {"version": version, "shared_axes": shared or None}
        agree(forward("prelu", {"alpha": alpha}, {"x": x}), live.run("keras.PReLU", config, {"alpha": alpha}, {"x": x}))


# normalisations


def test_norms_are_torch() -> None:
    pytest.importorskip("torch")
    gamma, beta, mean, x = fill((6,), (6,), (6,), (2, 6, 5, 7))
    variance, eps = np.abs(rand(5, 6)) + 0.3, 1e-2
    last = np.moveaxis(x, 1, -1)
    roles = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    native = {
        "weight": gamma,
        "bias": beta,
        "running_mean": mean,
        "running_var": variance,
        "num_batches_tracked": np.array(3),
    }

    def check(kind: str, roles: dict, facts: dict, name: str, config: dict, tensors: dict) -> None:
        wanted = np.moveaxis(live.run(name, {"eps": eps, **config}, tensors, {"x": x})["y"], 1, -1)
        agree(forward(kind, roles, {"x": last}, facts, {"eps": eps}), {"y": wanted})

    check("batch_norm", roles, {"statistics": "running"}, "torch.BatchNorm2d", {"num_features": 6}, native)
    only = {"affine": False, "track_running_stats": False}
    check("batch_norm", {}, {"statistics": "batch"}, "torch.BatchNorm2d", {"num_features": 6, **only}, {})
    affine = {"weight": gamma, "bias": beta}
    grouped = {name: array.reshape(2, 3) for name, array in roles.items()}
    two = {name: grouped[name] for name in ("gamma", "beta")}
    check("group_norm", two, {}, "torch.GroupNorm", {"num_groups": 2, "num_channels": 6}, affine)
    single = {name: array.reshape(6, 1) for name, array in roles.items()}
    stored = {"num_features": 6, "affine": True, "track_running_stats": True}
    check("group_norm", single, {"statistics": "running"}, "torch.InstanceNorm2d", stored, native)
    own = {"num_features": 6, "affine": True}
    check("group_norm", {k: single[k] for k in two}, {"statistics": "instance"}, "torch.InstanceNorm2d", own, affine)
    wanted = live.run("torch.InstanceNorm2d", {"num_features": 6, "eps": eps}, {}, {"x": x})["y"]
    settings = {"eps": eps, "groups": 6}
    agree(forward("group_norm", {}, {"x": last}, {}, settings), {"y": np.moveaxis(wanted, 1, -1)})


def test_feature_norms_are_torch() -> None:
    pytest.importorskip("torch")
    gamma, beta, x = fill((5, 7), (5, 7), (2, 3, 5, 7))
    flat = x.reshape(2, 3, 35)
    shape = {"normalized_shape": [5, 7]}
    wanted = live.run("torch.LayerNorm", {**shape, "eps": 1e-2}, {"weight": gamma, "bias": beta}, {"x": x})["y"]
    roles = {"gamma": gamma.ravel(), "beta": beta.ravel()}
    agree(forward("layer_norm", roles, {"x": flat}, {}, {"eps": 1e-2}), {"y": wanted.reshape(2, 3, 35)})
    # eps None is the machine epsilon of the dtype: seen best where x is tiny
    wanted = live.run("torch.RMSNorm", shape, {"weight": gamma}, {"x": x * 1e-8})["y"].reshape(2, 3, 35)
    agree(forward("rms_norm", {"gamma": gamma.ravel()}, {"x": flat * 1e-8}, {}, {"eps": None}), {"y": wanted})


@pytest.mark.parametrize("version", [3, 2])
def test_norms_are_keras(version: int) -> None:
    pytest.importorskip("tensorflow")
    gamma, beta, mean, x = fill((6,), (6,), (6,), (2, 5, 7, 6))
    variance, eps = np.abs(rand(5, 6)) + 0.3, 1e-2
    affine = {"gamma": gamma, "beta": beta}
    config = {"version": version, "epsilon": eps}

    def check(kind: str, roles: dict, name: str, more: dict, tensors: dict) -> None:
        wanted = live.run(name, {**config, **more}, tensors, {"x": x})
        agree(forward(kind, roles, {"x": x}, {}, {"eps": eps}), wanted)

    running = {"moving_mean": mean, "moving_variance": variance}
    roles = {**affine, "mean": mean, "variance": variance}
    check("batch_norm", roles, "keras.BatchNormalization", {}, {**affine, **running})
    less = {k: v for k, v in roles.items() if k != "gamma"}
    check("batch_norm", less, "keras.BatchNormalization", {"scale": False}, {"beta": beta, **running})
    check("layer_norm", affine, "keras.LayerNormalization", {}, affine)
    grouped = {name: array.reshape(3, 2) for name, array in affine.items()}
    check("group_norm", grouped, "keras.GroupNormalization", {"groups": 3}, affine)
    single = {name: array.reshape(6, 1) for name, array in affine.items()}
    check("group_norm", single, "keras.GroupNormalization", {"groups": -1}, affine)
    if version == 3:
        check("rms_norm", {"gamma": gamma}, "keras.RMSNormalization", {}, {"scale": gamma})


# activations, dtypes, errors


def test_activations_are_keras() -> None:
    keras = pytest.importorskip("keras")
    x = np.linspace(-5.3, 5.1, 41)[None]
    spelled = {"hard_sigmoid_1/6": "hard_sigmoid", "elu_1": "elu"}
    for name in [*PLAIN, *spelled]:
        if not name.startswith("gelu"):
            wanted = np.asarray(keras.activations.get(spelled.get(name, name))(x))
            np.testing.assert_allclose(activation(name)(x), wanted, rtol=1e-12, atol=1e-12, err_msg=name)
    # tf.nn rounds the constants of these to float32, in float64 too
    for name, real, options in (
        ("gelu", "gelu", {"approximate": False}),
        ("gelu_tanh", "gelu", {"approximate": True}),
        ("leaky_relu_0.2", "leaky_relu", {}),
    ):
        wanted = np.asarray(getattr(keras.activations, real)(x, **options))
        np.testing.assert_allclose(activation(name)(x), wanted, rtol=1e-6, atol=1e-7, err_msg=name)


def test_activations_are_torch() -> None:
    nn = pytest.importorskip("torch.nn")
    from torch import from_numpy

    x = np.linspace(-5.3, 5.1, 41)
    modules = {
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "selu": nn.SELU(),
        "silu": nn.SiLU(),
        "leaky_relu_0.01": nn.LeakyReLU(),
        "hard_sigmoid_1/6": nn.Hardsigmoid(),
        "elu_0.5": nn.ELU(alpha=0.5),
    }
    for name, module in modules.items():
        wanted = module(from_numpy(x)).numpy()
        np.testing.assert_allclose(activation(name)(x), wanted, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_dtype_of_the_inputs_is_the_one_computed_in() -> None:
    rng = {name: rand(3, *shape) for name, shape in {"w": (1, 4, 7, 3), "r": (1, 4, 7, 7), "x": (2, 5, 3)}.items()}
    low = {name: array.astype(np.float32) for name, array in rng.items()}
    for dtype, given in ((np.float64, rng), (np.float32, low)):
        result = forward("lstm", {"w_input": given["w"], "w_recurrent": given["r"]}, {"x": given["x"]})
        assert {array.dtype for array in result.values()} == {np.dtype(dtype)}
    mixed = forward("dense", {"kernel": rand(1, 3, 5)}, {"x": low["x"]})
    assert mixed["y"].dtype == np.float64
    for name in [*PLAIN, "hard_sigmoid_0.2", "leaky_relu_0.1"]:
        assert activation(name)(low["x"]).dtype == np.float32, name


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(UsageError, match="no kind is called 'lstn'") as kind:
        forward("lstn", {}, {})
    assert all(name in str(kind.value) for name in KINDS)
    for name in ("hard_sigmoid", "leaky_relu_x", "swish7"):
        with pytest.raises(UsageError, match="no activation is called") as unknown:
            forward("simple_rnn", {}, {}, {"activation": name})
        assert "known: linear, tanh, sigmoid" in str(unknown.value)
    with pytest.raises(UsageError, match="lstm: missing w_recurrent"):
        forward("lstm", {"w_input": rand(1, 1, 4, 5, 3)}, {"x": rand(1, 2, 5, 3)})
    with pytest.raises(UsageError, match="layer_norm: the setting 'eps' is missing"):
        forward("layer_norm", {}, {"x": rand(1, 2, 3)})
    with pytest.raises(UsageError, match="reset='never'"):
        forward("gru", {}, {}, {"reset": "never"})
    with pytest.raises(SizeError, match="w_input has 3 gates, not 4"):
        forward("lstm", {"w_input": rand(1, 1, 3, 5, 3), "w_recurrent": rand(1, 1, 3, 5, 5)}, {"x": rand(1, 2, 5, 3)})
    with pytest.raises(SizeError, match="hidden_prev is 3 and hidden 5"):
        forward("lstm", {"w_input": rand(1, 1, 4, 5, 3), "w_recurrent": rand(1, 1, 4, 5, 3)}, {"x": rand(1, 2, 5, 3)})
    with pytest.raises(SizeError, match="input is 4 in x and 3 in kernel") as sizes:
        forward("dense", {"kernel": rand(1, 3, 5)}, {"x": rand(1, 2, 4)})
    assert "kernel (input=3, output=5)" in str(sizes.value)
    assert "x (batch.0=2, input=4)" in str(sizes.value)
    with pytest.raises(SizeError, match="6 channels cannot be laid in 4 groups"):
        forward("group_norm", {}, {"x": rand(1, 2, 6)}, {}, {"eps": 1e-3, "groups": 4})
