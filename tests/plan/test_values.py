"""Maps of values: signs of single labels, constants added at run time, scales and squares; exact where they can be."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.errors import BindError, ConsentError, ConversionError, SpecError
from layoutx.plan.plan import Plan, plan
from layoutx.plan.run import run
from layoutx.plan.steps import Exactness
from layoutx.spec.bind import bind
from layoutx.spec.load import parse_spec
from layoutx.spec.schema import Kind
from layoutx.spec.values import ValueMap
from layoutx.verify.roles import roles

TOY = """
kind: toy
axes: {gate: {i: [], f: [], z: [u]}}
roles:
  w: "gate hidden"
  b: {axes: "gate hidden", absent: zeros}
  v: {axes: "hidden", absent: ones}
forms:
  a.Plain:
    config: {bias: true}
    tensors: {w: "w: gate[i f z] hidden", b: {is: "b: (gate[i f z] hidden)", when: {bias: true}}, v: "v: hidden"}
  b.Signed: {tensors: {w: "w: hidden gate[f -u i]", b: "-b: (gate[z -f i] hidden)", v: "v: hidden"}}
  c.Shifted:
    config: {forget: 1.0}
    maps: {b.f: {add: forget}}
    tensors: {w: "w: gate[i f z] hidden", b: "b: gate[i f z] hidden", v: "v: hidden"}
  d.Back: {maps: {b.f: {add: 0.5}}, tensors: {w: "w: gate[i f z] hidden", b: "-b: gate[i f z] hidden", v: "v: hidden"}}
  f.Deviation:
    config: {epsilon: 0.5}
    maps: {v: {power: 2, shift: epsilon}}
    tensors: {w: "w: gate[i f z] hidden", v: "v: hidden"}
  e.Scaled:
    config: {alpha: 4.0}
    maps: {w: {times: alpha}, v: {power: 2}}
    tensors: {w: "w: gate[i f z] hidden", v: "v: hidden"}
"""


def toy() -> Kind:
    kind = parse_spec(TOY, "toy.yaml")
    assert isinstance(kind, Kind)
    return kind


def planned(source: str, target: str, **config: float) -> Plan:
    kind = toy()
    return plan(
        bind(kind, kind.forms[source], sizes={"hidden": 5}),
        bind(kind, kind.forms[target], config, sizes={"hidden": 5}),
    )


def stored(dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    values = {"w": rng.uniform(0.1, 2, (3, 5)), "b": rng.uniform(-2, 2, 15), "v": rng.uniform(0.2, 2, 5)}
    return {name: a.astype(dtype) for name, a in values.items()}


def test_a_minus_before_a_label_changes_its_sign_only() -> None:
    found = planned("a.Plain", "b.Signed")
    assert found.exactness is Exactness.MOVES
    x = stored()
    y = found(x)
    np.testing.assert_array_equal(y["w"], np.stack([x["w"][1], -x["w"][2], x["w"][0]], axis=1))
    b = x["b"].reshape(3, 5)
    np.testing.assert_array_equal(y["b"].reshape(3, 5), [-b[2], b[1], -b[0]])
    assert all(a.tobytes() == found.inverse()(y)[name].tobytes() for name, a in x.items())


def test_a_constant_that_the_framework_adds_is_taken_off_what_is_stored() -> None:
    x = stored()
    for target, stored_as in (("c.Shifted", lambda f: f - 1.0), ("d.Back", lambda f: -(f - 0.5))):
        found = planned("a.Plain", target)
        assert found.exactness is Exactness.ROUNDS
        y = found(x, allow={"rounds"})
        b = x["b"].reshape(3, 5)
        np.testing.assert_array_equal(y["b"][1], stored_as(b[1]))
        sign = 1 if target == "c.Shifted" else -1
        np.testing.assert_array_equal(y["b"][[0, 2]], sign * b[[0, 2]])
        np.testing.assert_allclose(found.inverse()(y, allow={"rounds"})["b"], x["b"], rtol=1e-15)


def test_the_generated_code_computes_the_same() -> None:
    for source, target in (("a.Plain", "c.Shifted"), ("c.Shifted", "d.Back"), ("d.Back", "a.Plain")):
        found = planned(source, target)
        x = stored()
        x["b"] = x["b"].reshape(found.source.tensor("b").shape)
        space: dict[str, object] = {}
        exec(found.code(), space)
        made = space["convert"](x)  # type: ignore[operator]
        for name, array in found(x, allow={"rounds"}).items():
            np.testing.assert_allclose(made[name], array, rtol=0, atol=1e-15)


def test_a_shift_that_loses_nothing_needs_no_consent() -> None:
    found = planned("a.Plain", "c.Shifted")
    x = stored("float32")
    with pytest.raises(ConsentError) as caught:
        found(x)
    assert "one of the two frameworks changes b.f by a constant while it runs" in str(caught.value)
    x["b"] = np.round(x["b"] * 64).astype("float32") / 64
    result = run(found, x)
    assert result.exactness(found) is Exactness.FILLS
    back = found.inverse()(result.tensors)
    assert back["b"].tobytes() == x["b"].tobytes()


def test_two_forms_that_add_alike_are_copied() -> None:
    assert planned("c.Shifted", "c.Shifted", forget=1.0).exactness is Exactness.MOVES
    assert planned("c.Shifted", "c.Shifted", forget=2.0).exactness is Exactness.ROUNDS


def test_what_is_absent_is_stored_as_its_meaning_says() -> None:
    kind = toy()
    source = bind(kind, kind.forms["a.Plain"], {"bias": False}, sizes={"hidden": 5})
    found = plan(source, bind(kind, kind.forms["c.Shifted"], sizes={"hidden": 5}))
    x = {name: a for name, a in stored().items() if name != "b"}
    y = found(x)
    np.testing.assert_array_equal(y["b"], np.outer([0, -1, 0], np.ones(5)))
    back = plan(bind(kind, kind.forms["c.Shifted"], sizes={"hidden": 5}), source)
    assert back(y, allow={"conditional"})["w"].tobytes() == x["w"].tobytes()
    with pytest.raises(ConversionError, match=r"has no place for b\.f"):
        back({**y, "b": np.zeros((3, 5))}, allow={"conditional"})


def test_scales_and_squares_are_rounded_once() -> None:
    kind = toy()
    source = bind(kind, kind.forms["e.Scaled"], {"alpha": 3.0}, sizes={"hidden": 5})
    x = {name: a for name, a in stored("float32").items() if name != "b"}
    found = plan(source, bind(kind, kind.forms["a.Plain"], {"bias": False}, sizes={"hidden": 5}))
    y = found(x, allow={"rounds"})
    np.testing.assert_array_equal(y["w"], (3.0 * x["w"].astype("float64")).astype("float32"))
    np.testing.assert_array_equal(y["v"], (x["v"].astype("float64") ** 2).astype("float32"))
    again = found.inverse()(y, allow={"rounds"})
    np.testing.assert_allclose(again["v"], x["v"], rtol=1e-6)
    np.testing.assert_allclose(again["w"], x["w"], rtol=1e-6)
    assert "3 × w: computed in float64" in str(found)
    assert "v²: computed in float64" in str(found)
    meant = roles(source, {name: a.astype("float64") for name, a in x.items()})
    np.testing.assert_allclose(meant["v"], x["v"].astype("float64") ** 2, rtol=1e-15)


def test_a_negative_number_has_no_root() -> None:
    kind = toy()
    source = bind(kind, kind.forms["a.Plain"], {"bias": False}, sizes={"hidden": 5})
    found = plan(source, bind(kind, kind.forms["e.Scaled"], sizes={"hidden": 5}))
    x = {name: a for name, a in stored().items() if name != "b"}
    x["v"][3] = -1.0
    with pytest.raises(ConversionError, match=r"1 of 5 results are not finite"):
        found(x, allow={"rounds"})


def test_a_shift_before_the_power_comes_off_after_the_root() -> None:
    """Keras 1.0.5: variance = (running_std + epsilon)^2."""
    kind, x = toy(), stored("float32")
    source = bind(kind, kind.forms["f.Deviation"], {"epsilon": 0.125}, sizes={"hidden": 5})
    found = plan(source, bind(kind, kind.forms["a.Plain"], {"bias": False}, sizes={"hidden": 5}))
    del x["b"]
    y = found(x, allow={"rounds"})
    np.testing.assert_array_equal(y["v"], ((x["v"].astype("float64") + 0.125) ** 2).astype("float32"))
    back = found.inverse()(y, allow={"rounds"})
    np.testing.assert_allclose(back["v"], x["v"], rtol=1e-6)
    assert "(v + 0.125)²: computed in float64" in str(found)
    assert "√(v) - 0.125: computed in float64" in str(found.inverse())
    assert planned("f.Deviation", "f.Deviation", epsilon=0.5).exactness is Exactness.MOVES
    assert planned("f.Deviation", "f.Deviation", epsilon=0.001).exactness is Exactness.ROUNDS
    for way, given in ((found, x), (found.inverse(), y)):
        space: dict[str, object] = {}
        exec(way.code(), space)
        made = space["convert"]({name: array.astype("float64") for name, array in given.items()})  # type: ignore[operator]
        np.testing.assert_allclose(made["v"], way(given, allow={"rounds"})["v"], rtol=1e-6)
    meant = roles(found.source, {name: a.astype("float64") for name, a in x.items()})
    np.testing.assert_allclose(meant["v"], (x["v"].astype("float64") + 0.125) ** 2, rtol=1e-15)
    x["v"][2] = -0.5
    with pytest.raises(ConversionError, match=r"1 of 5 results are not finite"):
        found(x, allow={"rounds"})


def test_what_is_absent_stands_before_the_shift() -> None:
    assert ValueMap(power=2, shift=0.25).stored(1.0) == 0.75


def test_a_config_without_the_number_is_refused() -> None:
    kind = toy()
    with pytest.raises(BindError, match=r"f.Deviation needs a number for epsilon"):
        bind(kind, kind.forms["f.Deviation"], {"epsilon": "none"}, sizes={"hidden": 5})
    with pytest.raises(BindError, match=r"c.Shifted needs a number for forget"):
        bind(kind, kind.forms["c.Shifted"], {"forget": None}, sizes={"hidden": 5})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("b.f: {plus: 1}", "a map of values is one of add, times, power"),
        ("b.f: {power: 3}", "the only power is 2, not 3"),
        ("b.f: {add: true}", "'add' has a number or a config key, not True"),
        ("b.f: {add: 1, shift: 2}", "a shift stands beside a power, not beside 'add'"),
        ("b.f: {shift: 2}", "a map of values is one of add, times, power"),
        ("b.f: {power: 2, shift: true}", "'shift' has a number or a config key, not True"),
    ],
)
def test_maps_are_a_closed_list(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(TOY.replace("b.f: {add: 0.5}", text), "toy.yaml")


def test_a_map_of_no_role_is_refused() -> None:
    kind = parse_spec(TOY.replace("b.f: {add: 0.5}", "b.q: {add: 0.5}"), "toy.yaml")
    assert isinstance(kind, Kind)
    with pytest.raises(BindError, match=r"b.q names no numbers of the kind toy"):
        bind(kind, kind.forms["d.Back"], sizes={"hidden": 5})
