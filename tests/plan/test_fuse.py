"""The fewest strided copies: known pairs, loops that merge, and steps that must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layoutx.plan.fit import fit
from layoutx.plan.fuse import fuse, merge_loops
from layoutx.plan.plan import Plan, plan
from layoutx.plan.steps import Add, Copy, Drop, Fill, Guard, Loop, Term, count
from layoutx.spec.bind import bind
from layoutx.spec.load import parse_spec
from scripts import golden_plans

SPECS = golden_plans.specs()

QKV = """
kind: qkv
roles: {w_q: "kv rep head embed", w_k: "kv head embed", w_v: "kv head embed"}
forms:
  f.Packed:
    tensors: {qkv: "(kv {w_q: rep | w_k | w_v} head) embed"}
  f.Separate:
    tensors: {q: "w_q: (kv rep head) embed", k: "w_k: (kv head) embed", v: "w_v: (kv head) embed"}
"""


def copies(made: Plan, tensor: str) -> list[Copy]:
    return [s for s in made.steps if isinstance(s, Copy) and s.target == tensor]


@pytest.mark.parametrize(
    ("source", "target", "tensor", "groups"),
    [
        ("keras.LSTM", "torch.LSTM", "weight_ih_l0", ["ifgo"]),
        ("keras.LSTM", "onnx.LSTM", "W", ["io", "fg"]),
        ("torch.LSTM", "keras.LSTM", "kernel", ["ifgo"]),
        ("onnx.LSTM", "torch.LSTM", "weight_hh_l0", ["if", "go"]),
        ("keras.GRU", "onnx.GRU", "W", ["zrn"]),
        ("keras.GRU", "torch.GRU", "weight_ih_l0", ["rz", "n"]),
    ],
)
def test_gates_move_in_the_fewest_copies(source: str, target: str, tensor: str, groups: list[str]) -> None:
    made = fit(SPECS.bind(source, sizes={"input": 7, "hidden": 5}), SPECS.form(target))
    assert ["".join(atom.split(".")[1] for atom in step.atoms) for step in copies(made, tensor)] == groups


def test_both_directions_of_a_packed_attention_take_three_copies() -> None:
    kind = parse_spec(QKV, "qkv.yaml")
    packed, separate = (
        bind(kind, kind.forms[n], sizes={"kv": 3, "rep": 2, "head": 5, "embed": 7}) for n in ("f.Packed", "f.Separate")
    )
    for made in (plan(packed, separate), plan(separate, packed)):
        assert [type(step) for step in made.steps] == [Copy] * 3
        assert sorted(step.atoms for step in made.steps) == [("w_k",), ("w_q",), ("w_v",)]
    q = copies(plan(separate, packed), "qkv")[0]
    assert q.loops == (Loop("kv", 3, 140, 70), Loop("rep×head×embed", 70, 1, 1))


def test_the_same_layout_is_one_run() -> None:
    made = fit(SPECS.bind("torch.LSTM", sizes={"input": 7, "hidden": 5}), SPECS.form("torch.LSTMCell"))
    assert [(step.target, [(x.size, x.target, x.source) for x in step.loops]) for step in made.steps] == [
        ("weight_ih", [(140, 1, 1)]),
        ("weight_hh", [(100, 1, 1)]),
        ("bias_ih", [(20, 1, 1)]),
        ("bias_hh", [(20, 1, 1)]),
    ]


@pytest.mark.parametrize(
    ("loops", "merged"),
    [
        ([Loop("a", 2, 3, 3), Loop("b", 3, 1, 1)], [Loop("a×b", 6, 1, 1)]),
        ([Loop("b", 3, 1, 1), Loop("a", 2, 3, 3)], [Loop("a×b", 6, 1, 1)]),
        ([Loop("a", 2, 3, 1), Loop("b", 3, 1, 2)], [Loop("a", 2, 3, 1), Loop("b", 3, 1, 2)]),
        ([Loop("a", 2, -3, 3), Loop("b", 3, -1, 1)], [Loop("a×b", 6, -1, 1)]),
        ([Loop("a", 2, -3, 3), Loop("b", 3, 1, 1)], [Loop("a", 2, -3, 3), Loop("b", 3, 1, 1)]),
        ([Loop("a", 1, 99, 7), Loop("b", 3, 1, 1)], [Loop("b", 3, 1, 1)]),
        ([Loop("a", 2, 12, 12), Loop("b", 3, 4, 4), Loop("c", 4, 1, 1)], [Loop("a×b×c", 24, 1, 1)]),
        ([], []),
    ],
)
def test_loops_that_continue_each_other_merge(loops: list[Loop], merged: list[Loop]) -> None:
    found = merge_loops(tuple(loops))
    assert found == tuple(merged)
    assert count(found) == count(tuple(loops))


def piece(to: int, of: int, **change: object) -> Copy:
    """A copy of five neighbours."""
    return replace(Copy("t", "s", to, of, (Loop("a", 5, 1, 1),)), **change)


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        ([piece(0, 0), piece(5, 5), piece(10, 10)], 1),
        ([piece(0, 0), piece(5, 10), piece(10, 20)], 1),
        ([piece(0, 10), piece(5, 5), piece(10, 0)], 1),  # backwards on one side
        ([piece(0, 0), piece(5, 5), piece(10, 15)], 2),
        ([piece(0, 0), piece(5, 5, negate=True)], 2),
        ([piece(0, 0), piece(5, 5, source="other")], 2),
        ([piece(0, 0), piece(5, 5, loops=(Loop("a", 4, 1, 1),))], 2),
        ([Fill("t", 0, (Loop("a", 5, 1),), 0.0), Fill("t", 5, (Loop("a", 5, 1),), 0.0)], 1),
        ([Fill("t", 0, (Loop("a", 5, 1),), 0.0), Fill("t", 5, (Loop("a", 5, 1),), 1.0)], 2),
        ([Guard("s", 0, (Loop("a", 5, 0, 1),), 0.0), Guard("s", 5, (Loop("a", 5, 0, 1),), 0.0)], 1),
        ([Drop("s", 0, (), "why"), Drop("s", 1, (), "why"), Drop("s", 2, (), "another")], 2),
        ([Add("t", 0, (), (Term("s", 0, ()),)), Add("t", 1, (), (Term("s", 1, ()),))], 2),
    ],
)
def test_steps_join_only_where_one_run_does_the_same(steps: list, number: int) -> None:
    fused = fuse(steps)
    assert len(fused) == number
    assert sum(count(s.loops) for s in fused) == sum(count(s.loops) for s in steps)
