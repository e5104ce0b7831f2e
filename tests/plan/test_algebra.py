"""The algebra of plans: inverses, composition, permutations, untouched inputs, and bits that survive every dtype."""

from __future__ import annotations

import random

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_kinds import Case, cases, random_case

from layoutx.errors import BindError, ConsentError, ConversionError, Problems
from layoutx.plan.fit import fit
from layoutx.plan.fuse import fuse
from layoutx.plan.join import join
from layoutx.plan.plan import Plan, plan
from layoutx.plan.prove import prove
from layoutx.plan.run import consent, run
from layoutx.plan.steps import Add, Copy, Drop, Exactness, Loop, Term
from layoutx.plan.sums import added
from layoutx.spec.bind import bind
from layoutx.spec.load import parse_spec
from scripts import golden_plans

SPECS = golden_plans.specs()
SIZES = {"input": 7, "hidden": 5}
EXACT = (Exactness.MOVES, Exactness.FILLS)


def planned(case: Case, source: int, target: int) -> Plan | None:
    try:
        return plan(case.bound(source), case.bound(target))
    except (ConversionError, Problems):
        return None


def whole_numbers(made: Plan, seed: int = 0) -> dict[str, np.ndarray]:
    """Different numbers everywhere, read-only, so that a write to an input raises."""
    total = sum(int(np.prod(t.shape)) for t in made.source.tensors)
    numbers = iter(np.random.default_rng(seed).permutation(total) + 2.0)
    found = {}
    for tensor in made.source.tensors:
        array = np.array([next(numbers) for _ in range(int(np.prod(tensor.shape)))]).reshape(tensor.shape)
        array.flags.writeable = False
        found[tensor.name] = array
    return found


def same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].shape == right[name].shape, name
        assert left[name].tobytes() == right[name].tobytes(), name


@settings(max_examples=150, derandomize=True)
@given(cases())
def test_the_inverse_undoes_moves_and_fills(case: Case) -> None:
    made = planned(case, 0, 1)
    if made is None or made.exactness not in EXACT or any(isinstance(s, Drop) for s in made.steps):
        return  # what was dropped as harmless does not come back
    given_arrays = whole_numbers(made)
    back = made.inverse()(made(given_arrays), allow={"conditional"})
    same_bits({name: back[name] for name in given_arrays}, given_arrays)


@settings(max_examples=150, derandomize=True)
@given(cases(forms=3))
def test_two_steps_are_one(case: Case) -> None:
    """A -> C is B -> C after A -> B, where B has a place for all that A has."""
    first, second, whole = planned(case, 0, 1), planned(case, 1, 2), planned(case, 0, 2)
    if first is None or second is None or whole is None or first.exactness not in EXACT:
        return
    if any(isinstance(step, Drop) for step in first.steps):  # B has no place for what was dropped
        return
    if not set(first.source.places) <= set(first.target.places):  # B keeps a sum under another of its summands' names
        return
    given_arrays = whole_numbers(first)
    try:
        by_two = run(second, run(first, given_arrays).tensors).tensors
    except (ConversionError, Problems):  # what B was filled with is not what C wants to be left out
        return
    at_once = run(whole, given_arrays).tensors
    assert by_two.keys() == at_once.keys()
    for name, array in by_two.items():  # as values: a zero that B was filled with may change its sign on the way to C
        np.testing.assert_array_equal(array, at_once[name])


@settings(max_examples=150, derandomize=True)
@given(cases())
def test_fusing_changes_nothing(case: Case) -> None:
    made = planned(case, 0, 1)
    if made is None:
        return
    unfused = join(made.source, made.target)
    prove(unfused, made.source, made.target)
    assert len(fuse(unfused)) <= len(unfused)
    given_arrays = whole_numbers(made)
    try:
        fused = run(made, given_arrays).tensors
    except (ConversionError, Problems):
        with pytest.raises((ConversionError, Problems)):
            run(Plan(made.source, made.target, tuple(unfused)), given_arrays)
        return
    same_bits(run(Plan(made.source, made.target, tuple(unfused)), given_arrays).tensors, fused)


@settings(max_examples=150, derandomize=True)
@given(cases())
def test_moves_are_permutations(case: Case) -> None:
    made = planned(case, 0, 1)
    if made is None or made.exactness is not Exactness.MOVES:
        return
    given_arrays = whole_numbers(made)
    before = sorted(float(abs(x)) for array in given_arrays.values() for x in array.flat)
    after = sorted(float(abs(x)) for array in made(given_arrays).values() for x in array.flat)
    used = {s.source for s in made.steps if isinstance(s, Copy)}
    assert set(after) <= set(before)
    assert len(after) == len(set(after))
    if used == set(given_arrays) and len(made.steps) == sum(isinstance(s, Copy) for s in made.steps):
        assert after == before  # nothing dropped as harmless


def test_enough_random_cases_are_exact() -> None:
    """The tests above pass over what does not concern them; enough must remain."""
    found = [planned(random_case(random.Random(seed), 2), 0, 1) for seed in range(200)]
    exact = [p for p in found if p is not None and p.exactness in EXACT]
    assert len(exact) > 80
    assert sum(p.exactness is Exactness.MOVES for p in exact) > 40


BITS = {
    "float16": np.uint16, "float32": np.uint32, "float64": np.uint64, "bfloat16": np.uint16, "float8_e4m3fn": np.uint8,
    "float8_e5m2": np.uint8, "int8": np.uint8, "int16": np.uint16, "int32": np.uint32, "int64": np.uint64,
    "uint8": np.uint8, "uint64": np.uint64, "bool": np.uint8, "complex64": np.uint64, "complex128": None,
}  # fmt: skip


def patterns(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random bit patterns, NaN payloads, infinities, denormals and both zeros among them; booleans are 0 and 1."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    raw = rng.integers(0, 256, size=(int(np.prod(shape)), kind.itemsize), dtype=np.uint8)
    if dtype == "bool":
        raw &= 1
    if kind.kind in "fcV" and len(raw) > 4:
        raw[0] = 0
        raw[1], raw[1, -1] = 0, 0x80  # minus zero
        raw[2], raw[2, 0] = 0, 1  # the smallest denormal
        raw[3] = 0xFF  # a NaN
    return raw.view(kind).reshape(shape)


LAYOUTS = """
kind: k
axes:
  gate: {i: [], f: [], g: []}
roles:
  w: "gate a b"
  s: ""
  e: "n"
forms:
  f.A:
    tensors: {x: "w: a (gate[i f g] b)", s: "s:", e: "e: n"}
  f.B:
    tensors: {y: "w: (gate[g i f] -b) a", s: "s: 1", e: "e: n"}
  f.N:
    tensors: {y: "-w: (gate[g i f] -b) a", s: "-s: 1", e: "e: n"}
"""


def small(target: str) -> Plan:
    kind = parse_spec(LAYOUTS, "small.yaml")
    sizes = {"a": 3, "b": 5, "n": 0}
    return plan(bind(kind, kind.forms["f.A"], sizes=sizes), bind(kind, kind.forms[target], sizes=sizes))


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_every_bit_survives(dtype: str, order: str) -> None:
    made = small("f.B")
    given_arrays = {t.name: patterns(dtype, t.shape, seed) for seed, t in enumerate(made.source.tensors)}
    x = given_arrays["x"]
    if order == "F":
        given_arrays["x"] = np.asfortranarray(x)
    elif order == "strided":
        wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
        wide[:, ::2] = x
        given_arrays["x"] = wide[:, ::2]
    for array in given_arrays.values():
        array.flags.writeable = False
    made_arrays = made(given_arrays)
    raw = np.ascontiguousarray(x).view(np.uint8).reshape(3, 3, 5, x.itemsize)
    expected = raw[:, [2, 0, 1], ::-1].transpose(1, 2, 0, 3)
    assert made_arrays["y"].tobytes() == expected.tobytes()
    assert made_arrays["y"].dtype == x.dtype
    assert made_arrays["s"].tobytes() == given_arrays["s"].tobytes()
    assert made_arrays["s"].shape == (1,)
    assert made_arrays["e"].shape == (0,)
    back = made.inverse()(made_arrays)
    assert back["x"].tobytes() == x.tobytes()
    assert back["s"].shape == ()


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", ">u8", ">c8", ">c16"])
def test_big_endian_numbers_keep_their_bits(dtype: str) -> None:
    made = small("f.B")
    native = np.dtype(dtype).newbyteorder("=")
    given_arrays = {t.name: patterns(native.name, t.shape, 3) for t in made.source.tensors}
    swapped = {name: array.byteswap().view(dtype) for name, array in given_arrays.items()}
    same_bits(made(swapped), made(given_arrays))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_negation_changes_the_sign_bit_only(dtype: str) -> None:
    made = small("f.N")
    given_arrays = {t.name: patterns(dtype, t.shape, 4) for t in made.source.tensors}
    width = BITS[dtype]
    top = width(1 << (8 * np.dtype(width).itemsize - 1))
    expected = small("f.B")(given_arrays)["y"].view(width) ^ top
    assert made(given_arrays)["y"].tobytes() == expected.tobytes()
    assert made.inverse()(made(given_arrays))["x"].tobytes() == given_arrays["x"].tobytes()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_negation_of_complex_numbers_turns_both_parts(dtype: str) -> None:
    made = small("f.N")
    given_arrays = {t.name: np.full(t.shape, 3 - 2j, dtype) for t in made.source.tensors}
    np.testing.assert_array_equal(made(given_arrays)["y"], np.full((15, 3), -3 + 2j, dtype))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float8_e4m3fnuz", "float8_e8m0fnu"])
def test_negation_of_what_has_no_sign_bit_is_refused(dtype: str) -> None:
    made = small("f.N")
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    with pytest.raises(ConversionError, match=f"^values of dtype {kind} are not stored negated$"):
        made({t.name: np.zeros(t.shape, kind) for t in made.source.tensors})


def outs(made: Plan, dtype: str, order: str) -> dict[str, np.ndarray]:
    """Destinations, full of another number."""
    found = {}
    for tensor in made.target.tensors:
        shape = tensor.shape if order == "C" else (*tensor.shape, 2)
        base = np.full(shape, 77, dtype)
        found[tensor.name] = base if order == "C" else base[..., 1]
    return found


@pytest.mark.parametrize("order", ["C", "strided"])
def test_results_are_written_straight_into_given_arrays(order: str) -> None:
    made = small("f.B")
    given_arrays = {t.name: patterns("float32", t.shape, 5) for t in made.source.tensors}
    out = outs(made, "float32", order)
    result = run(made, given_arrays, out)
    assert all(result.tensors[name] is out[name] for name in out)
    same_bits({n: np.ascontiguousarray(a).reshape(a.shape) for n, a in out.items()}, made(given_arrays))
    if order == "strided":
        assert (out["y"].base[..., 0] == 77).all()


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", ">f8"), ("float8_e5m2", "float32")],
)
def test_wider_destinations_are_filled_exactly(dtype: str, wider: str) -> None:
    made = small("f.B")
    given_arrays = {t.name: patterns(dtype, t.shape, 6) for t in made.source.tensors}
    out = outs(made, wider, "C")
    with np.errstate(invalid="ignore"):
        result = run(made, given_arrays, out)
        np.testing.assert_array_equal(out["y"].astype("f8"), made(given_arrays)["y"].astype("f8"))
    assert result.narrowed == {}


def test_a_narrower_destination_needs_consent() -> None:
    made = small("f.B")
    given_arrays = {t.name: np.full(t.shape, 1 / 3) for t in made.source.tensors}
    result = run(made, given_arrays, outs(made, "float32", "C"))
    assert result.narrowed["y"] == ("float64", "float32")
    assert result.exactness(made) is Exactness.ROUNDS
    with pytest.raises(ConsentError) as caught:
        consent(made, result, ())
    assert str(caught.value).splitlines()[:2] == ["the target's dtype is narrower", "  y: float64 to float32"]
    consent(made, result, {"rounds"})


def test_guards_that_fail_leave_the_destination_alone() -> None:
    source = SPECS.bind("keras.Dense", sizes={"input": 7, "output": 5})
    target = SPECS.bind("torch.Linear", {"bias": False}, sizes={"input": 7, "output": 5})
    out = {"weight": np.full((5, 7), 77.0)}
    with pytest.raises(ConversionError):
        run(plan(source, target), {"kernel": np.ones((7, 5)), "bias": np.ones(5)}, out)
    np.testing.assert_array_equal(out["weight"], np.full((5, 7), 77.0))


def test_the_text_of_a_guard() -> None:
    source = SPECS.bind("keras.Dense", sizes={"input": 7, "output": 5})
    made = plan(source, SPECS.bind("torch.Linear", {"bias": False}, sizes={"input": 7, "output": 5}))
    bias = np.array([0, 0, 0.25, 0, -1], np.float32)
    with pytest.raises(ConversionError) as caught:
        made({"kernel": np.ones((7, 5), np.float32), "bias": bias})
    assert str(caught.value).splitlines() == [
        "torch.Linear has no place for bias",
        "  keras.Dense bias: 2 of 5 values are not 0, the first at (2,): 0.25",
        "  leaving bias out would change what the layer computes",
        "  use a target form or config that has it",
    ]
    kernel = np.ones((7, 5), np.float32)
    with pytest.raises(ConsentError) as asked:
        made({"kernel": kernel, "bias": 0 * bias})
    assert str(asked.value).splitlines() == [
        "keras.Dense to torch.Linear is exact only because of the values",
        "  bias: bias is 0 everywhere and is left out",
        "  the target has no place for them",
        "  allow it with --allow conditional (allow={'conditional'} in Python)",
    ]
    np.testing.assert_array_equal(made({"kernel": kernel, "bias": 0 * bias}, allow={"conditional"})["weight"], kernel.T)


def torch_to_keras() -> Plan:
    return fit(SPECS.bind("torch.LSTM", sizes=SIZES), SPECS.form("keras.LSTM"))


def lstm_arrays(made: Plan, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {t.name: rng.normal(size=t.shape).astype(getattr(ml_dtypes, dtype, dtype)) for t in made.source.tensors}


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "float8_e4m3fn"])
def test_sums_are_rounded_once(dtype: str) -> None:
    made = torch_to_keras()
    assert made.exactness is Exactness.ROUNDS
    given_arrays = lstm_arrays(made, dtype)
    wanted = given_arrays["bias_ih_l0"].astype("f8") + given_arrays["bias_hh_l0"].astype("f8")
    bias = made(given_arrays, allow={"rounds"})["bias"]
    assert bias.tobytes() == wanted.astype(bias.dtype).tobytes()
    result = run(made, given_arrays)
    assert result.rounded["bias"] == np.abs(bias.astype("f8") - wanted).max()
    assert result.exactness(made, "kernel") is Exactness.MOVES


@pytest.mark.parametrize("zeros", ["bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_a_sum_with_zeros_is_a_copy(zeros: str, dtype: str) -> None:
    made = torch_to_keras()
    given_arrays = lstm_arrays(made, dtype)
    other = {"bias_ih_l0": "bias_hh_l0", "bias_hh_l0": "bias_ih_l0"}[zeros]
    given_arrays[zeros] = np.zeros(20, given_arrays[zeros].dtype)
    given_arrays[other] = patterns(dtype, (20,), 8)
    given_arrays[other][given_arrays[other] == 0] = 1  # which of two zeros is kept does not matter
    result = run(made, given_arrays)
    assert result.tensors["bias"].tobytes() == given_arrays[other].tobytes()
    assert result.rounded == {}
    assert result.exactness(made) is Exactness.FILLS
    consent(made, result, ())


def test_the_text_of_a_consent() -> None:
    made = torch_to_keras()
    given_arrays = lstm_arrays(made)
    with pytest.raises(ConsentError) as caught:
        made(given_arrays)
    error = run(made, given_arrays).rounded["bias"]
    assert str(caught.value).splitlines() == [
        "torch.LSTM to keras.LSTM adds stored numbers, which is not bit-reversible",
        f"  bias: rounding error up to {error:.2g}",
        "  the source stores two tensors whose sum is all that the target has a place for",
        "  allow it with --allow rounds (allow={'rounds'} in Python)",
    ]
    with pytest.raises(ConsentError, match=r"layer encoder\.rnn"):
        consent(made, run(made, given_arrays), {"conditional"}, layer="encoder.rnn")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_a_sum_too_large_for_its_dtype_is_refused_before_anything_is_written(dtype: str) -> None:
    """Infinite, or NaN where the dtype has no infinity (float8_e4m3fn); consent does not help."""
    made = torch_to_keras()
    given_arrays = lstm_arrays(made, dtype)
    largest = ml_dtypes.finfo(given_arrays["bias_ih_l0"].dtype).max
    given_arrays["bias_ih_l0"][2] = given_arrays["bias_hh_l0"][2] = largest
    shown = str(given_arrays["bias_ih_l0"][2])
    out = {t.name: np.full(t.shape, 7, given_arrays["bias_ih_l0"].dtype) for t in made.target.tensors}
    with pytest.raises(ConversionError) as caught:
        run(made, given_arrays, out)
    assert str(caught.value).splitlines() == [
        f"keras.LSTM bias: 1 of 5 sums are too large for {dtype}",
        f"  bias_ih_l0 + bias_hh_l0: the first at (2,): {shown} + {shown}",
        "  finite numbers would become infinite or NaN",
        "  store the source in a wider dtype first, as float32 or float64",
    ]
    with pytest.raises(ConversionError, match="too large"):
        made(given_arrays, allow={"rounds"})
    for array in out.values():
        np.testing.assert_array_equal(array.astype("f8"), np.full(array.shape, 7.0))


def test_infinities_and_nans_of_the_source_are_added_as_they_are() -> None:
    made = torch_to_keras()
    given_arrays = lstm_arrays(made)
    given_arrays["bias_ih_l0"][:2] = np.inf, np.nan
    result = run(made, given_arrays)
    assert result.tensors["bias"][0] == np.inf
    assert np.isnan(result.tensors["bias"][1])
    assert 0 < result.rounded["bias"] < 1e-6


def test_a_float64_sum_is_not_measured_against_itself() -> None:
    made = torch_to_keras()
    given_arrays = {name: array.astype("f8") for name, array in lstm_arrays(made).items()}
    here, there = given_arrays["bias_ih_l0"], given_arrays["bias_hh_l0"]
    here[:], there[:] = 3.0, 2.0
    assert run(made, given_arrays).rounded["bias"] == 0.0  # added, but nothing was lost
    here[3], there[3] = 1.0, 2.0**-60
    result = run(made, given_arrays)
    assert result.tensors["bias"][3] == 1.0
    assert result.rounded["bias"] == 2.0**-60


def test_three_terms_are_rounded_once() -> None:
    """1 + 2**-11 + 2**-11 rounds to 1 after each addition in float16, and to 1 + 2**-10 at the end."""
    terms = [np.array([x], np.float16) for x in (1.0, 2.0**-11, 2.0**-11)]
    assert terms[0] + terms[1] + terms[2] == 1.0  # what the test would show if each addition rounded
    summed = added(terms, np.dtype(np.float16))
    assert (summed.values[0], summed.error) == (1.0 + 2.0**-10, 0.0)
    wide = [np.array([x]) for x in (1e16, 1.0, 1.0)]
    assert added(wide, np.dtype(np.float64)).error == 2.0  # two numbers of 1.0 are lost in turn


def test_sums_of_complex_numbers_keep_both_parts() -> None:
    made = torch_to_keras()
    given_arrays = {t.name: np.full(t.shape, 1 + 2j, np.complex64) for t in made.source.tensors}
    np.testing.assert_array_equal(made(given_arrays, allow={"rounds"})["bias"], np.full(20, 2 + 4j, np.complex64))


def test_arrays_that_do_not_fit_are_all_named() -> None:
    made = fit(SPECS.bind("keras.Dense", sizes={"input": 7, "output": 5}), SPECS.form("torch.Linear"))
    with pytest.raises(Problems) as caught:
        made({"kernel": np.ones((5, 7)), "gamma": np.ones(5)})
    assert str(caught.value).splitlines() == [
        "the arrays do not fit the plan:",
        "BindError: kernel has shape (5, 7), the plan is for (7, 5)",
        "  keras.Dense",
        "BindError: keras.Dense needs the tensor bias (5,)",
        "BindError: keras.Dense has no tensor gamma",
    ]
    with pytest.raises(BindError, match=r"torch\.Linear needs the tensor bias"):
        run(made, {"kernel": np.ones((7, 5)), "bias": np.ones(5)}, {"weight": np.ones((5, 7))})


def test_arrays_without_numbers_are_refused_by_name() -> None:
    made = fit(SPECS.bind("keras.Dense", sizes={"input": 7, "output": 5}), SPECS.form("torch.Linear"))
    text, objects = np.full((7, 5), "a"), np.full(5, None)
    with pytest.raises(Problems) as caught:
        made({"kernel": text, "bias": objects})
    assert str(caught.value).splitlines() == [
        "the arrays do not fit the plan:",
        "BindError: kernel has dtype <U1: numbers are needed",
        "  keras.Dense",
        "BindError: bias has dtype object: numbers are needed",
        "  keras.Dense",
    ]
    with pytest.raises(BindError, match="kernel is a list that is no array"):
        made({"kernel": [[1.0], [2.0, 3.0]], "bias": np.ones(5)})
    with pytest.raises(Problems, match="weight is a list: arrays are needed to write into"):
        run(made, {"kernel": np.ones((7, 5)), "bias": np.ones(5)}, {"weight": [1], "bias": [1]})
    found = made({"kernel": np.ones((7, 5)), "bias": [2.0, 3.0, 5.0, 7.0, 11.0]})
    np.testing.assert_array_equal(found["bias"], [2.0, 3.0, 5.0, 7.0, 11.0])


def test_dtypes_without_a_common_one_are_named() -> None:
    made = torch_to_keras()
    given_arrays = lstm_arrays(made)
    given_arrays["bias_ih_l0"] = given_arrays["bias_ih_l0"].astype(ml_dtypes.bfloat16)
    given_arrays["bias_hh_l0"] = given_arrays["bias_hh_l0"].astype(np.float16)
    with pytest.raises(ConversionError) as caught:
        run(made, given_arrays)
    assert str(caught.value).splitlines() == [
        "bfloat16 and float16 go into one tensor and have no dtype in common",
        "  bias_ih_l0: bfloat16",
        "  bias_hh_l0: float16",
        "  store both in one dtype first, as float32",
    ]


def test_sizes_beyond_64_bits_are_proved() -> None:
    sizes = {"input": 2**35 + 1, "output": 2**33}
    source, target = (SPECS.bind(name, sizes=sizes) for name in ("keras.Dense", "torch.Linear"))
    assert plan(source, target).exactness is Exactness.MOVES


def test_the_proof_notices_a_wrong_step() -> None:
    """The tests above can fail: overlaps, gaps and a source read half are each refused."""
    made = small("f.B")
    copies = [s for s in made.steps if isinstance(s, Copy) and s.target == "y"]
    others = [s for s in made.steps if s not in copies]
    for spoiled, what in (
        ([*made.steps, copies[0]], "y (15, 3) is not written exactly once"),
        ([*others, *copies[1:]], "x (3, 15) is not wholly accounted for"),
        (
            [*others, *copies[1:], Add("y", 0, (Loop("a", 9, 1),), (Term("x", 0, (1,)),))],
            "y (15, 3) is not written exactly once",
        ),
    ):
        with pytest.raises((ConversionError, Problems)) as caught:
            prove(spoiled, made.source, made.target)
        assert what in str(caught.value)


@settings(max_examples=100, derandomize=True)
@given(cases(), st.sampled_from(["layout", "dims"]))
def test_show_is_canonical(case: Case, what: str) -> None:
    from layoutx.lang.parse import parse, parse_dims
    from layoutx.lang.show import show, show_dims

    for form in case.forms:
        for tensor in form.tensors:
            layout = parse(tensor.text)
            text = show(layout)
            assert parse(text) == layout
            assert show(parse(text)) == text
            if what == "dims":
                assert parse_dims(show_dims(layout.dims)) == layout.dims
