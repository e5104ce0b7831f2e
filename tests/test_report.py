"""The report of a conversion: what it counts, that it is the same each time, and that its words are true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edited import DIGITS

import layoutx as lx
from layoutx.files.certificate import certificate_of
from layoutx.files.open import open_store
from layoutx.show.report_lines import TensorLine
from layoutx.show.report_text import collapsed
from layoutx.show.tables import Note, clean, grid, row


@pytest.fixture(scope="module")
def report() -> lx.Report:
    return lx.convert(DIGITS, to="torch", live=False)


def test_every_key_is_accounted_for(report: lx.Report) -> None:
    assert (report.tensors_used, report.tensors_total) == (12, 12)
    assert (report.keys_written, report.keys_total) == (13, 13)
    assert len(report.leftover) == 22
    assert report.weightless.keys() == {"image", "relu1", "pool1", "flatten", "dropout"}


def test_exactness_is_told_for_each_tensor(report: lx.Report) -> None:
    found = {t.key: t.exactness for x in report.layers for t in x.tensors}
    assert found.pop("bn1.num_batches_tracked") == "fills"
    assert set(found.values()) == {"moves"}
    assert report.exactness == "fills"
    assert report.round_trip == "bit-exact"
    assert report.largest is not None
    assert report.largest < 1e-12


def test_the_lines_name_axes(report: lx.Report) -> None:
    texts = {t.key: t.text for x in report.layers for t in x.tensors}
    assert texts["conv1.weight"] == "kernel kh kw in out → out in kh kw"
    assert texts["dense1.weight"] == "kernel h×w×c output → output c×h×w"
    assert texts["bn1.num_batches_tracked"] == "num_batches_tracked = 0"


@pytest.mark.parametrize("verify", ["bytes", "none"])
def test_nothing_is_said_to_compute_the_same_where_nothing_was_computed(verify: str) -> None:
    first = str(lx.convert(DIGITS, to="torch", verify=verify)).split("\n\n")[0]
    assert "no layer compared" in first
    assert "the same" not in first


def test_settings_travel(report: lx.Report) -> None:
    settings = {x.name: x.settings for x in report.layers}
    assert "eps=0.001; torch's default is 1e-05" in settings["bn1"]
    assert "set these on the target" in str(report)


def test_the_certificate_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        lx.convert(DIGITS, tmp_path / name, to="torch", live=False)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = certificate_of(open_store(tmp_path / "a.safetensors"))
    assert found is not None
    assert found["layoutx"] == "0.1.0"
    assert found["target"] == "torch"
    assert len(found["source"]["sha256"]) == 64
    first = found["layers"][0]
    assert first["source"] == "keras.Conv2D"
    assert first["target"] == "torch.Conv2d"
    assert len(first["spec"]) == 12
    assert first["forward"]["method"] == "NumPy reference"
    assert set(first["witness"]) == {"source", "target"}
    assert found["overall"]["exactness"] == "fills"


def test_the_command_that_checks_the_file_can_be_copied(tmp_path: Path) -> None:
    out = tmp_path / "my models" / "a.safetensors"
    out.parent.mkdir()
    said = " ".join(str(lx.convert(DIGITS, out, to="torch", live=False, verify="none")).split())
    assert shlex.split(re.findall(r"\((layoutx verify .*)\)", said)[0]) == ["layoutx", "verify", str(out)]


def test_json_holds_it_all(report: lx.Report) -> None:
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["layers"][3]["notes"] == ["its inputs come from flatten(conv2): rows h w c reordered to c h w"]
    assert found["end_to_end"] is None
    assert found["seconds"] > 0


def test_a_file_without_config_has_no_settings_to_carry(tmp_path: Path) -> None:
    lx.convert(DIGITS, tmp_path / "d.safetensors", to="torch", live=False)
    back = lx.convert(tmp_path / "d.safetensors", to="keras", like=DIGITS, live=False)
    assert all(x.settings == () for x in back.layers)
    assert "The source does not tell settings" in str(back)
    assert [x.source_class for x in back.layers if x.name != "bn1"] == ["Conv2d", "Conv2d", "Linear", "Linear"]
    assert "rows c h w reordered to h w c" in str(back)


def test_a_sum_is_told_as_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shapes = {"weight_ih_l0": (15, 7), "weight_hh_l0": (15, 5), "bias_ih_l0": (15,), "bias_hh_l0": (15,)}
    shapes = {name: tuple(n // 3 for n in s[:1]) + s[1:] for name, s in shapes.items()}
    np.savez(tmp_path / "rnn.npz", **{f"rnn.{n}": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()})
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3, 7)), keras.layers.SimpleRNN(5, name="rnn")])
    model.save(tmp_path / "like.keras")
    with pytest.raises(lx.ConsentError) as error:
        lx.convert(tmp_path / "rnn.npz", to="keras", like=tmp_path / "like.keras", live=False)
    assert "--allow rounds" in str(error.value)
    report = lx.convert(tmp_path / "rnn.npz", to="keras", like=tmp_path / "like.keras", live=False, allow={"rounds"})
    assert report.exactness == "rounds"
    assert "bias_ih_l0 hidden + bias_hh_l0 hidden" in str(report)
    assert "rounded by at most" in str(report)
    assert "not reversible" in str(report)


def _line(name: str, dims: str, exactness: str = "moves", source: str | None = None) -> TensorLine:
    return TensorLine(name, name, {name: source or dims}, dims, "", exactness)


def test_lines_that_keep_their_dims_share_a_row() -> None:
    lines = [_line("kernel", "out in", source="in out"), _line("gamma", "channel"), _line("beta", "channel")]
    assert [text for text, _, _ in collapsed(lines)] == ["kernel in out → out in", "gamma, beta channel"]
    lines = [_line("gamma", "channel"), _line("beta", "channel", "rounds")]
    assert len(collapsed(lines)) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv1", "conv1"),
        ("a b×→é", "a b×→é"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb", "a\\x0ab"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_grid_fits_its_width() -> None:
    lines = [row("a" * 70, "b" * 50, "c"), Note("d " * 90, 4), row("[red]x", "日本語", "")]
    text = grid(["one", "two", "three"], lines, 60)
    assert max(map(len, text.split("\n"))) <= 60
    assert text.replace("\n", "").count("a") == 70
    assert "[red]x" in text


def test_public_names_are_listed_and_load() -> None:
    for name in dir(lx):
        assert getattr(lx, name) is not None
    with pytest.raises(AttributeError):
        _ = lx.no_such_name  # type: ignore[attr-defined]


def test_errors_are_caught_by_name_before_any_call() -> None:
    code = "import layoutx as lx; assert issubclass(lx.errors.MatchError, lx.LayoutxError)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_functions_are_not_hidden_by_modules() -> None:
    import importlib

    for name in ("convert", "inspect", "port", "plan"):
        importlib.import_module(f"layoutx.{name}")
        assert callable(getattr(lx, name)), name
