"""What `inspect --stats` finds: every rule on a model that has the fault and on one that has not; the command."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="live models need keras")
torch = pytest.importorskip("torch", reason="live models need torch")
pytest.importorskip("tensorflow")

import layoutx as lx  # noqa: E402
from layoutx.cli import main  # noqa: E402

nn = torch.nn
DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits.keras"


def build() -> Any:
    """Every layer that a rule looks at, in Keras."""
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((7, 6, 3)),
            k.Conv2D(5, 3, name="conv"),
            k.BatchNormalization(name="norm", epsilon=1e-3),
            k.Flatten(),
            k.Dense(17, activation="relu", name="dense"),
            k.Dense(4, name="last"),
        ]
    )
    return trained_looking(model)


def trained_looking(model: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low = 0.3 if "var" in weight.name or "gamma" in weight.name else -0.4
        weight.assign(rng.uniform(low, 0.9, weight.shape))
    return model


def torch_build() -> Any:
    found = nn.ModuleDict(
        {"conv": nn.Conv2d(3, 5, 3), "norm": nn.BatchNorm2d(5), "dense": nn.Linear(20, 17), "last": nn.Linear(17, 4)}
    )
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for name, value in found.state_dict().items():
            if value.is_floating_point():
                value.copy_(
                    torch.from_numpy(rng.uniform(0.3 if "norm.w" in name or "var" in name else -0.4, 0.9, value.shape))
                )
    return found


def change(model: Any, layer: str, weight: int, at: Any, value: Any) -> Any:
    variable = model.get_layer(layer).weights[weight]
    array = np.asarray(variable).copy()
    array[at] = value
    variable.assign(array)
    return model


def found(model: Any) -> dict[str, tuple[str, ...]]:
    stats = lx.inspect(model).stats()
    assert stats.text()
    json.dumps(stats.to_dict(), allow_nan=False)
    return {f"{f.rule} {f.layer}": f.units for f in stats.findings}


def test_nothing_stands_out_where_nothing_is_wrong() -> None:
    assert found(build()) == {}
    assert found(torch_build()) == {}
    assert lx.inspect(str(DIGITS)).stats().findings == ()


def test_numbers_against_numpy() -> None:
    model = build()
    stats = lx.inspect(model).stats()
    kernel = np.asarray(model.get_layer("dense").kernel).astype(np.float64)
    dense = stats["dense"]
    n = dense.tensors[0].numbers
    np.testing.assert_allclose(
        [n.mean, n.std, n.min, n.max, n.norm],
        [kernel.mean(), kernel.std(), kernel.min(), kernel.max(), np.linalg.norm(kernel)],
        rtol=1e-12,
    )
    np.testing.assert_allclose(dense.spectral, np.linalg.norm(kernel, 2), rtol=1e-6)
    np.testing.assert_allclose(dense.gain, np.sqrt(kernel.shape[0] * (kernel**2).mean()), rtol=1e-6)
    conv = np.asarray(model.get_layer("conv").kernel).astype(np.float64).reshape(-1, 5)
    np.testing.assert_allclose(stats["conv"].spectral, np.linalg.norm(conv, 2), rtol=1e-6)


def test_the_same_model_has_the_same_norms_in_both_frameworks() -> None:
    source, target = build(), nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=1e-3), nn.Flatten(),
                                            nn.Linear(100, 17), nn.ReLU(), nn.Linear(17, 4))  # fmt: skip
    lx.port(source, target, compare=False)
    here, there = lx.inspect(source).stats(), lx.inspect(target).stats()
    ours = [layer.spectral for layer in here.layers]
    np.testing.assert_allclose([x for x in ours if x], [x.spectral for x in there.layers if x.spectral], rtol=1e-6)


def test_not_finite_is_placed_by_the_names_of_the_axes() -> None:
    model = change(build(), "conv", 0, (1, 2, 0, 3), np.nan)
    change(model, "conv", 1, 4, np.inf)
    stats = lx.inspect(model).stats()
    assert not stats.ok
    assert {f.where for f in stats.of("not finite")} == {
        "kernel at group 0, out 3, in 0, kh 1, kw 2",
        "bias at group 0, out 4",
    }
    assert "1 not finite" in stats.text()


def test_dead_units_on_both_sides() -> None:
    model = change(build(), "dense", 0, (slice(None), 5), 0.0)
    change(model, "conv", 0, (..., 2), 0.0)
    got = found(model)
    assert got == {"dead units dense": ("output 5",), "dead units conv": ("out 2",)}
    module = torch_build()
    with torch.no_grad():
        module["dense"].weight[5] = 0
    assert found(module) == {"dead units dense": ("output 5",)}
    words = {f.layer: f.why for f in lx.inspect(change(model, "dense", 1, 5, -0.5)).stats().findings}
    assert "gives 0 whatever" in words["dense"]
    words = {f.layer: f.why for f in lx.inspect(change(model, "dense", 1, 5, 0.5)).stats().findings}
    assert "its bias" in words["dense"]


def test_equal_units_and_unread_inputs() -> None:
    model = build()
    kernel, bias = (np.asarray(w).copy() for w in model.get_layer("dense").weights)
    kernel[:, 9], bias[9] = kernel[:, 3], bias[3]
    kernel[11] = 0
    model.get_layer("dense").set_weights([kernel, bias])
    got = found(model)
    assert got["equal units dense"] == ("output 3", "output 9")
    assert got["unread inputs dense"] == ("input 11",)
    bias[9] += 1
    model.get_layer("dense").set_weights([kernel, bias])
    assert "equal units dense" not in found(model)


def test_normalisation() -> None:
    model = change(build(), "norm", 0, 2, 1e-9)
    change(model, "norm", 3, 4, 1e-7)
    change(model, "norm", 1, 0, -9.0)
    got = found(model)
    assert got["channels off norm"] == ("channel 2",)
    assert got["channels that never vary norm"] == ("channel 4",)
    assert got["channels below zero norm"] == ("channel 0",)
    change(model, "norm", 3, 1, -0.5)
    assert "negative variance norm" in found(model)
    change(model, "norm", 2, slice(None), 0.0)
    change(model, "norm", 3, slice(None), 1.0)
    assert "statistics not counted norm" in found(model)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_stuck_gates(kind: str) -> None:
    k = keras.layers
    rnn = getattr(k, kind)(7, name="rnn")
    model = trained_looking(keras.Sequential([keras.Input((None, 3)), rnn]))
    assert found(model) == {}
    kernel, recurrent, bias = (np.asarray(w).copy() for w in rnn.weights)
    at = (0, 7 + 3) if kind == "GRU" else (7 + 3,)  # the second gate's unit 3: f of an LSTM, r of a GRU
    bias[at] = -60.0
    rnn.set_weights([kernel, recurrent, bias])
    gate = "f" if kind == "LSTM" else "r"
    assert found(model) == {"stuck gates rnn": (f"gate {gate}, hidden 3",)}
    finding = lx.inspect(model).stats().of("stuck gates")[0]
    assert "closed" in finding.where
    module = nn.ModuleDict({"rnn": getattr(nn, kind)(3, 7, batch_first=True)})
    lx.transfer(model, module)
    assert found(module) == {"stuck gates rnn/layer_0": (f"gate {gate}, hidden 3",)} or found(module) == {
        "stuck gates rnn": (f"gate {gate}, hidden 3",)
    }


def test_growing_recurrence() -> None:
    rnn = keras.layers.SimpleRNN(7, name="rnn")
    model = trained_looking(keras.Sequential([keras.Input((None, 3)), rnn]))
    kernel, _, bias = (np.asarray(w) for w in rnn.weights)
    rnn.set_weights([kernel, np.diag(np.linspace(0.1, 0.9, 7)), bias])
    assert found(model) == {}
    rnn.set_weights([kernel, np.diag(np.linspace(0.1, 1.7, 7)), bias])
    assert "growing recurrence rnn" in found(model)


@pytest.mark.parametrize("initialiser", ["glorot_uniform", "he_uniform", "lecun_uniform", "glorot_normal", "he_normal"])
def test_untrained_keras(initialiser: str) -> None:
    k = keras.layers
    keras.utils.set_random_seed(3)
    layers = [
        k.Conv2D(19, 3, kernel_initializer=initialiser),
        k.Flatten(),
        k.Dense(101, kernel_initializer=initialiser),
    ]
    model = keras.Sequential([keras.Input((9, 9, 8)), *layers])
    stats = lx.inspect(model).stats()
    assert {f.layer for f in stats.of("looks untrained")} == {layers[0].name, layers[2].name}
    assert all(initialiser in f.what for f in stats.findings)
    change(model, layers[2].name, 1, 3, 0.01)  # a single step of training moves the bias
    assert {f.layer for f in lx.inspect(model).stats().of("looks untrained")} == {layers[0].name}


def test_untrained_torch_and_one_step_of_training() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"conv": nn.Conv2d(3, 11, 3), "norm": nn.BatchNorm2d(11), "rnn": nn.LSTM(11, 17),
                            "fc": nn.Linear(17, 13)})  # fmt: skip
    stats = lx.inspect(module).stats()
    layers = {f.layer.partition("/")[0] for f in stats.of("looks untrained")}
    assert layers == {"conv", "norm", "rnn", "fc"}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert lx.inspect(module).stats().of("looks untrained") == ()


def test_a_bias_within_torchs_bounds_is_not_as_at_the_start_by_that_alone() -> None:
    layer = keras.layers.Dense(23, kernel_initializer="he_normal", name="head")
    model = keras.Sequential([keras.Input((37,)), layer])
    kernel = np.asarray(layer.kernel)
    trained = np.full(23, 0.02)
    trained[[3, 11]] = 0.14, -0.09  # most moved little, one far; the bound is 37 ** -0.5 = 0.164
    layer.set_weights([kernel, trained])
    assert lx.inspect(model).stats().of("looks untrained") == ()
    layer.set_weights([kernel, np.random.default_rng(5).uniform(-0.164, 0.164, 23)])
    assert {f.layer for f in lx.inspect(model).stats().of("looks untrained")} == {"head"}


def test_embedding_rows() -> None:
    model = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(31, 7, name="embed")])
    rng = np.random.default_rng(2)
    table = rng.normal(size=(31, 7))
    table[[4, 9]] = 0
    table[17] = rng.uniform(-0.04, 0.04, 7)
    table[21] = table[20]
    model.get_layer("embed").set_weights([table])
    findings = lx.inspect(model).stats().of("untrained rows")
    assert [f.units for f in findings] == [("vocab 4", "vocab 9"), ("vocab 17",), ("vocab 20", "vocab 21")]


def test_along_the_depth() -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input((13,)), *(k.Dense(13, name=f"d{i}") for i in range(6))])
    trained_looking(model)
    for layer in model.layers:
        layer.set_weights([np.asarray(layer.kernel) * 0.02, np.asarray(layer.bias)])
    assert "vanishing candidates d0" in found(model)
    change(model, "d3", 0, (2, 2), 1e6)
    assert "norm stands out d3" in found(model)


def test_an_unknown_form_gives_plain_numbers(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(
        {"odd.thing": np.arange(24.0).reshape(2, 3, 4), "odd.other": np.array([1.0, np.nan])},
        tmp_path / "x.safetensors",
    )
    stats = lx.inspect(tmp_path / "x.safetensors").stats()
    assert stats.layers[0].form == ""
    assert "only the numbers" in stats.layers[0].note
    assert [f.rule for f in stats.findings] == ["not finite"]
    assert sorted(t.numbers.size for t in stats.layers[0].tensors) == [2, 24]


@pytest.mark.parametrize("shape", [(200, 300), (500, 700), (700, 500), (300, 1700)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectral_norm_of_large_matrices(shape: tuple[int, int], dtype: Any) -> None:
    from layoutx.verify.stats.spectral import largest_singular

    rng = np.random.default_rng(0)
    for low in (0.0, 5.0):
        array = rng.normal(size=shape) + low * np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
        exact = np.linalg.norm(array, 2)
        np.testing.assert_allclose(largest_singular(array.astype(dtype)), exact, rtol=1e-4)
    assert largest_singular(np.zeros((700, 500))) == 0.0
    np.testing.assert_allclose(largest_singular(np.eye(600) * 1e-30), 1e-30)


def test_numbers_slab_by_slab() -> None:
    import ml_dtypes

    from layoutx.verify.stats.numbers import SLAB, numbers

    rng = np.random.default_rng(0)
    array = (rng.normal(size=2 * SLAB + 17) + 1000).astype(np.float32)
    array[3] = 0
    wide = array.astype(np.float64)
    n = numbers(array)
    np.testing.assert_allclose([n.mean, n.std, n.norm], [wide.mean(), wide.std(), np.linalg.norm(wide)], rtol=1e-12)
    assert (n.zero, n.nan, n.inf, n.size) == (1, 0, 0, array.size)
    array[[5, SLAB + 1]] = np.nan, -np.inf
    n = numbers(array)
    assert (n.nan, n.inf) == (1, 1)
    np.testing.assert_allclose(n.mean, wide[np.isfinite(array)].mean(), rtol=1e-12)
    assert numbers(np.ones(3, ml_dtypes.bfloat16)).mean == 1.0
    assert np.isnan(numbers(np.full(3, np.nan)).mean)
    assert numbers(np.array([], np.float32)).size == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(build(), "dense", 0, (slice(None), 5), 0.0).save(tmp_path / "m.keras")
    assert main(["inspect", str(tmp_path / "m.keras"), "--stats"]) == 0
    text = capsys.readouterr().out
    assert "output 5" in text
    assert max(map(len, text.splitlines())) <= 99
    assert main(["inspect", str(tmp_path / "m.keras"), "--stats", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["findings"][0]["rule"] == "dead units"
    assert told["layers"][0]["tensors"][0]["mean"] is not None


def test_a_large_model_takes_seconds(tmp_path: Path) -> None:
    """25 million numbers, as many as a ResNet50."""
    k = keras.layers
    model = keras.Sequential(
        [keras.Input((1024,)), *(k.Dense(2048 if i % 2 else 1024, name=f"d{i}") for i in range(13))]
    )
    view = lx.inspect(model)
    assert view.parameters > 24e6
    started = time.process_time()
    view.stats()
    assert time.process_time() - started < 60


MODELS = os.environ.get("LAYOUTX_MODELS", "")


@pytest.mark.skipif(not MODELS, reason="LAYOUTX_MODELS names no folder of real files")
def test_every_real_file_has_its_numbers() -> None:
    from layoutx.errors import LayoutxError

    seen = 0
    for path in sorted(Path(MODELS).rglob("*.h5")):
        try:
            view = lx.inspect(path)
        except LayoutxError:
            continue
        stats = view.stats()
        assert stats.ok, path
        assert stats.text(), path
        assert all(t.numbers.size for layer in stats.layers for t in layer.tensors), path
        seen += 1
    assert seen >= 20
