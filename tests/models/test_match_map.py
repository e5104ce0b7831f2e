"""The mapping file: written, edited by people, extended without touching a line of theirs; every command takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_models import precision
from safetensors.torch import load_file
from torch import nn

from layoutx.cli import main
from layoutx.convert import convert
from layoutx.errors import FileError, LayoutxError, Problems
from layoutx.job.jobs import options_of
from layoutx.match import match
from layoutx.model.mapfile import read_map
from layoutx.model.mapwrite import Entry, extended, map_text, write_map
from layoutx.port import port

MODULE = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two equal layers, defined the other way round, in a forward that no tracer follows."""

    def __init__(self):
        super().__init__()
        self.late = nn.Linear(5, 5)
        self.early = nn.Linear(5, 5)
        self.rnn = nn.LSTM(5, 5, num_layers=2, batch_first=True)

    def forward(self, x):
        if bool(x.isnan().any()):
            return x
        return self.rnn(self.late(torch.relu(self.early(x))))[0][:, -1]


def make_keras():
    import keras
    import numpy as np

    keras.utils.set_random_seed(3)
    rnns = [keras.layers.LSTM(5, return_sequences=True, name="low"), keras.layers.LSTM(5, name="top")]
    layers = [keras.layers.Dense(5, "relu", bias_initializer="normal", name=n) for n in ("one",)]
    layers += [keras.layers.Dense(5, bias_initializer="normal", name="two")]
    return keras.Sequential([keras.Input((4, 5)), *layers, *rnns])
'''
RIGHT = {"one": "early", "two": "late"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module to import and a Keras file."""
    name = f"nets_{abs(hash(tmp_path)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    module.make_keras().save(tmp_path / "m.keras")
    (tmp_path / "name").write_text(name)
    return tmp_path


def net(folder: Path, what: str = "Net") -> Any:
    return getattr(__import__((folder / "name").read_text()), what)()


def called(folder: Path, what: str = "Net") -> str:
    return f"{(folder / 'name').read_text()}:{what}"


def test_a_map_is_written_edited_and_extended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "map.yaml"
    target = folder / "sorted.safetensors"
    from safetensors.torch import save_file

    save_file(net(folder).state_dict(), target)
    assert main(["match", "m.keras", str(target), "-o", str(path)]) == 1
    assert "ambiguous" in capsys.readouterr().out
    text = path.read_text()
    assert "  low: {to: rnn, layer: 0}" in text
    assert "  # one: ? early | late    # ambiguous: choose one" in text
    assert read_map(path).pairs == {"low": "rnn/layer_0", "top": "rnn/layer_1"}
    own = text.replace("pairs:", "# my own remark\npairs:   # and one here\n  one: early  # sure of it")
    path.write_text(own)
    assert main(["match", "m.keras", str(target), "-o", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert [line for line in lines if line in own.splitlines()] == own.splitlines()
    fresh = [line for line in lines if line not in own.splitlines()]
    assert [line.split("#")[0].strip() for line in fresh] == ["two: late"]
    assert read_map(path).pairs["two"] == "late"
    before = path.read_text()
    assert main(["match", "m.keras", str(target), "-o", str(path)]) == 0
    assert path.read_text() == before


def test_every_command_takes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "map.yaml"
    path.write_text("pairs:\n  one: early\n  two: late\n  low: {to: rnn, layer: 0}\n  top: rnn/layer_1\n")
    assert port(folder / "m.keras", net(folder), map=path, live=False).layers
    report = convert(folder / "m.keras", folder / "o.safetensors", to="torch", like=net(folder), map=path, live=False)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["one"] == "early (paired by the user)"
    call = ["port", "m.keras", called(folder), "-o", "ported.safetensors", "--map", str(path)]
    assert main(call) == 0
    kernel = net(folder, "make_keras").get_layer("one").get_weights()[0]
    np.testing.assert_array_equal(load_file("ported.safetensors")["early.weight"].numpy(), kernel.T)
    capsys.readouterr()
    assert main(["match", "m.keras", called(folder), "--map", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {p["source"]: p["target"] for p in found["pairs"]} == RIGHT | {"low": "rnn/layer_0", "top": "rnn/layer_1"}
    back = match(net(folder), folder / "m.keras", map=path)  # the same file for the way back
    assert {p.target.name: p.source.name for p in back.joint.pairs}["one"] == "early"


def test_skip_and_the_rest_of_a_map(folder: Path) -> None:
    path = folder / "map.yaml"
    path.write_text(
        "pairs: {two: early}\nskip: [one]\nkeep_order: [two]\nforms: {two: keras.Dense}\nset: {release: 1.0.5}\n"
    )
    options = options_of(pairs={"low": "rnn"}, map=path)
    assert dict(options.pairs) == {"two": "early", "low": "rnn"}
    assert options.skip == ("one",)
    assert options.keep_order == ("two",)
    assert dict(options.forms) == {"two": "keras.Dense"}
    assert dict(options.values) == {"release": "1.0.5"}


def test_missing_layers_are_all_named_with_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = folder / "map.yaml", folder / "o.safetensors"
    path.write_text("source: m.keras\npairs:\n  ome: early\n  two: lat\n  low: rnn\n")
    with pytest.raises(Problems, match=r"map\.yaml names layers that the models do not have") as caught:
        convert(folder / "m.keras", out, to="torch", like=net(folder), map=path)
    text = str(caught.value)
    assert "m.keras has no layer ome" in text
    assert "map.yaml:3: ome" in text
    assert "near it is one" in text
    assert "the target has no layer lat" in text
    assert "map.yaml:4" in text
    assert not out.exists()
    call = ["port", "m.keras", called(folder), "-o", str(out), "--map", str(path)]
    assert main(call) == 1
    assert not out.exists()
    assert "map.yaml:3: ome" in capsys.readouterr().err


def test_one_place_twice_and_other_mistakes_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("pairs:\n  a: x\n  b: x\n  c: [1]\nskip: a\nfroms: {}\n")
    with pytest.raises(Problems) as caught:
        read_map(path)
    text = str(caught.value)
    assert "x is the counterpart of a and of b" in text
    assert "map.yaml:2: a" in text
    assert "map.yaml:3: b" in text
    assert "map.yaml:4" in text
    assert "skip is a list of layers" in text
    assert "a mapping file has no 'froms'" in text
    assert caught.value.exit_code == 1
    path.write_text("pairs:\n  a: x\n  a: y\n")
    with pytest.raises(FileError, match="the key 'a' stands twice"):
        read_map(path)
    for text in ("- a\n", "", "# nothing yet\n", "just words\n"):
        path.write_text(text)
        with pytest.raises(FileError, match=r"map\.yaml is no mapping file"):
            read_map(path)
    path.write_text("pairs: {a: b\n")
    with pytest.raises(FileError, match=r"not YAML(.|\n)*map\.yaml:") as caught_:
        read_map(path)
    assert caught_.value.exit_code == 1
    with pytest.raises(LayoutxError, match=r"there is no mapping file none\.yaml"):
        read_map(tmp_path / "none.yaml")


def test_strange_names_come_back(tmp_path: Path) -> None:
    """Layers called 0, no or with a colon are quoted; a map in one line stays readable."""
    entries = [
        Entry("0", "1.0", "0.9 x"),
        Entry("no", "a: b"),
        Entry("x/y", "rnn/layer_3"),
        Entry("q", "", "choose", ("1", "b")),
    ]
    path = tmp_path / "map.yaml"
    path.write_text(map_text("a b", "c", entries))
    assert read_map(path).pairs == {"0": "1.0", "no": "a: b", "x/y": "rnn/layer_3"}
    path.write_text("pairs: {k: v}  # mine\nskip: [z]\n")
    path.write_text(extended(path.read_text(), [Entry("l", "w")], read_map(path)))
    assert read_map(path).pairs == {"k": "v", "l": "w"}
    assert read_map(path).skip == ("z",)


@pytest.mark.parametrize("place", ["block/conv_01", "a/no_1", "a/to_1", "rnn/layer_0", "a/b_\u00b2", "/x_1"])
def test_a_place_comes_back_as_it_was(place: str, tmp_path: Path) -> None:
    """`{to: block, conv: 1}` of block/conv_01 would be another layer."""
    write_map(tmp_path / "map.yaml", "a", "b", [Entry("l", place)])
    assert read_map(tmp_path / "map.yaml").pairs == {"l": place}


@pytest.mark.parametrize(
    "text", ["pairs: {a: b,\n  c: d}\n", "'pairs': {a: b}\n", "{pairs: {a: b}}\n", "\ufeffpairs:\n"]
)
def test_a_map_that_cannot_be_extended_line_by_line_stays_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LayoutxError, match=r"map\.yaml cannot be extended line by line") as caught:
        write_map(path, "a", "b", [Entry("new", "place")])
    assert "one `  LAYER: PLACE` a line" in str(caught.value)
    assert path.read_text(encoding="utf-8") == text


def test_blank_lines_and_other_indents_are_the_users(tmp_path: Path) -> None:
    """Lines of spaces say no indent, and a line that is there is not written again because it stands further in."""
    path = tmp_path / "map.yaml"
    path.write_text("pairs:\n      \n    a: b\n")
    entries = [Entry("new", "place"), Entry("q", "", "choose one", ("x", "y"))]
    write_map(path, "a", "b", entries)
    assert path.read_text() == 'pairs:\n      \n    a: b\n    new: place\n    # q: ? x | "y"    # choose one\n'
    before = path.read_text()
    write_map(path, "a", "b", entries)
    assert path.read_text() == before


def test_port_says_what_it_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["port", "m.keras", called(folder)]) == 2
    assert "there is no output" in capsys.readouterr().err
    assert main(["port", "m.keras", called(folder), "-o", "x.keras"]) == 2
    assert "is no file for this target" in capsys.readouterr().err
    assert main(["port", "m.keras", "m.keras", "-o", "x.keras"]) == 2
    assert "is not a model that can be run" in capsys.readouterr().err
    assert not (folder / "x.keras").exists()


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".pt"])
def test_port_saves_what_it_wrote(ending: str, folder: Path) -> None:
    import keras

    path = folder / f"out{ending}"
    if ending == ".pt":
        assert (
            main(["port", "m.keras", called(folder), "-o", str(path), "--pair", "one=early", "--pair", "two=late"]) == 0
        )
        assert "early.weight" in torch.load(path)
        return
    assert main(["port", "m.keras", called(folder, "make_keras"), "-o", str(path)]) == 0
    fresh = net(folder, "make_keras")
    fresh.set_weights([w * 0 for w in fresh.get_weights()])
    if ending == ".keras":
        fresh = keras.models.load_model(path)
    else:
        fresh.load_weights(path)
    for old, new in zip(keras.models.load_model("m.keras").get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_layer_of_another_framework_is_named_in_open(tmp_path: Path) -> None:
    """`nn` modules without names of their own: numbers are quoted in the file."""
    with precision(__import__("keras"), "float32"):
        import keras

        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="a"), keras.layers.Dense(3, name="b")])
    found = match(model, nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)))
    found.save(tmp_path / "map.yaml")
    assert read_map(tmp_path / "map.yaml").pairs == {"a": "0", "b": "1"}
    assert "0.9" in found.text()


def test_open_lines_are_the_users_to_fill_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written as told, named on the terminal, refused by port and convert until somebody has chosen."""
    from safetensors.torch import save_file

    path, target, out = folder / "map.yaml", folder / "sorted.safetensors", folder / "o.safetensors"
    save_file(net(folder).state_dict(), target)
    assert main(["match", "m.keras", str(target), "-o", str(path)]) == 1
    shown = capsys.readouterr().out
    text = path.read_text()
    lines = {name: 1 + text.splitlines().index(f"  # {name}: ? early | late    # ambiguous: choose one")
             for name in ("one", "two")}  # fmt: skip
    assert "are yours to fill in: take the # away and leave one of the places" in text
    assert all(f"map.yaml:{line} ({name})" in shown for name, line in lines.items())
    for call in (
        ["port", "m.keras", called(folder), "-o", str(out), "--map", str(path)],
        ["convert", "m.keras", "-o", str(out), "--to", "torch", "--like", str(target), "--map", str(path)],
    ):
        assert main(call) == 1
        error = capsys.readouterr().err
        assert "one is not filled in" in error
        assert f"map.yaml:{lines['two']}: early | late" in error
        assert not out.exists()
    path.write_text(text.replace("# one: ? early | late", "one: early"))
    assert main(["convert", "m.keras", "-o", str(out), "--to", "torch", "--like", str(target), "--map", str(path)]) == 1
    assert "two is not filled in" in capsys.readouterr().err
    call = ["port", "m.keras", called(folder), "-o", str(out), "--map", str(path), "--pair", "two=late"]
    assert main(call) == 0
    assert out.exists()


def test_a_map_for_other_models_is_refused_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = folder / "map.yaml", folder / "o.safetensors"
    path.write_text("source: a.keras\ntarget: other:Net\npairs:\n  stem: features.0\n  neck: features.1\n")
    for call in (
        ["port", "m.keras", called(folder), "-o", str(out), "--map", str(path)],
        ["match", "m.keras", called(folder), "--map", str(path)],
        ["validate", "m.keras", called(folder), "--map", str(path)],
    ):
        assert main(call) == 1
        error = capsys.readouterr().err
        assert all(name in error for name in ("stem", "features.0", "neck", "features.1", "map.yaml:4", "map.yaml:5"))
        assert not out.exists()


def test_other_counts_and_classes_without_a_form_are_refused_together(folder: Path) -> None:
    """A layer too many, and one that nobody knows: each is named, with how to add a spec; the target stays."""
    import keras

    @keras.saving.register_keras_serializable("nets")
    class Wave(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.pitch = self.add_weight(shape=(shape[-1], 3), name="pitch", initializer="normal")

        def call(self, x: Any) -> Any:
            return keras.ops.sin(x @ self.pitch)

    source = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="a"), Wave(name="wave")])
    target = nn.Sequential(nn.Linear(5, 7))
    before = target[0].weight.clone()
    with pytest.raises(LayoutxError, match=r"no form for the class (nets>)?Wave(.|\n)*docs/writing-a-spec.md"):
        port(source, target)
    more = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="a"), keras.layers.Dense(11, name="b"),
                             keras.layers.Dense(13, name="c")])  # fmt: skip
    with pytest.raises(Problems) as caught:
        port(more, target)
    assert all(f"fits {name} (Dense)" in str(caught.value) for name in ("b", "c"))
    with pytest.raises(LayoutxError, match=r"1\.weight"):
        port(keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="a")]), nn.Sequential(
            target[0], nn.Linear(7, 3)))  # fmt: skip
    assert torch.equal(target[0].weight, before)
