"""Layers that are alike are bound, guessed and planned once, and each as if it were the only one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layoutx.errors import BindError, LayoutxError
from layoutx.plan import fit as fitting
from layoutx.plan.fit import fit
from layoutx.spec import bind as binding
from layoutx.spec import frame as framing
from layoutx.spec import guess as guessing
from layoutx.spec.guess import guess
from layoutx.spec.memo import Memo
from layoutx.spec.registry import load_registry, registry
from layoutx.spec.variants import every_name, variants

SPECS = Path(__file__).resolve().parents[2] / "specs"
DENSE = {"kernel": (5, 7), "bias": (7,)}


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (binding, framing, guessing, fitting):
        for name, value in list(vars(module).items()):
            if isinstance(value, Memo):
                monkeypatch.setattr(module, name, Memo())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives a list that grows with each call of a function of a module."""

    def count(module: Any, name: str) -> list[str]:
        calls: list[str] = []
        plain = getattr(module, name)

        def counting(*args: Any, **given: Any) -> Any:
            calls.append(name)
            return plain(*args, **given)

        monkeypatch.setattr(module, name, counting)
        return calls

    return count


def test_layers_of_one_shape_are_bound_once_and_keep_their_own_configs(counted: Callable[..., list[str]]) -> None:
    calls, reg = counted(binding, "_bind"), registry()
    found = [reg.bind("keras.Dense", {"units": 7, "name": f"dense_{n}"}, shapes=DENSE) for n in range(20)]
    assert len(calls) == 1
    assert [bound.config["name"] for bound in found] == [f"dense_{n}" for n in range(20)]
    assert found[0].places == found[19].places
    assert found[0].key == found[19].key is not None


def test_layers_that_differ_in_sizes_share_everything_else(counted: Callable[..., list[str]]) -> None:
    bound, framed, reg = counted(binding, "_bind"), counted(framing, "_framed"), registry()
    found = [reg.bind("keras.Dense", {"units": n}, shapes={"kernel": (n + 1, n), "bias": (n,)}) for n in range(3, 9)]
    assert (len(bound), len(framed)) == (6, 1)
    assert [dict(b.sizes) for b in found] == [{"input": n + 1, "output": n} for n in range(3, 9)]


def test_a_value_that_decides_something_is_never_taken_for_another() -> None:
    reg = registry()
    whole = {"kernel": (7, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
    plain = reg.bind("keras.LSTM", {"units": 5, "activation": "tanh"}, shapes=whole)
    other = reg.bind("keras.LSTM", {"units": 5, "activation": "relu"}, shapes=whole)
    assert plain.facts["activation"] == "tanh" != other.facts["activation"]
    assert reg.bind("torch.Linear", {"bias": True}, sizes={"input": 5, "output": 7}).tensors[1].name == "bias"
    assert len(reg.bind("torch.Linear", {"bias": False}, sizes={"input": 5, "output": 7}).tensors) == 1


def test_what_cannot_be_a_key_is_bound_each_time(counted: Callable[..., list[str]]) -> None:
    calls, reg = counted(binding, "_bind"), registry()
    odd = type("Odd", (str,), {})("linear")
    found = [reg.bind("keras.Dense", {"activation": odd}, shapes=DENSE) for _ in range(2)]
    assert len(calls) == 2
    assert found[0].key is None


def test_a_layer_that_does_not_fit_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(BindError, match="do not fit"):
            registry().bind("keras.Dense", shapes={"kernel": (5, 7)})


def test_a_plan_is_made_once_and_has_the_callers_layer(counted: Callable[..., list[str]]) -> None:
    calls, reg = counted(fitting, "_best_of"), registry()
    sources = [reg.bind("keras.Dense", {"name": f"dense_{n}"}, shapes=DENSE) for n in range(5)]
    plans = [fit(source, reg.form("torch.Linear")) for source in sources]
    assert len(calls) == 1
    assert all(found.source is source for found, source in zip(plans, sources, strict=True))
    assert plans[0].steps == plans[4].steps


def test_a_refusal_is_kept_and_raised_as_a_new_error() -> None:
    reg = registry()
    whole = {"kernel": (7, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
    source = reg.bind("keras.LSTM", {"activation": "relu"}, shapes=whole)
    errors = []
    for _ in range(2):
        with pytest.raises(LayoutxError) as caught:
            fit(source, reg.form("torch.LSTM"))
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    assert errors[0] is not errors[1]


def test_layers_of_one_shape_are_guessed_once(counted: Callable[..., list[str]]) -> None:
    reg, shapes = registry(), {"weight": (7, 5), "bias": (7,)}
    calls = counted(guessing, "bind")
    first = guess(reg, "torch", shapes, "fc1")
    once = len(calls)
    assert [guess(reg, "torch", shapes, f"fc{n}") for n in range(2, 9)] == [first] * 7
    assert once == len(calls) > 0
    first.clear()  # a caller's list is its own
    assert guess(reg, "torch", shapes, "fc1")


def test_the_hint_and_what_is_known_count_though_shapes_are_the_same() -> None:
    reg, shapes = registry(), [(3, 3, 7, 7), (7,)]
    assert len(guess(reg, "keras", shapes)) == 2
    assert [g.form for g in guess(reg, "keras", shapes, "conv2d_transpose_3")] == ["keras.Conv2DTranspose"]
    lstm = {"kernel": (7, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
    assert guess(reg, "keras", lstm)[0].config != guess(reg, "keras", lstm, "", {"version": 2})[0].config


def test_two_registries_never_share_a_guess() -> None:
    one, other = load_registry([SPECS]), load_registry([SPECS])
    del other.kinds["dense"], other.forms["torch.Linear"]  # type: ignore[attr-defined]
    shapes = {"weight": (7, 5)}
    assert "torch.Linear" in {g.form for g in guess(one, "torch", shapes)}
    assert "torch.Linear" not in {g.form for g in guess(other, "torch", shapes)}


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight": (7, 5)},
        {"weight": (7, 5), "bias": (7,)},
        {"weight": (7,), "bias": (7,), "running_mean": (7,), "running_var": (7,)},
        {"weight": (7, 5, 3, 3), "bias": (7,)},
        {"weight_ih_l0": (20, 7), "weight_hh_l0": (20, 5)},
        {"in_proj_weight": (30, 10), "in_proj_bias": (30,), "out_proj.weight": (10, 10), "out_proj.bias": (10,)},
    ],
)
def test_what_is_excluded_before_binding_would_not_have_bound(shapes: dict[str, tuple[int, ...]]) -> None:
    tried = excluded = 0
    for kind in registry().kinds.values():
        for form in kind.forms.values():
            for variant in variants(kind, form, {}) if form.framework == "torch" else ():
                may = every_name(kind, form).issuperset(shapes) and variant.may_hold(shapes)
                fits = guessing._held(kind, form, variant.open, shapes) is not None
                assert may or not fits, (form.name, variant.config)
                tried, excluded = tried + 1, excluded + (not may)
    assert tried > excluded > tried / 2
