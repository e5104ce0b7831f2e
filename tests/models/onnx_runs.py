"""ONNX files run by onnxruntime, and emptied ones as templates, for tests that compare a conversion's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
ort = pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
numpy_helper = onnx.numpy_helper
Array = np.ndarray


def emptied(path: Path, spelled: bool = False) -> Path:
    """The same model with all its numbers (not its shapes) zero: what is right afterwards was written.

    Where norms are `spelled` out, single numbers and rows of ones stay: they are known by them.
    """
    model = onnx.load(path)
    for proto in model.graph.initializer:
        array = numpy_helper.to_array(proto)
        if array.dtype.kind == "f" and not (spelled and (array.size == 1 or (array == 1).all())):
            proto.CopyFrom(numpy_helper.from_array(np.zeros_like(array), proto.name))
    out = path.with_name(f"empty-{path.name}")
    out.write_bytes(model.SerializeToString())
    return out


def run(path: Path, *inputs: Any) -> Array:
    """What onnxruntime gives."""
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    session = ort.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))[0]


def apart(found: Any, wanted: Any) -> float:
    """Largest difference, relative to the largest value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 0.01
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
