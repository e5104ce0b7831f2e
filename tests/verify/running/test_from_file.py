"""Whole models in files of other kinds: TorchScript, SavedModel, old and foreign ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import LayoutxError, UsageError
from layoutx.verify.running import opened


def test_torchscript_runs_whole(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh()).eval()
    torch.jit.save(torch.jit.script(model), str(tmp_path / "m.pt"))
    x = np.random.default_rng(0).normal(size=(2, 3))
    runner = opened(tmp_path / "m.pt")
    found, expected = runner.record(x), opened(model).record(x)
    np.testing.assert_allclose(found.outputs[0], expected.outputs[0], rtol=1e-14)
    assert found.dtype == "float64"
    assert "compiled" in found.note
    (again,) = runner.layer("0", [x])
    np.testing.assert_allclose(again, expected.calls[0].outputs[0], rtol=1e-14)


def test_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(3, 5).state_dict(), tmp_path / "m.pt")
    with pytest.raises(UsageError, match="holds weights, not a model"):
        opened(tmp_path / "m.pt")


def test_a_saved_model_runs_its_signature(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.kernel = tf.Variable(np.arange(15.0).reshape(3, 5), dtype=tf.float32)

        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> dict[str, Any]:
            return {"y": x @ self.kernel}

    model = Net()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    runner = opened(tmp_path / "m")
    (x,) = runner.inputs()
    found = runner.record(x)
    assert found.outputs[0].shape == (3, 5)
    np.testing.assert_allclose(found.outputs[0], x @ np.arange(15.0).reshape(3, 5), rtol=1e-5)
    assert "cannot be recorded" in found.note


def test_without_keras_its_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("keras", "tf_keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LayoutxError, match=r"keras is not installed(.|\n)*layoutx\[keras\]"):
        opened(Path(__file__).resolve().parents[3] / "examples" / "digits.keras")


@pytest.mark.models
def test_keras_1_files_load_or_are_told(models: Path) -> None:
    """Every old Keras file of the real ones: run by an installed Keras, or refused with what to do."""
    pytest.importorskip("tf_keras")
    seen = []
    for path in sorted(models.rglob("*.h5"))[:40]:
        x, told = (), ""
        try:
            runner = opened(path)
            x = runner.inputs()
        except LayoutxError as error:
            told = error.do
        seen.append(runner.record(x).dtype if x else told)
    assert all(seen)
    assert "float64" in seen
