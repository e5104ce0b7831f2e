"""The lint finds each kind of broken spec, and says where; layoutx's own specs have nothing to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from layoutx.spec.check import check_registry
from layoutx.spec.configs import reachable, structural
from layoutx.spec.registry import Registry, load_registry, registry

SOUND = """kind: toy
about: "y = gate[a](x) + gate[b](x)"
axes: {gate: {a: [], b: [bee]}}
roles:
  w: "gate input output"
  shift: {axes: "output", absent: zeros}
gauge: [{sum: [shift]}]
facts: {mode: {default: plain, why: "another function"}}
settings: {eps: "a small number"}
forms:
  lib.Toy:
    source: "lib 1.0 toy.py"
    config: {units: null, eps: 0.1, mode: plain, bias: true, old: false}
    sizes: {units: output}
    facts: {mode: {config: mode}}
    settings: {eps: {config: eps}}
    tensors:
      w: [{is: "w: (gate[bee a] output) input", when: {old: true}}, {is: "w: input (gate[a b] output)"}]
      b: {is: "shift: output", when: {bias: true}}
"""


def _load(folder: Path, text: str) -> Registry:
    (folder / "toy.yaml").write_text(text)
    return load_registry([folder])


def test_own_specs_are_sound() -> None:
    assert [str(problem) for problem in check_registry(registry())] == []


def test_a_sound_spec_has_no_problems(tmp_path: Path) -> None:
    assert check_registry(_load(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('    source: "lib 1.0 toy.py"\n', "", "no `source`"),
        ("(gate[a b] output)", "(gate[a] output)", "tensor w: gate[a] leaves out b"),
        ("gate[bee a]", "gate[bee b]", "tensor w: gate[bee b] lists b twice and leaves out a"),
        ("gate[a b]", "gate[a b z]", "tensor w: gate has no label 'z'"),
        ("b: [bee]", "b: [a]", "the label 'a' means 2 things in the kind toy"),
        ("b: [bee]", "b: [bee, w]", "'w' is a label and a role of the kind toy"),
        ('"w: input (gate[a b] output)"', '"w:  input (gate[a b] output)"', 'write "w: input (gate[a b] output)"'),
        ("when: {old: true}", "when: {older: true}", "tensor w depends on 'older', which is not in `config`"),
        ("sizes: {units: output}", "sizes: {unit: output}", "sizes reads 'unit', which is not in `config`"),
        ("sizes: {units: output}", "sizes: {units: out}", "sizes names 'out', which is not an axis of the kind toy"),
        ("{config: mode}", "{config: mood}", "facts.mode reads 'mood', which is not in `config`"),
        ("facts: {mode: {config", "facts: {mood: {config", "facts.mood is not declared by the kind toy"),
        ("settings: {eps: {config", "settings: {epsilon: {config", "settings.epsilon is not declared by the kind toy"),
        ("    facts:", "    require: {alpha: 1}\n    facts:", "require reads 'alpha', which is not in `config`"),
        ("    facts:", "    ignore: [old]\n    facts:", "'old' stands in `config` and in `ignore`"),
        ("    facts:", "    pin: {depth: 1}\n    facts:", "'depth' is not an axis of the kind toy"),
        ("    facts:", "    only: {gate: [z]}\n    facts:", "only names gate[z], which does not exist"),
        ("    facts:", "    names: {gate: {z: _z}}\n    facts:", "names spells gate[z], which does not exist"),
        ("    facts:", "    modules: {w: lib.Part}\n    facts:", "the module w is 'lib.Part', which is not a form"),
        ("    facts:", "    modules: {v: lib.Toy}\n    facts:", "tensor w belongs to none of the modules v"),
        ('is: "shift: output"', 'is: "beta: output"', "tensor b stores 'beta', which is not a role of the kind toy"),
        ('is: "shift: output"', 'is: "shift: input"', "the axis output of shift is not stored"),
        ('"w: input (gate[a b] output)"', '"w: (gate[a b] output)"', "the axis input of w is not stored"),
        ('"w: input (gate[a b] output)"', '"w.a: input output"', "w.b is stored nowhere, the rest of w is"),
        ("when: {old: true}}, {is", "when: {old: true}}, {when: {old: maybe}, is", "w is stored nowhere, and the kind"),
        ('      b: {is', '      "b2": "shift: output"\n      b: {is', "shift is stored twice"),
        ("[{sum: [shift]}]", "[{sum: [shift, c]}]", "a gauge of toy sums 'c', which is not a role"),
        ("[{sum: [shift]}]", "[{sum: [shift, w]}]", "the roles of a gauge of toy have different axes: shift, w"),
        ("[{sum: [shift]}]", "[{sum: [shift], when: {mood: x}}]", "a gauge of toy depends on 'mood'"),
        ("[{sum: [shift]}]", "[{sum: [shift], labels: {gate: [z]}}]", "a gauge of toy holds for gate[z]"),
        ('      w: [{is: "w: (gate[bee a]', '      w: [{optional: true, is: "w: (gate[bee a]', "tensor w is optional"),
    ],
)  # fmt: skip
def test_a_broken_spec_is_found(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert SOUND.count(old) == 1
    problems = check_registry(_load(tmp_path, SOUND.replace(old, new)))
    assert words in "\n".join(p.what for p in problems)
    for problem in problems:
        assert problem.where[0].startswith(str(tmp_path / "toy.yaml"))


def test_the_place_is_the_line_of_the_form(tmp_path: Path) -> None:
    (problem,) = check_registry(_load(tmp_path, SOUND.replace("gate[a b]", "gate[a]")))
    assert problem.where == (f"{tmp_path / 'toy.yaml'}:11",)


def test_a_form_that_a_user_adds_is_checked_at_its_own_place(tmp_path: Path) -> None:
    own, more = tmp_path / "a", tmp_path / "b"
    own.mkdir()
    more.mkdir()
    (own / "toy.yaml").write_text(SOUND)
    (more / "more.yaml").write_text(
        'kind: toy\nforms:\n  my.Toy:\n    source: "mine"\n    tensors: {w: "w: input output gate[a]"}\n'
    )
    (problem,) = check_registry(load_registry([own, more]))
    assert problem.where == (f"{more / 'more.yaml'}:3",)


def test_elements_that_no_atom_owns_are_counted() -> None:
    """`_marks` is the lint's own witness: with a block taken away it must speak."""
    from dataclasses import replace

    from layoutx.spec.check import _covered

    bound = registry().bind("keras.LSTM", {}, sizes={"hidden": 5, "input": 7})
    assert list(_covered(bound)) == []
    kernel = bound.tensors[0]
    less = replace(bound, tensors=(replace(kernel, blocks=kernel.blocks[1:]), *bound.tensors[1:]))
    assert list(_covered(less)) == ["tensor kernel (7, 20): 35 elements belong to nothing, 0 to two"]
    more = replace(bound, tensors=(replace(kernel, blocks=(*kernel.blocks, kernel.blocks[0])), *bound.tensors[1:]))
    assert list(_covered(more)) == ["tensor kernel (7, 20): 0 elements belong to nothing, 35 to two"]


def test_configs_that_a_form_tells_apart() -> None:
    form = registry().form("torch.BatchNorm2d")
    found = list(structural(form))
    assert found[0] == {}
    assert {"affine": False, "track_running_stats": False, "bias": False} in found
    assert len(found) == 8
    gru = registry().form("keras.GRU")
    assert {"reset_after": False} in structural(gru)
    assert {"recurrent_activation": "hard_sigmoid"} in reachable(gru)
    assert {"recurrent_activation": "hard_sigmoid"} not in structural(gru)
