"""Trained flax models become torch models with the same outputs, and come back bit for bit; other trees likewise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.open import open_store

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
torch = pytest.importorskip("torch")
from flax import serialization  # noqa: E402

FORMS = {"Conv_0": "torch.Conv2d", "Conv_1": "torch.Conv2d", "BatchNorm_0": "torch.BatchNorm2d"}
BOUND = {"float64": 1e-12, "float32": 1e-5}


def digits() -> tuple[Any, Any]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    return (x[:64] / 16).reshape(-1, 8, 8, 1), y[:64]


class Net(linen.Module):
    """Two convolutions with a batch norm, flattened as flax does it (h w c), two dense layers."""

    dtype: Any

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = linen.relu(linen.Conv(5, (3, 3), padding="VALID", **kinds)(x))
        x = linen.BatchNorm(use_running_average=not train, momentum=0.7, **kinds)(x)
        x = linen.relu(linen.Conv(7, (2, 3), padding="VALID", **kinds)(x)).reshape(len(x), -1)
        return linen.Dense(10, **kinds)(linen.relu(linen.Dense(11, **kinds)(x)))


class Torch(torch.nn.Module):
    """The same, with the names that flax gave; the flattening keeps channels last."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.Conv_0, self.Conv_1 = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 7, (2, 3))
        self.BatchNorm_0 = nn.BatchNorm2d(5)
        self.Dense_1, self.Dense_0 = nn.Linear(140, 11), nn.Linear(11, 10)

    def forward(self, x: Any) -> Any:
        """x (batch, channel, h, w)."""
        x = self.BatchNorm_0(torch.relu(self.Conv_0(x)))
        x = torch.relu(self.Conv_1(x)).permute(0, 2, 3, 1).flatten(1)
        return self.Dense_0(torch.relu(self.Dense_1(x)))


def trained(dtype: str) -> tuple[Any, Any, Any]:
    """A model, its variables after a few steps of gradient descent by hand, and its outputs on the digits."""
    x, y = digits()
    x = x.astype(dtype)
    model = Net(np.dtype(dtype))
    variables = model.init(jax.random.key(0), x[:2])

    def loss(params: Any, stats: Any) -> Any:
        logits, changed = model.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[np.arange(len(y)), y].mean(), changed["batch_stats"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params, stats, losses = variables["params"], variables["batch_stats"], []
    for _ in range(5):
        (value, stats), gradient = step(params, stats)
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, gradient)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    variables = {"params": params, "batch_stats": stats}
    return model, variables, np.asarray(model.apply(variables, x))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_trained_flax_network_in_torch_and_back(tmp_path: Path, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        _, variables, want = trained(dtype)
        source = tmp_path / "net.msgpack"
        source.write_bytes(serialization.to_bytes(variables))
        kept = jax.tree.map(np.asarray, variables)
    with pytest.raises(LayoutxError, match="the order of the 140 input rows"):
        lx.convert(source, to="torch")
    made = tmp_path / "net.safetensors"
    report = lx.convert(source, made, to="torch", keep_order=["Dense_*"])
    assert report.round_trip == "bit-exact"
    model = Torch().to(getattr(torch, dtype)).eval()
    state = {name: torch.from_numpy(np.array(t.read())) for name, t in open_store(made).tensors.items()}
    model.load_state_dict(state)
    model.BatchNorm_0.eps = 1e-5
    x = torch.from_numpy(np.moveaxis(digits()[0], -1, 1).astype(dtype))
    with torch.no_grad():
        assert np.abs(model(x).numpy() - want).max() <= BOUND[dtype] * max(1.0, np.abs(want).max())
    back = tmp_path / "back.msgpack"
    lx.convert(made, back, to="flax", like=kept, forms=FORMS, keep_order=["Dense_*"], allow=["conditional"])
    found = serialization.from_bytes(kept, back.read_bytes())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, kept)
    assert "layoutx" in serialization.msgpack_restore(back.read_bytes())


def test_a_live_tree_becomes_a_live_torch_module() -> None:
    with jax.enable_x64(True):
        _, variables, want = trained("float64")
        model = Torch().double().eval()
        lx.port(variables, model, keep_order=["Dense_*"], compare=False)
    x = torch.from_numpy(np.moveaxis(digits()[0], -1, 1))
    with torch.no_grad():
        assert np.abs(model(x).numpy() - want).max() <= 1e-12 * np.abs(want).max()


def test_a_swapped_kernel_would_show() -> None:
    with jax.enable_x64(True):
        _, variables, want = trained("float64")
        kernel = np.asarray(variables["params"]["Dense_1"]["kernel"])
        variables["params"]["Dense_1"]["kernel"] = kernel.reshape(5, 4, 7, -1).transpose(2, 0, 1, 3).reshape(140, -1)
        model = Torch().double().eval()
        lx.port(variables, model, keep_order=["Dense_*"], compare=False)
    with torch.no_grad():
        found = model(torch.from_numpy(np.moveaxis(digits()[0], -1, 1))).numpy()
    assert np.abs(found - want).max() > 1e-3


def test_a_keras_file_becomes_flax_variables(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7, name="first"), keras.layers.BatchNormalization(name="norm")]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(tmp_path / "x.keras")
    lx.convert(tmp_path / "x.keras", tmp_path / "x.msgpack", to="flax")
    found = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert set(found["params"]["norm"]) == {"scale", "bias"}
    assert set(found["batch_stats"]["norm"]) == {"mean", "var"}
    x = rng.standard_normal((3, 5)).astype(np.float32)
    y = linen.Dense(7).apply({"params": found["params"]["first"]}, x)
    own = {"params": found["params"]["norm"], "batch_stats": found["batch_stats"]["norm"]}
    y = linen.BatchNorm(use_running_average=True, epsilon=1e-3).apply(own, y)
    assert np.abs(np.asarray(y) - np.asarray(model(x))).max() < 1e-5
    with pytest.raises(LayoutxError, match="already holds flax"):
        lx.convert(tmp_path / "x.msgpack", to="flax")


def test_a_flax_file_becomes_a_keras_file(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    params = {"first": {"kernel": rng.standard_normal((5, 7)).astype(np.float32), "bias": np.ones(7, np.float32)}}
    (tmp_path / "x.msgpack").write_bytes(serialization.to_bytes({"params": params}))
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="first")]).save(tmp_path / "like.keras")
    lx.convert(tmp_path / "x.msgpack", tmp_path / "x.keras", to="keras", like=tmp_path / "like.keras")
    x = rng.standard_normal((3, 5)).astype(np.float32)
    want = np.asarray(linen.Dense(7).apply({"params": params["first"]}, x))
    assert np.abs(np.asarray(keras.models.load_model(tmp_path / "x.keras")(x)) - want).max() < 1e-6


def test_haiku_names_are_asked_for_and_then_read(tmp_path: Path) -> None:
    haiku = pytest.importorskip("haiku")
    import pickle

    run = haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP([7, 3])(x)))
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    params = jax.tree.map(lambda a: a + 0.25, run.init(jax.random.key(0), x))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(params))
    with pytest.raises(LayoutxError, match="does not say whose names"):
        lx.convert(tmp_path / "x.pkl", to="torch")
    lx.convert(tmp_path / "x.pkl", tmp_path / "x.npz", to="torch", from_="haiku")
    state = np.load(tmp_path / "x.npz")
    hidden = np.maximum(x @ state["mlp.~.linear_0.weight"].T + state["mlp.~.linear_0.bias"], 0)
    found = hidden @ state["mlp.~.linear_1.weight"].T + state["mlp.~.linear_1.bias"]
    assert np.abs(found - np.asarray(run.apply(params, x))).max() < 1e-5


def test_weight_norm_of_torch_reaches_flax_only_when_asked(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 7)))
    torch.save(module.state_dict(), tmp_path / "x.pt")
    with pytest.raises(LayoutxError, match="stored through weight_norm"):
        lx.convert(tmp_path / "x.pt", to="flax")
    report = lx.convert(tmp_path / "x.pt", tmp_path / "x.msgpack", to="flax", materialise=True)
    assert report.exactness == "rounds"
    assert "computed in float64" in str(report)
    found = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    want = module[0].weight.detach().numpy().T
    assert np.abs(found["params"]["0"]["kernel"] - want).max() <= 1e-7


IN_PADDLE = """
import sys, numpy as np
try:
    import paddle
except ImportError:
    sys.exit(77)
nn, folder = paddle.nn, sys.argv[1]
rnn, dense = nn.LSTM(5, 7, num_layers=2, direction="bidirect"), nn.Linear(14, 3)
net = nn.LayerList([rnn, dense])
net.set_state_dict(paddle.load(folder + "/x.pdparams"))
y, _ = rnn(paddle.to_tensor(np.load(folder + "/in.npy")))
np.save(folder + "/out.npy", dense(y).numpy())
paddle.save(net.state_dict(), folder + "/again.pdparams")
"""


def test_torch_to_paddle_and_back(tmp_path: Path) -> None:
    """paddle runs in a process of its own: paddle 3.3.1 crashes where TensorFlow was imported first."""
    net = torch.nn.ModuleList([torch.nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True), torch.nn.Linear(14, 3)])
    torch.save(net.state_dict(), tmp_path / "x.pt")
    lx.convert(tmp_path / "x.pt", tmp_path / "x.pdparams", to="paddle", from_="torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
    np.save(tmp_path / "in.npy", x)
    call = [sys.executable, "-c", IN_PADDLE, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("paddle is not installed")
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        want = net[1](net[0](torch.from_numpy(x))[0]).numpy()
    assert np.abs(np.load(tmp_path / "out.npy") - want).max() < 1e-5
    lx.convert(tmp_path / "again.pdparams", tmp_path / "again.safetensors", to="torch")
    back = open_store(tmp_path / "again.safetensors").tensors
    for name, value in net.state_dict().items():
        assert np.array_equal(back[name].read(), value.numpy()), name


@pytest.mark.parametrize("name", ["x.npz", "x.keras"])
def test_a_framework_that_is_not_the_files_is_refused(tmp_path: Path, name: str) -> None:
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(7)]).save(tmp_path / "x.keras")
    np.savez(tmp_path / "x.npz", w=np.ones((3, 5)))
    for wrong in ("keras" if name == "x.npz" else "flax", "nobody"):
        with pytest.raises(UsageError):
            lx.convert(tmp_path / name, to="torch", from_=wrong)


def test_a_target_in_parts_is_refused(tmp_path: Path) -> None:
    params = {"0": {"kernel": np.ones((5, 7), np.float32), "bias": np.ones(7, np.float32)}}
    (tmp_path / "x.msgpack").write_bytes(serialization.to_bytes({"params": params}))
    like = torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 7)))
    with pytest.raises(LayoutxError, match="stored through weight_norm"):
        lx.convert(tmp_path / "x.msgpack", to="torch", like=like)


def test_mlx_files_are_read_when_named(tmp_path: Path) -> None:
    mlx = pytest.importorskip("mlx.nn")
    model = mlx.Sequential(mlx.Linear(3, 5), mlx.LSTM(5, 7))
    for ending in ("safetensors", "npz"):
        model.save_weights(str(tmp_path / f"x.{ending}"))
        lx.convert(tmp_path / f"x.{ending}", tmp_path / "y.npz", to="torch", from_="mlx")
        found = np.load(tmp_path / "y.npz")
        assert np.array_equal(found["layers.0.weight"], np.array(model.layers[0].weight))
        assert found["layers.1.weight_ih_l0"].shape == (28, 5)


class First(torch.nn.Module):
    """A recurrent layer whose outputs alone count."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        """x (batch, time, input)."""
        return self.layer(x)[0]


def moved(module: Any) -> Any:
    """An nnx or mlx module whose numbers are not the initial ones, as the layer `layer` of a model."""
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.layer = module

        def __call__(self, x: Any) -> Any:
            return self.layer(x)

    model = Model()
    params = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda a: a + 0.2 * np.random.default_rng(a.size).normal(size=a.shape), params))
    return model


def test_what_a_live_nnx_module_computes_otherwise_is_refused_or_told() -> None:
    from flax import nnx

    rngs, nn = nnx.Rngs(0), torch.nn
    lstm = nn.LSTM(5, 7, batch_first=True)
    for options in ({"activation_fn": jax.nn.relu}, {"gate_fn": jax.nn.hard_sigmoid}):
        with pytest.raises(LayoutxError, match=r"cannot hold this nnx\.RNN\.LSTMCell"):
            lx.port(moved(nnx.RNN(nnx.LSTMCell(5, 7, rngs=rngs, **options))), First(lstm), compare=False)
    residual = moved(nnx.RNN(nnx.SimpleCell(5, 5, residual=True, rngs=rngs)))
    with pytest.raises(LayoutxError, match="residual"):
        lx.port(residual, First(nn.RNN(5, 5, batch_first=True)), compare=False)
    plain = nnx.RNN(nnx.LSTMCell(5, 7, rngs=rngs), time_major=True)
    assert "time is the first axis" in str(lx.port(moved(plain), First(lstm), compare=False))
    back = nnx.RNN(nnx.LSTMCell(5, 7, rngs=rngs), reverse=True)
    assert "reverse=True: " in str(lx.port(moved(back), First(lstm), compare=False))
    norm = torch.nn.Sequential()
    norm.add_module("layer", nn.LayerNorm(7, 1e-6))
    report = lx.port(moved(nnx.LayerNorm(7, epsilon=0.1, rngs=rngs)), norm, compare=False)
    assert report.layers[0].settings == ("eps=0.1; the target has 1e-06",)
    assert "does not tell" not in str(report)


def test_live_nnx_models_are_run_beside_torch() -> None:
    from flax import nnx

    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    target = First(torch.nn.LSTM(5, 7, batch_first=True))
    report = lx.port(moved(nnx.RNN(nnx.LSTMCell(5, 7, rngs=nnx.Rngs(0)))), target, x)
    assert report.end_to_end.agrees
    norm = torch.nn.Sequential()
    norm.add_module("layer", torch.nn.BatchNorm1d(5))
    source = moved(nnx.BatchNorm(5, rngs=nnx.Rngs(0)))
    assert lx.port(source, norm, x[0]).end_to_end.agrees  # in evaluation mode
    assert source.layer.use_running_average is False
    with pytest.raises(LayoutxError, match="do not compute the same"):
        lx.port(moved(nnx.BatchNorm(5, epsilon=0.1, rngs=nnx.Rngs(0))), norm, x[0])
    end = lx.port(source, norm, x[0][:, :3]).end_to_end
    assert end.agrees is None
    assert "not run" in end.note
    weights = lx.port({"params": {"Dense_0": {"kernel": np.ones((5, 7)), "bias": np.ones(7)}}}, _linear(), x[0])
    assert "cannot be run" in weights.end_to_end.note


def _linear() -> Any:
    found = torch.nn.Sequential().double()
    found.add_module("layer", torch.nn.Linear(5, 7).double())
    return found


def test_live_equinox_and_mlx_models_are_run_beside_torch() -> None:
    eqx, mlx = pytest.importorskip("equinox"), pytest.importorskip("mlx.nn")
    x = np.random.default_rng(0).normal(size=(2, 3, 11, 13)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    conv = [eqx.nn.Conv2d(3, 5, 2, key=keys[0]), eqx.nn.Conv2d(5, 7, 3, key=keys[1])]
    target = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 2), torch.nn.Conv2d(5, 7, 3))
    assert lx.port(eqx.nn.Sequential(conv), target, x).end_to_end.agrees
    norm = eqx.nn.Sequential([eqx.nn.LayerNorm(13, eps=0.1)])
    report = lx.port(norm, torch.nn.Sequential(torch.nn.LayerNorm(13)), compare=False)
    assert report.layers[0].settings == ("eps=0.1; torch's default is 1e-05",)
    with pytest.raises(LayoutxError, match="do not compute the same"):
        lx.port(norm, torch.nn.Sequential(torch.nn.LayerNorm(13)), x[0, 0])
    source = mlx.Sequential(mlx.Linear(13, 5), mlx.Dropout(0.5), mlx.Linear(5, 7))
    linear = torch.nn.Sequential(torch.nn.Linear(13, 5), torch.nn.Identity(), torch.nn.Linear(5, 7))
    assert lx.port(source, linear, x[0, 0]).end_to_end.agrees
    assert source.layers[1].training
    for module, other in (
        (mlx.RNN(5, 7, nonlinearity=mlx.relu), torch.nn.RNN(5, 7, batch_first=True)),
        (mlx.GroupNorm(2, 6), torch.nn.GroupNorm(2, 6)),
    ):
        with pytest.raises(LayoutxError, match="cannot hold this mlx"):
            lx.port(mlx.Sequential(module), torch.nn.Sequential(other), compare=False)


def test_port_says_what_it_does_not_write_into() -> None:
    onnx = pytest.importorskip("onnx")
    for target in (onnx.ModelProto(), Path("weights.safetensors")):
        with pytest.raises(UsageError, match="port does not write into") as found:
            lx.port(_linear(), target)
        assert "lx.convert" in str(found.value)
        assert "two torch models" not in str(found.value)
