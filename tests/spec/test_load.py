"""Reading a spec file: what is refused, and with which line."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layoutx.errors import BindError, LayoutxError, SpecError
from layoutx.spec.bind import bind
from layoutx.spec.load import load_spec, parse_spec
from layoutx.spec.registry import builtin_folder, load_registry, spec_folders
from layoutx.spec.schema import Framework, Kind

HEAD = 'kind: toy\nroles: {w: "input output"}\n'
FORM = HEAD + "forms:\n  x.Y:\n"


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
        (FORM + "    facts: {mode: {values: {a: b}}}\n", 5, "a reading of a config says which key: {config: key}"),
        (FORM + "    facts: {mode: {config: [a]}}\n", 5, "'config' is a text, not ['a']"),
        (FORM + "    require: {a: {why: b}}\n", 5, "the requirement on 'a' says what it is: {is, why}"),
        (FORM + "    ignore: 5\n", 5, "a list of words is needed, not 5"),
        (FORM + "    ignore: abc\n", 5, "a list of words is needed, not 'abc'"),
        (FORM + "    names: {a: x}\n", 5, "'a' is a mapping"),
        (FORM + "    names: {a: {b: 5}}\n", 5, "a.b is a text, not 5"),
        (FORM + "    modules: {a: 5}\n", 5, "modules.a is a text, not 5"),
        (FORM + "    extends: [a]\n", 5, "x.Y extends ['a'], which is not another form of this file"),
        (FORM + "    extends: x.Y\n", 5, "x.Y extends x.Y, which is not another form of this file"),
        (FORM + "    only: {d: 5}\n", 5, "a list of words is needed, not 5"),
        (FORM + "    only: {direction: forward}\n", 5, "a list of words is needed, not 'forward'"),
        (FORM + "    only:\n      d: [{is: [a], when: {b: 1}},\n          {is: b}]\n", 7, "a list of words is needed"),
        (FORM + "    only: {d: [{is: [a]}, b]}\n", 5, "each of several cases is {is, when}, not 'b'"),
        (FORM + "    only: {d: {is: [a], optional: true}}\n", 5, "a case has no key 'optional'"),
        (
            FORM + "    only: {d: {is: [a], when: {b: {c: 1}}}}\n",
            5,
            "a condition on 'b' is a value, a list of values, or {not: value}",
        ),
        (FORM + "    pin: {a: x}\n", 5, "an axis is pinned to its length, not to 'x'"),
        (FORM + "    pin: {a: true}\n", 5, "an axis is pinned to its length, not to True"),
        (FORM + "    equal: {a: 5}\n", 5, "an axis is equal to another axis, not to 5"),
        (FORM + "    rank: two\n", 4, "the rank of x.Y is the number of its spatial axes, not 'two'"),
        (FORM + "    each: 5\n", 5, "'each' is a text, not 5"),
        (
            FORM + "    tensors:\n      w: {is: 'w: input output', dtype: int63}\n",
            6,
            "'int63' is not a dtype of numbers",
        ),
        (FORM + "    tensors: {w: {is: 'w: input output', dtype: object}}\n", 5, "'object' is not a dtype of numbers"),
        (FORM + "    tensors: {w: {is: 'w: input output', optional: 1}}\n", 5, "'optional' is true or false, not 1"),
        (FORM + f"    tensors: {{w: 'w: {'(' * 3000}'}}\n", 5, "brackets are nested more than 50 deep"),
        (FORM + f"    config: {{a: {'[' * 3000}{']' * 3000}}}\n", 5, "brackets are nested too deeply"),
        (HEAD + "gauge: 5\n", 3, "`gauge` is a list"),
        (HEAD + "gauge: [{sum: [5]}]\n", 3, "a list of words is needed, not [5]"),
        (HEAD + "axes: {gate: {a: bee}}\n", 3, "a list of words is needed, not 'bee'"),
        (HEAD + "spread: {two: 'h w'}\n", 3, "spread two is a number, and the names of so many axes: 'h w'"),
        (HEAD + "spread: {3: 'h w'}\n", 3, "spread 3 is a number, and the names of so many axes: 'h w'"),
        (HEAD + "settings: {eps: 5}\n", 3, "settings.eps is a text, not 5"),
        ("kind: [a]\n", 1, "'kind' is a text, not ['a']"),
        ("kind:\n", 1, "a kind has a name"),
        ("kind: toy\nroles:\n  w: {axes: '', dtype: number}\n", 3, "'number' is not a dtype of numbers"),
        ("kind: toy\nroles:\n  w: {axes: '', state: always}\n", 3, "'state' is true or false, not 'always'"),
        ("framework: x\nignore: abc\n", 2, "a list of words is needed, not 'abc'"),
        ("framework: x\nchannels: middle\n", 2, "channels are `first` or `last`"),
        ("- a\n", 1, "a spec file is a mapping"),
        ("about: x\n", 1, "a spec file says `kind:` or `framework:`"),
    ],
)
def test_errors_name_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(SpecError) as caught:
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


OTHER = [
    None,
    5,
    True,
    "x",
    ["a"],
    [["a"]],
    [5],
    [{"is": "a"}, 3],
    {"a": "x"},
    {"is": 5},
    {"values": {}},
    {"why": "x"},
    {},
]


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from nodes(inner, (*path, key))


@pytest.mark.parametrize("name", ["attention", "gru", "batch_norm", "torch"])
def test_a_wrong_value_anywhere_is_a_spec_error_with_its_line(name: str) -> None:
    """Values of layoutx's own specs exchanged for others: read, or refused by file and line, never a raw error."""
    import yaml

    text = (builtin_folder() / f"{name}.yaml").read_text()
    rng, refused = random.Random(7), list[str]()
    paths = list(nodes(yaml.safe_load(text)))
    for path in rng.sample(paths, min(40, len(paths))):
        document = yaml.safe_load(text)
        owner = document
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = rng.choice(OTHER)
        try:
            parse_spec(json.dumps(document, indent=1), "own.yaml")
        except LayoutxError as error:
            refused.append(str(error))
    assert len(refused) > 3
    assert [text for text in refused if not re.search(r"own\.yaml:\d+", text)] == []


def test_a_file_without_roles_adds_forms_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    more = "kind: toy\nforms:\n  x.Z: {tensors: {w: 'w: input output'}}\n"
    (tmp_path / "b.yaml").write_text(more)
    assert list(load_registry([tmp_path]).forms) == ["x.Z"]
    keys = {
        "about": "x", "axes": "{gate: {a: []}}", "spread": "{1: k}", "gauge": "[{sum: [w]}]", "facts": "{mode: a}",
        "settings": "{eps: x}",
    }  # fmt: skip
    for key, value in keys.items():
        (tmp_path / "b.yaml").write_text(f"{more}{key}: {value}\n")
        with pytest.raises(SpecError) as caught:
            load_registry([tmp_path])
        assert str(caught.value).splitlines() == [
            f"`{key}` belongs to the kind 'toy', which a.yaml describes",
            f"  {tmp_path / 'b.yaml'}",
            "  a file without `roles` adds forms to a kind, and nothing else",
            f"  leave `{key}` out, or describe a kind of your own with `roles`",
        ]


def test_a_folder_named_twice_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(builtin_folder().parent)
    found = spec_folders(["specs", builtin_folder(), tmp_path, tmp_path / "below" / ".."])
    assert found == (*spec_folders(), tmp_path)
    assert "toy" in load_registry(found).kinds


def test_a_field_that_nothing_fills_is_refused() -> None:
    kind = parse_spec(FORM + "    tensors: {'w{depth}': 'w: input output'}\n", "toy.yaml")
    assert isinstance(kind, Kind)
    with pytest.raises(BindError, match=r"\{depth\} in a tensor's name is no axis with labels"):
        bind(kind, kind.forms["x.Y"], sizes={"input": 3, "output": 5})
