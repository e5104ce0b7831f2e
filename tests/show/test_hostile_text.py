"""What files and callers say is shown as text: it steers no terminal, and is no markup in a page or in Markdown."""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import FileError, Problems, visible
from layoutx.explained import Bar, Box, Code, Explained, Rows, Say
from layoutx.history.plots import _short
from layoutx.model.mapfile import read_map
from layoutx.model.mapwrite import Entry, write_map
from layoutx.page.html import plain
from layoutx.show.picture import Block, Drawing, Picture
from layoutx.show.progress import Meter
from layoutx.show.tables import Cell, Note, clean, grid, prose, row, screened

# clears the screen, sets the title, turns the direction, ends the line, hides a letter, is half a character; markup
EVIL = "\x1b[2J\x1b]0;pwn\x07\x9b31m\u202egpj\u2066\u061c\u200b\x7f\r\x08[red]<script>alert(1)</script>[/red]"
PATH = "m\x1b[31m\u202egpj\x7f\n[red]<b>"  # what a file system lets a stranger call a file
Run = Callable[..., tuple[int, str]]


def harmless(text: str) -> str:
    """The text, after raising unless it holds no character that a terminal obeys or a reader cannot see."""
    for char in text:
        assert char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), ascii(text)
    return text


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("inspect", path)`: the status and all that was printed, which is harmless."""

    def called(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, harmless(out) + harmless(err)

    return called


def _keras(path: Path) -> Path:
    """A `.keras` file in which every text that is no name is hostile."""
    import h5py

    inner = path.parent / "inner.h5"
    with h5py.File(inner, "w") as file:
        for k, array in enumerate((np.ones((3, 5)), np.ones(5))):
            file.create_dataset(f"layers/dense/vars/{k}", data=array)
        source = {"file": EVIL, "framework": EVIL, "version": EVIL, "sha256": EVIL}
        said = {"layoutx": EVIL, "source": source, "target": EVIL, "overall": {"exactness": EVIL, "round_trip": EVIL}}
        file.attrs["layoutx"] = json.dumps({"layoutx": json.dumps(said), "note": EVIL})
    held = {"name": "dense", "units": 5, "activation": EVIL, "kernel_initializer": {"class_name": EVIL}, EVIL: EVIL}
    layers = [{"class_name": "Dense", "config": held, "module": "keras.layers"}]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3" + EVIL}))
        archive.writestr(
            "config.json", json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
        )
        archive.write(inner, "model.weights.h5")
    return path


def _torch_names(path: Path, scale: float = 1.0) -> Path:
    """A file of tensors with names that are markup: nothing else of it is refused."""
    arrays = {"[red]fc[/red].weight": np.ones((3, 5)) * scale, "[link=http://x.y]<script>`*_.weight": np.ones((7, 3))}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_path_steers_nothing(tmp_path: Path, run: Run, as_json: tuple[str, ...]) -> None:
    folder = tmp_path / PATH
    folder.mkdir()
    good, other, bad = folder / f"{PATH}.npz", folder / f"{PATH}2.npz", folder / f"{PATH}.bin"
    _torch_names(good)
    _torch_names(other, 2.0)
    bad.write_bytes(EVIL.encode())
    (folder / f"{PATH}.pt").write_bytes(b"PK\3\4" + EVIL.encode())
    assert run("inspect", good, *as_json)[0] == 0
    for name in ("", ".bin", ".pt", ".none"):
        status, said = run("inspect", f"{folder / PATH}{name}" if name else folder, *as_json)
        assert status in (1, 2)
        assert "31m" in said, "the name is shown, spelled out"
    assert run("diff", good, other, *as_json)[0] in (0, 1)
    run("relate", good, other, *as_json)
    run("validate", good, other, *as_json)
    assert run("convert", good, "--to", EVIL, "-o", folder / f"{PATH}.safetensors", *as_json)[0] in (1, 2)
    run("convert", good, "--to", "keras", "--from", "torch", "-o", folder / f"{PATH}.none", *as_json)
    run("match", good, other, "-o", folder / f"{PATH}.yaml", *as_json)
    run("convert", good, "--to", "torch", "--map", folder / f"{PATH}.none", "-o", folder / "x.npz", *as_json)
    run("report", good, "-o", folder / f"{PATH}.html", *as_json)
    run("history", bad, *as_json)


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_an_argument_steers_nothing(tmp_path: Path, run: Run, as_json: tuple[str, ...]) -> None:
    for call in (
        [EVIL],
        ["inspect", EVIL],
        ["inspect", "x", "--form", EVIL],
        ["inspect", "x", f"--{EVIL}"],
        ["plan", EVIL, EVIL],
        ["plan", "keras.LSTM", "torch.LSTM", "--size", f"{EVIL}=3"],
        ["specs", "show", EVIL],
        ["specs", "check", EVIL],
        ["explain", EVIL],
        ["port", EVIL, "--into", EVIL],
        ["report", EVIL, "-o", EVIL],
    ):
        status, said = run(*call, *as_json)
        assert status in (1, 2), said


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_texts_of_a_file_steer_nothing(tmp_path: Path, run: Run, as_json: tuple[str, ...]) -> None:
    """Config values, versions and notes are no names: they are shown, and nothing of them is obeyed."""
    path = _keras(tmp_path / "m.keras")
    status, said = run("inspect", path, "--stats", *as_json)
    assert status == 0, said
    assert "pwn" in said
    run("convert", path, "--to", "torch", "-o", tmp_path / "o.safetensors", *as_json)
    run("explain", path, "dense", *as_json)
    if not as_json:
        run("explain", path, "dense", "--markdown")
    status, _ = run("report", path, "-o", tmp_path / "o.html", *as_json)
    assert status == 0
    page = (tmp_path / "o.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u202e\u2066]", page)


def test_what_a_checkpoint_holds_beside_weights_is_told_without_being_obeyed(tmp_path: Path, run: Run) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"fc.weight": torch.ones(3, 5), EVIL: 3}, tmp_path / "x.pt")
    status, _ = run("inspect", tmp_path / "x.pt")
    assert status in (0, 1)
    for path in (tmp_path / "x.onnx", tmp_path / "x.tflite"):
        path.write_bytes(b"\x1c\0\0\0TFL3" + EVIL.encode())
        assert run("inspect", path)[0] == 1


@pytest.mark.parametrize("color", [False, True])
def test_markup_of_rich_is_text(color: bool) -> None:
    """Neither styles nor links: the brackets are printed, in colour too."""
    text = "[red]x[/red] [link=http://x.y]z[/link] :smile:"
    for shown in (grid(["a"], [row(text), row(Cell(text, "bias")), Note(text)], 99, color), prose(text, 99, color)):
        bare = re.sub("\x1b\\[[0-9;]*m", "", shown)
        assert bare.count("[red]x[/red]") == bare.count("[link=http://x.y]") == bare.count(":smile:") > 0
        assert "\x1b]8" not in shown


def test_every_table_and_paragraph_spells_it_out() -> None:
    """Even where a caller of `grid` and `prose` forgot to clean the text."""
    for text in (grid(["a"], [row(EVIL), row(Cell(EVIL)), Note(EVIL)]), prose(EVIL), clean(EVIL, 2000)):
        assert "\\x1b[2J" in harmless(text)
    assert "\x1b[2J" not in grid(["a"], [row(EVIL), Note(EVIL)], color=True)


def test_what_a_command_prints_is_screened_once_more() -> None:
    assert screened(f"\x1b[1;31mred\x1b[0m\n{EVIL}") == f"\x1b[1;31mred\x1b[0m\n{visible(EVIL)}"


def test_an_error_is_harmless_where_nobody_catches_it() -> None:
    error = FileError(f"{EVIL} is bad", where=[EVIL, EVIL], why=EVIL, do=EVIL)
    assert len(harmless(str(error)).splitlines()) == 5
    assert "\\x1b[2J" in harmless(str(Problems([error, error], EVIL)))


def test_visible_spells_out_what_cannot_be_seen() -> None:
    assert visible("层 naïve 🙂 [x]") == "层 naïve 🙂 [x]"
    assert visible("a\x1bb\u202ec\ud800d\U000e0041e\xa0f\n") == "a\\x1bb\\u202ec\\ud800d\\U000e0041e f\\x0a"
    assert visible("a\nb", "\n") == "a\nb"


def test_json_has_no_control_character_and_reads_back(tmp_path: Path, run: Run) -> None:
    status, said = run("inspect", tmp_path / EVIL.replace("/", ""), "--json")
    assert status == 2
    assert EVIL.replace("/", "") in json.loads(said)["error"]["what"]


def test_progress_is_harmless() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    meter = Meter(stream, patience=0.0)
    meter(0, 3, "[red]x[/red]")
    meter(1, 3, EVIL[4:])
    meter.close()
    drawn = stream.getvalue()
    assert "pwn" in drawn
    assert not any(code in drawn for code in ("\x1b]0", "\x1b[2J", "\u202e", "\x9b"))


def _explained() -> Explained:
    fence = "```\n# heading"
    blocks = (
        Say(f"- {EVIL}"),
        Say("1. item"),
        Say("# heading *bold* [link](http://x.y) &lt; ![i](j)"),
        Rows((EVIL, "b"), ((EVIL, "|x|"), (EVIL,))),
        Code((EVIL, "```", "````")),
        Bar("```", ((EVIL, 3, True), (fence, 2, False))),
        Box("a`b", (EVIL, 3), (EVIL, 5), (EVIL,)),
    )
    part = Block(EVIL, EVIL, EVIL, ((0, 60),), ((0, 60),))
    drawn = Picture(EVIL, (Drawing(EVIL, (EVIL, EVIL), (60, 60), 1, (part,)),), code=(EVIL,))
    return Explained(EVIL, blocks, picture=drawn)


def test_an_explanation_is_harmless_everywhere() -> None:
    found = _explained()
    harmless(found.text())
    for markup in (found._repr_html_(), found.svg()):
        assert "<script>" not in harmless(markup)
    words = harmless(found.markdown())
    assert "`````text" in words, "a fence that is longer than those inside"
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", words)
    assert not re.search(r"(?m)^\s*(#|[-+*] |\d+[.)] )", outside), outside
    assert not re.search(r"(?<!\\)(<|\]\(|!\[)", outside), outside
    assert re.search(r"(?m)^`` a`b ``:", outside)


def test_pages_and_pictures_hide_it() -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u202e\u2066]", plain(EVIL).replace("\r", ""))
    harmless(_short(EVIL, 1000))


def test_a_mapping_file_keeps_its_lines_and_its_names(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    names = ['a"b', "a\\b", "a: b # c", "a\x1b\u202eb", "a\nskip: [x]", "层\u3000重", "[red]", "- x", "null", "1"]
    write_map(path, EVIL, "t\nskip: [all]", [Entry(name, f"{name}.place") for name in names])
    harmless(path.read_text(encoding="utf-8").replace("\u3000", " "))
    found = read_map(path)
    assert dict(found.pairs) == {name: f"{name}.place" for name in names}
    assert (found.source, found.target, found.skip) == (EVIL, "t\nskip: [all]", ())


def test_a_view_of_the_api_prints_harmless_text(tmp_path: Path) -> None:
    view: Any = lx.inspect(_keras(tmp_path / "m.keras"))
    harmless(str(view))
    harmless(view.text(60, False))
