"""Reading a spec file: what is refused, and with which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from layoutx.errors import LayoutxError, SpecError
from layoutx.spec.load import load_spec, parse_spec
from layoutx.spec.registry import load_registry
from layoutx.spec.schema import Framework, Kind

HEAD = 'kind: toy\nroles: {w: "input output"}\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kind: a\nkind: b\n", 2, "the key 'kind' stands twice"),
        ("kind: a\ncolour: red\n", 2, "a kind has no key 'colour'"),
        ("kind: a\nabout: no\n", 2, "no without quotes is a boolean in YAML"),
        (HEAD + "forms:\n  x.Y:\n    config: {eps: 1e-3}\n", 5, "1e-3 is text to YAML, not a number"),
        (HEAD + "forms:\n  x.Y:\n    config: {eps: 010}\n", 5, "010 is read as another number"),
        (HEAD + "forms:\n  x.Y:\n    tensors: {w: &a 'w: input output'}\n", 5, "anchors and aliases are not used"),
        (HEAD + "forms:\n  x.Y:\n    colour: red\n", 5, "the form x.Y has no key 'colour'"),
        (HEAD + "forms:\n  x.Y:\n    tensors:\n      w: 'w: input ['\n", 6, "expected an axis"),
        (HEAD + "forms:\n  x.Y:\n    data: {x: 'batch ('}\n", 5, "is not closed"),
        (HEAD + "forms:\n  x.Y:\n    extends: x.Z\n", 5, "x.Y extends x.Z, which is not another form of this file"),
        (HEAD + "forms:\n  x.Y{N}:\n    source: s\n", 4, "needs `rank: [..]`"),
        (HEAD + "forms:\n  Y:\n    source: s\n", 4, "the form 'Y' is <framework>.<class>"),
        ("kind: toy\nroles:\n  w: {axes: 'input', absent: twos}\n", 3, "an absent role is `zeros` or `ones`"),
        ("- a\n", 1, "a spec file is a mapping"),
        ("about: x\n", 1, "a spec file says `kind:` or `framework:`"),
    ],
)
def test_errors_name_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(LayoutxError) as caught:
        parse_spec(text, "toy.yaml")
    assert words in str(caught.value)
    assert f"toy.yaml:{line}" in str(caught.value)


def test_every_number_of_axes_is_a_form_and_extends_merges() -> None:
    text = HEAD + (
        "forms:\n"
        "  x.Conv{N}D: {rank: [1, 2], config: {a: 1, b: 2}, tensors: {w: 'w: input output'}}\n"
        "  x.Other: {extends: 'x.Conv{N}D', rank: 3, config: {b: 5}}\n"
    )
    kind = parse_spec(text, "toy.yaml")
    assert isinstance(kind, Kind)
    assert [(f.name, f.rank) for f in kind.forms.values()] == [("x.Conv1D", 1), ("x.Conv2D", 2), ("x.Other", 3)]
    assert dict(kind.forms["x.Other"].config) == {"a": 1, "b": 5}
    assert [t.name for t in kind.forms["x.Other"].tensors] == ["w"]


def test_two_files_for_one_kind_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(HEAD)
    with pytest.raises(SpecError, match="two spec files describe the kind 'toy'") as caught:
        load_registry([tmp_path])
    assert [Path(w).name for w in caught.value.where] == ["a.yaml", "b.yaml"]


def test_a_framework_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("framework: x\nchannels: first\nignore: [name]\nclasses: {Old: New}\n")
    spec = load_spec(path)
    assert spec == Framework("x", frozenset({"name"}), {"Old": "New"}, "first")
