"""SavedModel folders as users have them: run by their signature, paired by their variables, read with a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import ModelError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A Keras 3 model with a nested one, random states and wrapped layers, and the folder of its export."""
    layers = keras.layers
    inner = keras.Sequential([layers.Input((7,)), layers.Dense(5, name="d"), layers.BatchNormalization(name="bn"),
                              layers.Dense(5, name="e")], name="inner")  # fmt: skip
    given = keras.Input((6, 4, 3))
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")(given)
    x = layers.Flatten()(layers.Dropout(0.5)(layers.BatchNormalization(name="bn")(x)))
    model = keras.Model(given, inner(layers.Dense(7, name="fc")(x)))
    rng = np.random.default_rng(3)
    model.set_weights([(0.3 * np.abs(rng.normal(size=w.shape))).astype(w.dtype) for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("saved") / "export"
    model.export(folder, verbose=False)
    return model, folder


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """The same model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(5, eps=0.001)
        self.fc = torch.nn.Linear(120, 7)
        self.d, self.e = torch.nn.Linear(7, 5), torch.nn.Linear(5, 5)
        self.bn2 = torch.nn.BatchNorm1d(5, eps=0.001)

    def forward(self, x: Any) -> Any:
        x = self.bn(torch.relu(self.conv(x)))
        return self.e(self.bn2(self.d(self.fc(x.flatten(1)))))


def test_an_export_of_keras_3_is_read_with_its_config(exported: tuple[Any, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model, folder = exported
    (tmp_path / "config.json").write_text(model.to_json())
    lx.convert(folder, tmp_path / "a.safetensors", to="torch", config=tmp_path / "config.json")
    model.save(tmp_path / "whole.keras")
    lx.convert(tmp_path / "whole.keras", tmp_path / "b.safetensors", to="torch")
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert list(a) == list(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_config_of_another_model_is_refused(exported: tuple[Any, Path]) -> None:
    other = keras.Sequential([keras.layers.Input((7,)), keras.layers.BatchNormalization(name="fc")])
    with pytest.raises(ModelError, match="is not what the export holds"):
        lx.convert(exported[1], to="torch", config={**_config(other)})


def _config(model: Any) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(model.to_json())
    return found


def test_validate_runs_the_folder_and_says_that_it_shows_no_layers(exported: tuple[Any, Path]) -> None:
    model, folder = exported
    target = Net().eval()
    lx.port(model, target)
    for a, b in ((folder, target), (target, folder)):
        found = lx.validate(a, b, _images(a is target))
        assert found.ok
        assert "compute the same" in found.text()
        assert all(check.verdict == "not compared" for check in found.checks)
        assert "SavedModel" in found.text()
    with torch.no_grad():
        target.fc.weight.copy_(target.fc.weight.flip(1))
    for a, b in ((folder, target), (target, folder)):
        assert not lx.validate(a, b, _images(a is target)).ok
    assert "not everything agrees" in str(lx.diagnose(folder, target, _images(False)))


def _images(first: bool) -> Any:
    x = np.random.default_rng(9).normal(size=(2, 6, 4, 3)).astype("float32")
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if first else x


def test_match_and_relate_take_the_folder(exported: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = exported
    model.save(tmp_path / "whole.keras")
    assert {pair.target.name for pair in lx.match(folder, Net()).joint.pairs} >= {"conv", "fc"}
    assert "12 of 12 tensors as the registry says" in lx.relate(folder, tmp_path / "whole.keras").text()
