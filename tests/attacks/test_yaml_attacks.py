"""Hostile YAML: mapping files and spec files that explode, build objects, lie about their values, or never end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DEEDS = ["mapping", "spec"]
HEAD = {"mapping": "source: a\npairs:\n", "spec": "kind: a\nroles:\n"}


def written(path: Path, deed: str, rest: str | bytes) -> Path:
    """A mapping or spec file that begins well, with that below `pairs` or `roles`."""
    path.write_bytes(HEAD[deed].encode() + (rest if isinstance(rest, bytes) else rest.encode()))
    return path


LAUGHS = "".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(12))
TEXTS = {
    "aliases that explode": LAUGHS,
    "an alias of itself": "  a: &a [*a]\n",
    "an anchor": "  a: &a b\n",
    "an alias of nothing": "  a: *b\n",
    "a merge key": "  <<: {a: b}\n",
    "a merge of aliases": "  a: &a {b: c}\n  <<: *a\n",
    "a Python object": "  a: !!python/object/apply:os.system [id]\n",
    "a Python name": "  a: !!python/name:os.system\n",
    "a Python module": "  a: !!python/module:os\n",
    "a new Python object": "  !!python/object/new:type {a: b}: c\n",
    "a tag of one's own": "  a: !mine b\n",
    "a tag of a binary": "  a: !!binary AAAA\n",
    "a set": "  a: !!set {b, c}\n",
    "an ordered map": "  a: !!omap [b: c]\n",
    "a tag that says text": "  a: !!str 7\n",
    "a tag that says number": "  a: !!int b\n",
    "a tag that says float": '  a: !!float "b"\n',
    "a tag that is declared": "%TAG ! tag:yaml.org,2002:python/\n---\na: b\n",
    "a key twice": "  a: b\n  a: c\n",
    "a key twice, as number and text": '  1: b\n  "1": c\n',
    "a key that is a list": "  [a, b]: c\n",
    "a key that is a mapping": "  {a: b}: c\n",
    "a key that is nothing": "  ~: c\n",
    "a key that is a boolean": "  yes: c\n",
    "a key that is a float": "  1.5: c\n",
    "a boolean NO": "  a: NO\n",
    "a boolean on": "  a: on\n",
    "a boolean y and n": "  a: Yes\n",
    "a number beyond floats": "  a: 1e999\n",
    "a number beyond floats with a dot": "  a: 1.0e+999\n",
    "infinity": "  a: .inf\n",
    "no number": "  a: .nan\n",
    "octal": "  a: 0777\n",
    "hexadecimal": "  a: 0xff\n",
    "binary": "  a: 0b11\n",
    "sexagesimal": "  a: 12:30:45\n",
    "underscores": "  a: 1_000\n",
    "a float of a million digits": "  a: 1." + "0" * 1_000_000 + "\n",
    "an int of 5,000 digits": "  a: " + "9" * 5_000 + "\n",
    "a date": "  a: 2026-11-21\n",
    "a time": "  a: 2026-11-21T10:00:00Z\n",
    "a value key": "  a: =\n",
    "a tab": "\ta: b\n",
    "a zero byte": "  a: b\0c\n",
    "an escape character": "  a: \x1b[31m\n",
    "a bell in quotes": '  a: "\x07"\n',
    "a lone surrogate": '  a: "\\ud800"\n',
    "two documents": "  a: b\n---\nc: d\n",
    "text behind the end": "  a: b\n...\nnonsense: [\n",
    "an end that is missing": "  a: [b, c\n",
    "a directive in the middle": "  a: b\n%YAML 9.9\n",
    "an unknown escape": '  a: "\\q"\n',
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("attack", TEXTS)
def test_yaml_that_says_something_else(refused: Any, tmp_path: Path, attack: str, deed: str) -> None:
    said = refused(written(tmp_path / "a.yaml", deed, TEXTS[attack]), "a.yaml", deed=deed)
    assert len(said) < 5000


NESTED = {
    "lists": lambda n: "  a: " + "[" * n + "]" * n + "\n",
    "lists that do not end": lambda n: "  a: " + "[" * n,
    "mappings": lambda n: "  a: " + "{a: " * n + "}" * n + "\n",
    "dashes": lambda n: "  a:\n   " + "- " * n + "b\n",
    "question marks": lambda n: "  a:\n   " + "? " * n + "b\n",
    "indentation": lambda n: "".join(" " * (i + 2) + "a:\n" for i in range(n)),
    "keys that are lists": lambda n: "  " + "[" * n + "]" * n + ": b\n",
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize(
    ("kind", "depth"),  # 100,000 levels of indentation would be ten gigabytes of blanks
    [(kind, depth) for kind in NESTED for depth in (70, 1_000, 100_000) if kind != "indentation" or depth <= 1_000],
)
def test_yaml_in_yaml(refused: Any, tmp_path: Path, kind: str, depth: int, deed: str) -> None:
    """libyaml and Python follow nesting by recursion: a stack that overflows ends the process."""
    refused(written(tmp_path / "a.yaml", deed, NESTED[kind](depth)), deed=deed)


BYTES = {
    "bytes that are no UTF-8": b"  a: \xff\xfe\n",
    "Latin-1": "  a: é\n".encode("latin-1"),
    "an encoded surrogate": b"  a: \xed\xa0\x80\n",
    "an overlong slash": b"  a: \xc0\xaf\n",
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("attack", BYTES)
def test_yaml_that_is_no_text(refused: Any, tmp_path: Path, attack: str, deed: str) -> None:
    refused(written(tmp_path / "a.yaml", deed, BYTES[attack]), deed=deed)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_yaml_in_another_encoding(refused: Any, tmp_path: Path, encoding: str, deed: str) -> None:
    text = HEAD[deed] + "  a: é\n"
    (tmp_path / "a.yaml").write_bytes(text.encode(encoding))
    refused(tmp_path / "a.yaml", deed=deed, fine=False)


@pytest.mark.parametrize("deed", DEEDS)
def test_a_byte_order_mark_is_no_harm(refused: Any, tmp_path: Path, deed: str) -> None:
    rest = "  a: b\n" if deed == "mapping" else "  w: out in\n"
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + (HEAD[deed] + rest).encode())
    refused(tmp_path / "a.yaml", deed=deed, fine=True)


@pytest.mark.parametrize("deed", DEEDS)
def test_a_text_of_100_megabytes(refused: Any, tmp_path: Path, deed: str) -> None:
    path = written(tmp_path / "a.yaml", deed, "  a: |\n")
    with path.open("ab") as file:
        for _ in range(100):
            file.write(b"    aaaaaaaaaaa\n" * (1 << 16))
    refused(path, "LAYOUTX_LIMIT_YAML", deed=deed)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("row", ["- a\n", "[],", "\n"])
def test_ten_million_items(refused: Any, tmp_path: Path, row: str, deed: str) -> None:
    path = written(tmp_path / "a.yaml", deed, "")
    path.write_text(("" if row[0] in "-[#\n" else HEAD[deed]) + row * 5_000_000)
    refused(path, deed=deed)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("row", ["  - a\n", "[],", "a: b, "])
def test_items_just_below_the_size(refused: Any, tmp_path: Path, row: str, deed: str) -> None:
    """As many bytes as a file may have, and a node in every second: its time and memory have bounds of their own."""
    many = (4 << 20) // len(row) - 10
    head, tail = {"[": ("  a: [", "]\n"), "a": ("  a: {", "}\n")}.get(row[0], ("  a:\n", ""))
    refused(written(tmp_path / "a.yaml", deed, head + row * many + tail), deed=deed)


def test_a_folder_of_specs_with_one_that_is_hostile(refused: Any, tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", "spec", "  a: !!python/object/apply:os.system [id]\n")
    refused(tmp_path, "a.yaml", deed="spec")


def test_a_spec_that_replaces_a_kind(refused: Any, tmp_path: Path) -> None:
    for name in ("dense.yaml", "other.yaml"):
        (tmp_path / name).write_text("kind: dense\nroles:\n  w: out in\n")
    refused(tmp_path, "two spec files", deed="spec")


@pytest.mark.parametrize("kind", ["folder", "nowhere", "fifo"])
def test_a_mapping_file_that_is_no_file(refused: Any, tmp_path: Path, kind: str) -> None:
    import os

    path = tmp_path / "a.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    refused(path, deed="mapping")
