"""Histories of real trainings on scikit-learn's digits: Keras 3, tf_keras and torch; and their pictures."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import UsageError


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (digit, 8, 8, 1) in 0..1 and labels; 256 of them."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[:256, ..., None] / 16).astype(np.float32), data.target[:256].astype(np.int64)


def network(package: str) -> Any:
    """Convolution, norm, flatten, a frozen layer: compiled."""
    k = importlib.import_module(package)
    k.utils.set_random_seed(5)
    layers = k.layers
    model = k.Sequential(
        [
            layers.InputLayer(**{"shape" if package == "keras" else "input_shape": (8, 8, 1)}),
            layers.Conv2D(5, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(11, name="frozen", trainable=False),
            layers.Dense(10, activation="softmax", name="out"),
        ]
    )
    model.compile(k.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_keras_records_each_epoch_and_the_moment_before(package: str, tmp_path: Path) -> None:
    images, labels = digits()
    model = network(package)
    first = {layer.name: [np.array(w) for w in layer.get_weights()] for layer in model.layers}
    path = tmp_path / "run.lxh"
    model.fit(images, labels, batch_size=32, epochs=3, verbose=0, callbacks=[lx.History(path)])
    found = lx.History.read(path)
    assert found.epochs.tolist() == [0, 1, 2, 3]
    assert found.steps.tolist() == [0, 8, 16, 24]
    assert set(found.logs) == {"loss", "accuracy"}
    assert [name for name in found if "input" not in name] == ["conv", "norm", "flat", "frozen", "out"]
    assert found["flat"].keys() == []
    assert found["norm"].keys() == ["gamma", "beta", "moving_mean", "moving_variance"]
    for name, layer in ((name, found[name]) for name in first):
        for at, track in enumerate(layer.tensors.values()):
            assert track[0].tobytes() == first[name][at].tobytes()
            assert track[-1].tobytes() == np.array(model.get_layer(name).get_weights()[at]).tobytes()
    assert found["norm"]["moving_mean"].state
    assert not found["frozen"]["kernel"].moved[1:].any()
    assert found["conv"]["kernel"].axes == ("step", "kh", "kw", "in", "out")
    assert (found["conv"]["kernel"].update[1:] > 0).all()


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_keras_records_every_few_steps_and_a_second_fit_goes_on(package: str, tmp_path: Path) -> None:
    images, labels = digits()
    model = network(package)
    history = lx.History(tmp_path / "run.lxh", by="step", every=3, layers=["out"])
    model.fit(images, labels, batch_size=32, epochs=1, verbose=0, callbacks=[history])
    assert lx.History.read(tmp_path / "run.lxh").steps.tolist() == [0, 3, 6, 8]  # the last one too
    model.compile("sgd", "sparse_categorical_crossentropy")  # counts from zero again
    model.fit(images, labels, batch_size=32, epochs=1, verbose=0, callbacks=[history])
    found = lx.History.read(tmp_path / "run.lxh")
    assert found.steps.tolist() == [0, 3, 6, 8, 9, 12, 15, 16]
    assert np.isfinite(found["out"]["kernel"].moved[1:]).all()
    assert list(found) == ["out"]
    assert np.isfinite(found.logs["loss"][[1, 2, 4, 5, 6]]).all()
    other = importlib.import_module(package)
    small = other.Sequential([other.Input((2,)), other.layers.Dense(4, name="out")])
    with pytest.raises(UsageError, match="another model"):
        history.watch(small)


BACKEND = """
import numpy as np, keras, sys
import layoutx as lx
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
model.compile("sgd", "mse")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)), rng.normal(size=(64, 3))
first = model.get_layer("fc").get_weights()[0]
model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[lx.History(sys.argv[1], by="step")])
found = lx.History.read(sys.argv[1])
kernel = found["fc"]["kernel"]
assert found.steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8], found.steps
assert (kernel.moved[1:] > 0).all(), kernel.moved
assert (kernel[0] == first).all()
assert (kernel[-1] == model.get_layer("fc").get_weights()[0]).all()
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_step_on_every_backend(backend: str, tmp_path: Path, root: Path) -> None:
    """Keras calls hooks that it thinks idle in another thread, and jax keeps the weights outside the model."""
    env = {**os.environ, "KERAS_BACKEND": backend}
    call = [sys.executable, "-c", BACKEND, str(tmp_path / "run.lxh")]
    done = subprocess.run(call, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_that_has_no_weights_yet_is_recorded_from_its_first_epoch(tmp_path: Path) -> None:
    import tf_keras

    images, labels = digits()
    model = tf_keras.Sequential([tf_keras.layers.Flatten(), tf_keras.layers.Dense(10, name="out")])
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[lx.History(tmp_path / "run.lxh")])
    found = lx.History.read(tmp_path / "run.lxh")
    assert found.epochs.tolist() == [1, 2]
    assert "no weights before its first step" in found.notes[0]


def test_torch_records_every_few_steps_of_the_optimizer(tmp_path: Path) -> None:
    import torch

    images, labels = (torch.tensor(a) for a in digits())
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    first = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with lx.History(tmp_path / "run.lxh", every=4).watch(module, optimizer) as history:
        for at in range(0, 224, 32):
            optimizer.zero_grad()
            scores = module(images[at : at + 32].permute(0, 3, 1, 2))
            loss = torch.nn.functional.cross_entropy(scores, labels[at : at + 32])
            loss.backward()
            history.log(loss=loss.item())
            optimizer.step()
    optimizer.step()  # the hook is gone
    found = lx.History.read(tmp_path / "run.lxh")
    assert found.steps.tolist() == [0, 4, 7]
    state = module.state_dict()
    for track in found.tracks:
        assert np.array_equal(track[0], first[track.key].numpy())
        assert track.state == ("running" in track.key or "tracked" in track.key)
    assert found["1"]["running_mean"][-1].tobytes() == state["1.running_mean"].numpy().tobytes()
    assert np.isfinite(found.logs["loss"][1:]).all()


def test_a_module_that_got_other_memory_is_still_followed(tmp_path: Path) -> None:
    """`module.to(device)` and `module.double()` put new memory behind the same parameters."""
    import torch

    module = torch.nn.Linear(3, 2)
    with lx.History(tmp_path / "run.lxh").watch(module) as history:
        module.weight.data = module.weight.detach().clone() + 1
        history.record(1)
    found = lx.History.read(tmp_path / "run.lxh")
    weight = found[next(iter(found))]["weight"]
    np.testing.assert_allclose(weight[1] - weight[0], 1, rtol=1e-6)


def test_the_picture_has_all_its_parts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images, labels = digits()
    model = network("keras")
    path = tmp_path / "run.lxh"
    model.fit(images, labels, batch_size=64, epochs=3, verbose=0, callbacks=[lx.History(path)])
    found = lx.History.read(path)
    found.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
    found.plot(tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text(encoding="utf-8")
    for word in ("metrics", "update ratio", "norms of the weights", "1e-3, a usual value", "conv", "accuracy"):
        assert f"{word}" in text
    with pytest.raises(UsageError, match="cannot be drawn"):
        found.plot(tmp_path / "run.nope")
    with lx.History(tmp_path / "one.lxh").watch(model):
        pass
    with pytest.raises(UsageError, match="a line needs two"):
        lx.History.read(tmp_path / "one.lxh").plot(tmp_path / "one.png")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    module = torch.nn.Linear(3, 2)
    with lx.History(tmp_path / "run.lxh").watch(module) as history:
        history.record(1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        lx.History.read(tmp_path / "run.lxh").plot(tmp_path / "run.png")
    assert "layoutx[report]" in caught.value.do


def test_the_callback_needs_no_framework(root: Path) -> None:
    code = (
        "import sys, layoutx as lx; lx.History; print({'keras','tensorflow','torch','matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
