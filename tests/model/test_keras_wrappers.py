"""Keras layers that wrap, add to or quantise another, and those of which state lies outside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.keras import records
from layoutx.model.keras_groups import QUANTISED
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import registry

FORMATS = ("model.keras", "model.weights.h5", "model.h5")


def saved(model: Any, path: Path) -> Path:
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def read(path: Path, config: Path | None = None) -> ModelRecord:
    given = open_store(config).config if config is not None else None
    return records(open_store(path), lambda name: name in registry().forms, config=given)


def trained() -> Any:
    """A step was trained, so that the stored kernel is neither what was drawn nor of norm one."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Input((5, 7, 3)),
            layers.SpectralNormalization(layers.Conv2D(5, (2, 3), name="conv"), power_iterations=2, name="sn"),
            layers.Flatten(name="flat"),
            layers.SpectralNormalization(layers.Dense(11, name="dense"), name="snd"),
            layers.Dense(2, name="out"),
        ]
    )
    rng = np.random.default_rng(3)
    model.compile("sgd", "mse")
    model.fit(rng.normal(size=(4, 5, 7, 3)), rng.normal(size=(4, 2)), verbose=0)
    return model


@pytest.mark.parametrize("name", FORMATS)
def test_spectral_normalization_gives_the_weights_that_inference_uses(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    model = trained()
    path, whole = saved(model, tmp_path / name), saved(model, tmp_path / "config.keras")
    out = tmp_path / "out.safetensors"
    config = whole if "weights" in name else None
    report = lx.convert(path, out, to="torch", config=config)
    assert [(x.name, x.target) for x in report.layers] == [
        ("sn", "torch.Conv2d"), ("snd", "torch.Linear"), ("out", "torch.Linear"),
    ]  # fmt: skip
    assert sum("only training reads it" in why for why in report.leftover.values()) == 2
    from safetensors.torch import load_file

    twin = torch.nn.ModuleDict(
        {"sn": torch.nn.Conv2d(3, 5, (2, 3)), "snd": torch.nn.Linear(100, 11), "out": torch.nn.Linear(11, 2)}
    )
    twin.load_state_dict(load_file(out))
    x = np.random.default_rng(5).normal(size=(2, 5, 7, 3)).astype(np.float32)
    y = twin["out"](twin["snd"](twin["sn"](torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).flatten(1)))
    np.testing.assert_allclose(y.detach().numpy(), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("name", FORMATS[:2])
def test_the_first_variable_of_the_wrapper_is_the_kernel_again(tmp_path: Path, name: str) -> None:
    model = trained()
    config = saved(model, tmp_path / "config.keras")
    found = read(saved(model, tmp_path / name), config)
    again = {n: why for n, why in found.leftover.items() if "once more" in why}
    assert len(again) == 2
    kernels = [r.tensors["kernel"].read() for r in found.layers if r.class_name == "SpectralNormalization"]
    for (key, _), kernel in zip(again.items(), kernels, strict=True):
        np.testing.assert_array_equal(found.store.tensors[key].read(), kernel)
    vectors = [n for n, why in found.leftover.items() if why.startswith("only training")]
    assert [found.store.tensors[n].shape for n in vectors] == [(1, 5), (1, 11)]


def test_spectral_normalization_is_written_so_that_keras_reads_it(tmp_path: Path) -> None:
    """The template's own copies of the kernel stay; Keras loads the wrapped layer after them."""
    keras = pytest.importorskip("keras")
    model, other = trained(), trained()
    other.set_weights([w * 0.5 + 0.1 for w in other.get_weights()])
    flat = tmp_path / "flat.safetensors"
    lx.convert(saved(model, tmp_path / "a.keras"), flat, to="torch")
    back = tmp_path / "back.keras"
    lx.convert(flat, back, to="keras", like=saved(other, tmp_path / "b.keras"))
    x = np.random.default_rng(5).normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = keras.models.load_model(back, compile=False)
    np.testing.assert_allclose(found.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def plain() -> Any:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    return keras.Sequential([layers.Input((7,)), layers.Dense(5, name="a"), layers.Dense(3, name="b")])


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantised_layer_is_refused_by_name(tmp_path: Path, name: str) -> None:
    model = plain()
    before = saved(model, tmp_path / "before.keras")
    model.quantize("int8")
    path = saved(model, tmp_path / name)
    for config in [saved(model, tmp_path / "config.keras"), before] if "weights" in name else [None]:
        found = read(path, config)
        assert {r.name: r.note for r in found.layers if r.tensors} == dict.fromkeys("ab", QUANTISED)
        with pytest.raises(LayoutxError, match="convert the float model"):
            lx.convert(path, to="torch", config=config)


@pytest.mark.parametrize("forms", [{}, {"dense": "keras.Dense"}])
def test_a_scale_is_not_taken_for_a_bias(tmp_path: Path, forms: dict[str, str]) -> None:
    """Without a bias the file of a quantised layer holds what a plain layer with a bias holds: (7, 5) and (5,)."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((7,)), keras.layers.Dense(5, use_bias=False)])
    model.quantize("int8")
    with pytest.raises(LayoutxError, match="convert the float model"):
        lx.convert(saved(model, tmp_path / "m.weights.h5"), to="torch", forms=forms)


def test_lora_is_merged_by_a_keras_file_and_refused_elsewhere(tmp_path: Path) -> None:
    model = plain()
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.random.default_rng(3).normal(size=(2, 5)))
    with pytest.raises(LayoutxError, match=r"save as \.keras, which merges the two factors into the kernel"):
        lx.convert(saved(model, tmp_path / "m.h5"), to="torch")
    out = tmp_path / "out.safetensors"
    lx.convert(saved(model, tmp_path / "m.keras"), out, to="torch")
    from safetensors.numpy import load_file

    np.testing.assert_allclose(load_file(out)["a.weight"].T, np.asarray(model.layers[0].kernel), atol=1e-6)


def test_what_layers_without_weights_hold_is_said(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    words, number = keras.Input((1,), dtype="string"), keras.Input((1,))
    seen = [
        layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot", name="lookup")(words),
        layers.Discretization(bin_boundaries=[0.0, 1.0], output_mode="multi_hot", name="buckets")(number),
        layers.Hashing(5, output_mode="multi_hot", name="hash")(words),
        layers.Flatten()(layers.Masking(0.5, name="mask")(layers.Reshape((1, 1))(number))),
    ]
    model = keras.Model([words, number], layers.Dense(2, name="out")(layers.Concatenate()(seen)))
    report = lx.convert(saved(model, tmp_path / "m.keras"), to="torch")
    text = " ".join(report.text().split())
    assert "StringLookup: its vocabulary is state that layoutx does not move" in text
    assert "Discretization: its boundaries are state that layoutx does not move" in text
    assert "Hashing: the target must encode alike, as the config says" in text
    assert "Masking: layers behind it skip the steps that are all 0.5; the target must do so itself" in text
    assert "its vocabulary is state" in str(lx.inspect(tmp_path / "m.keras"))
