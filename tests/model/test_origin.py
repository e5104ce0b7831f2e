"""Which release and backend of Keras 1 wrote a file: read from it, or refused until the user says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layoutx.cli import main
from layoutx.convert import convert
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.open import open_store
from layoutx.inspect import inspect
from layoutx.model.load import model_of
from layoutx.spec.registry import registry

RNG = np.random.default_rng(1007)
STATE = {n: RNG.uniform(0.2, 2, 3).astype("f4") for n in ("gamma", "beta", "running_mean", "running_std")}
KERNEL = {"W": RNG.normal(0, 1, (3, 5, 2, 7)).astype("f4"), "b": RNG.normal(0, 1, 3).astype("f4")}
NORM = {"epsilon": 0.01, "mode": 0, "axis": 1, "momentum": 0.9}
CONV = {"nb_filter": 3, "nb_row": 2, "nb_col": 7, "dim_ordering": "th", "border_mode": "valid", "subsample": [1, 1]}
CONV |= {"activation": "linear", "bias": True, "batch_input_shape": [None, 5, 11, 13]}


def written(path: Path, version: str, tail: str = "", names: str = "{layer}_{weight}", **config: Any) -> Path:
    """A Keras 1 file of a Convolution2D and a BatchNormalization, as save_model or save_weights wrote it."""
    layers = [("conv", "Convolution2D", CONV, KERNEL), ("norm", "BatchNormalization", NORM, STATE)]
    body = [{"class_name": c, "config": {"name": n, **values}} for n, c, values, _ in layers]
    with h5py.File(path, "w") as file:
        if version:
            file.attrs["keras_version"] = version.encode()
        if version or config:
            text = {"class_name": "Sequential", "config": body, **config}
            file.attrs["model_config"] = json.dumps(text).encode()
        group = file.create_group("model_weights") if version or config else file
        group.attrs["layer_names"] = [name.encode() for name, *_ in layers]
        for layer, _, _, arrays in layers:
            inner = group.create_group(layer)
            stored = [names.format(layer=layer, weight=w, at=i) + tail for i, w in enumerate(arrays)]
            inner.attrs["weight_names"] = [name.encode() for name in stored]
            for name, array in zip(stored, arrays.values(), strict=True):
                inner[name] = array
    return path


def values(path: Path, **given: Any) -> dict[str, tuple[Any, Any]]:
    model = model_of(open_store(path), registry(), {}, values=given)
    return {r.name: (r.config.get("release"), r.config.get("backend")) for r in model.layers if r.tensors}


def moved(path: Path, **given: Any) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    out = path.with_suffix(".safetensors")
    report = convert(path, out, to="torch", allow={"rounds"}, values=given)
    assert report.layers
    return load_file(out)


def test_the_file_says_its_release_and_its_names_the_backend(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.h5", "1.0.8", ":0"))["norm"] == ("1.0.8", "tensorflow")
    found = values(written(tmp_path / "b.h5", "1.2.2"))
    assert found == {"conv": (None, "theano"), "norm": ("1.2.2", "theano")}
    assert values(written(tmp_path / "c.h5", "1.2.2", names="param_{at}"))["conv"] == (None, "unknown")
    assert values(written(tmp_path / "d.h5", "", keras_version="1.0.5"))["norm"] == ("1.0.5", "theano")  # to_json's


def test_a_theano_kernel_is_turned_and_one_of_tensorflow_is_not(tmp_path: Path) -> None:
    theano = moved(written(tmp_path / "a.h5", "1.2.2"))
    np.testing.assert_array_equal(theano["conv.weight"], KERNEL["W"][..., ::-1, ::-1])
    other = moved(written(tmp_path / "b.h5", "1.2.2", ":0"))
    np.testing.assert_array_equal(other["conv.weight"], KERNEL["W"])


@pytest.mark.parametrize(
    ("release", "tail", "squared"),
    [("1.0.5", ":0", True), ("1.0.6", "", True), ("1.0.6", ":0", False), ("1.0.7", ":0", False), ("1.2.2", "", False)],
)
def test_a_standard_deviation_becomes_a_variance(release: str, tail: str, squared: bool, tmp_path: Path) -> None:
    found = moved(written(tmp_path / "a.h5", "", tail, keras_version=release))["norm.running_var"]
    std = STATE["running_std"]
    wanted = ((std.astype("f8") + 0.01) ** 2).astype("f4") if squared else std
    np.testing.assert_array_equal(found, wanted)


def test_no_release_no_variance(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", "", ":0", note="")
    with pytest.raises(LayoutxError, match="not 'unknown'") as caught:
        moved(path)
    assert "--set release=VALUE" in str(caught.value)
    assert "epsilon 1e-6 is of 1.0.0 to 1.0.7" in str(caught.value)
    np.testing.assert_array_equal(moved(path, release="1.2.2")["norm.running_var"], STATE["running_std"])
    report = convert(path, None, to="torch", allow={"rounds"}, values={"release": "1.0.5"})
    assert "release=1.0.5 as given by --set" in report.text(99, False)


def test_weights_alone_are_refused_as_well(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", "", ":0")
    forms = {"conv": "keras1.Convolution2D", "norm": "keras1.BatchNormalization"}
    with pytest.raises(LayoutxError, match="not 'unknown'"):
        convert(path, None, to="torch", allow={"rounds"}, forms=forms)
    given = {"release": "1.0.5", "epsilon": 0.01, "dim_ordering": "th"}
    assert convert(path, None, to="torch", allow={"rounds"}, forms=forms, values=given).layers


def test_epsilon_after_the_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutxError, match="eps_added_to"):
        moved(written(tmp_path / "a.h5", "1.0.7"))


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", "1.2.2", names="param_{at}")
    with pytest.raises(LayoutxError, match="--set backend=VALUE"):
        convert(path, None, to="torch", allow={"rounds"})
    assert values(path, backend="theano")["conv"] == (None, "theano")


def test_a_key_that_no_layer_reads_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", "1.2.2")
    with pytest.raises(UsageError, match="relaese"):
        inspect(path, values={"relaese": "1.0.5"})


def test_the_command_line_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path / "a.h5", "", ":0", note=""))
    call = ["convert", path, "--to", "torch", "--dry-run", "--allow", "rounds"]
    assert main(call) == 1
    assert "--set release=VALUE" in capsys.readouterr().err
    assert main([*call, "--set", "release=1.0.5"]) == 0
    assert "release=1.0.5 as given by --set" in capsys.readouterr().out
    assert main(["inspect", path, "--set", "release=1.0.5"]) == 0


@pytest.mark.parametrize(
    ("tail", "whose", "name", "other"),
    [(":0", "TensorFlow", "conv_W:0", "theano"), ("", "Theano", "conv_W", "tensorflow")],
)
def test_the_report_says_what_the_backend_was_told_by(
    tail: str, whose: str, name: str, other: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "m.h5", "1.0.8", tail)
    text = " ".join(str(convert(path, to="torch", allow={"rounds"})).split())
    wanted = (
        f"it is taken for {whose}'s, since the file's weights are called {name}; if that is wrong: --backend {other}"
    )
    assert wanted in text
    assert wanted in " ".join(str(inspect(path)).split())
    assert "taken for" not in str(convert(path, to="torch", allow={"rounds"}, values={"backend": other}))
