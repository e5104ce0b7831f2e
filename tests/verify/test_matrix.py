"""Every kind, every ordered pair of forms over keras 3, tf_keras 2, torch and onnx, every witness: refused with a known
reason, or the way back gives the same bits and the target's own framework computes what the source's did.

Left out: targets for another number of spatial axes; EinsumDense as a target except of the equation ab,bc->ac;
PReLU with one slope for all channels of several (the data of no other form says that).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.lang.tree import Spread
from layoutx.plan.fit import fit
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import run
from layoutx.plan.steps import Drop, Exactness
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import builtin_folder, load_registry
from layoutx.spec.schema import Form
from layoutx.verify import live
from layoutx.verify.data import canonical_data, data_order, rearrange
from layoutx.verify.forward.activations import activation
from layoutx.verify.layer import run_live
from layoutx.verify.probe import spatial_rank
from layoutx.verify.proof import round_trip
from layoutx.verify.reference import MERGES, forward_layer
from layoutx.verify.witness import Case, bind_case, read, refinement
from tests.verify.refusals import refusal

FILES = sorted((Path(__file__).resolve().parent.parent / "witnesses").glob("*.npz"))
FRAMEWORKS = ("keras", "tf_keras", "torch", "onnx")
ONLY_KERAS_3 = ("keras.GroupQueryAttention", "keras.RMSNormalization")
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
CONVS = ("conv", "conv_transpose", "separable_conv")
REG = load_registry([builtin_folder()])


def targets(case: Case, source: BoundForm, framework: str) -> Iterator[tuple[Form, dict[str, Any]]]:
    """The forms of a framework for data of this rank, and what their config has to say."""
    name = "keras" if framework == "tf_keras" else framework
    x = next(iter(case.inputs.values()))
    spread = any(isinstance(dim, Spread) for dims in data_order(source).values() for dim in dims)
    rank = x.ndim - 2 if spread else None
    for form in REG.forms_of(source.kind.name, name):
        if framework == "tf_keras" and form.name in ONLY_KERAS_3:
            continue
        if form.rank is not None and rank != form.rank and not (rank == 0 and form.name == "torch.BatchNorm1d"):
            continue
        if form.name == "keras.EinsumDense" and "equation" in case.config:
            continue
        if source.kind.name == "prelu" and source.sizes["channel"] == 1:
            continue
        config = {"version": 2 if framework == "tf_keras" else 3} if name == "keras" else {}
        if source.kind.name == "prelu":
            config["rank"] = rank
        if form.name == case.form and framework == case.framework:
            continue
        yield form, {key: value for key, value in config.items() if key in form.config}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_pairs(path: Path, framework: str) -> None:
    if not live.available(framework):
        pytest.skip(f"{framework} is not installed")
    wrong = []
    for case in read(path):
        for form, config in targets(case, bind_case(case, REG)[0][0], framework):
            try:
                found = converted(case, form, config)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            if found:
                wrong.append(f"{case.name} -> {framework}: {form.name}: {found}")
    assert wrong == [], f"{len(wrong)} conversions"


def converted(case: Case, form: Form, config: Mapping[str, Any]) -> str:
    """What is wrong with one conversion; "" where it is refused as expected, or proved."""
    last = {axis: f"({text})" for axis, text in refinement(case).items()}
    layers = bind_case(case, REG)
    first = layers[0][0]
    why = refusal(first, form.name, config)
    try:
        plans = [fit(source, form, config, refine=last) for source, _ in layers]
    except LayoutxError as error:
        return "" if why else f"is refused: {' | '.join(str(error).split(chr(10)))}"
    if why:
        return f"is not refused, though {why}"
    order, native = canonical_data(first.kind.name), data_order(first)
    stored = refinement(case)
    sizes = {} if first.kind.name == "prelu" else dict(first.sizes)

    def canonical(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: rearrange(
                a, native[name], order[name], sizes, labels=first.labels, refine_here=stored, refine_there=last
            )
            for name, a in arrays.items()
        }

    x = canonical(case.inputs)
    settings, keywords, changed = translated(first, form, x)
    results, dtypes = [], {case.dtype}
    reference = []
    for plan, (source, tensors) in zip(plans, layers, strict=True):
        target = moved(plan, tensors)
        found, dtype = run_live(
            plan.target, target, turned(source, x), settings, "float64", last, last, keywords(plan.target)
        )
        dtypes.add(dtype)
        if source.settings.get("activation") is not None:
            found["y"] = activation(str(source.settings["activation"]))(found["y"])
        results.append(found)
        if changed:
            reference.append(forward_layer(rebound(source, settings), tensors, x, last, dtype="float64"))
        x = {"x": found["y"]}
    merge = MERGES.get(str(first.settings.get("merge_mode")))
    y = results[-1]["y"]
    found = {"y": y if merge is None else np.asarray(merge(y.reshape(*y.shape[:2], 2, -1), axis=2))}
    found |= {name: np.concatenate([r[name] for r in results]) for name in results[0] if name != "y"}
    if changed:
        wanted = dict(reference[-1])
    else:
        wanted = {"y": case.outputs["y"]} if merge is not None else canonical({"y": case.outputs["y"]})
        wanted |= {k: a if first.form.each else canonical({k: a})[k] for k, a in case.outputs.items() if k != "y"}
    if found.keys() != wanted.keys():
        return f"gives {', '.join(found)}, not {', '.join(wanted)}"
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    if form.framework == "onnx" and "eps" in settings and float(np.float32(settings["eps"])) != settings["eps"]:
        tolerance = max(tolerance, 1e-7)  # ONNX keeps attributes in float32
    for name, array in wanted.items():
        if array.shape != found[name].shape:
            return f"gives {name} {found[name].shape}, not {array.shape}"
        difference = float(np.abs(array - found[name]).max()) / max(1.0, float(np.abs(array).max()))
        if not difference <= tolerance:
            return f"computes another {name}: {difference:.3g}"
    return ""


def moved(plan: Plan, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The target's tensors; the way back is checked, and that a `moves` plan is a permutation."""
    result = run(plan, tensors)
    trip = round_trip(plan, tensors, result.tensors, result.exactness(plan))
    if plan.exactness <= Exactness.FILLS:
        assert trip.startswith("bit-exact"), trip
    if plan.exactness is Exactness.MOVES:
        dropped = {step.source for step in plan.steps if isinstance(step, Drop)}
        start, index = 0, {}
        for name, array in tensors.items():
            index[name] = np.arange(start, start + array.size, dtype=np.int64).reshape(array.shape)
            start += array.size
        numbers = [a.reshape(-1) for a in run(plan, index).tensors.values()]
        kept = [a.reshape(-1) for name, a in index.items() if name not in dropped]
        np.testing.assert_array_equal(np.sort(np.concatenate([*numbers, []])), np.sort(np.concatenate([*kept, []])))
    return result.tensors


def turned(source: BoundForm, x: Mapping[str, Array]) -> dict[str, Array]:
    """A layer that goes backwards is, for a target that does not, the same layer on reversed time."""
    return {"x": x["x"][:, ::-1]} if source.settings.get("go_backwards") else dict(x)


def rebound(source: BoundForm, settings: Mapping[str, Any]) -> BoundForm:
    from dataclasses import replace

    return replace(source, settings={**source.settings, **settings})


def translated(source: BoundForm, form: Form, x: Mapping[str, Array]) -> tuple[dict[str, Any], Any, bool]:
    """Settings for the target, a function to its own keywords, and whether they are not the source's (the target
    cannot say the same: then stride 1 and no padding, and the source is computed anew by the witnessed reference)."""
    kind, rank = source.kind.name, spatial_rank(source)
    eps = source.settings.get("eps")
    settings: dict[str, Any] = (
        {"eps": float(np.finfo(np.float64).eps) if eps is None else eps} if "eps" in source.settings else {}
    )
    if kind not in CONVS:
        return settings, lambda target: einsum(target), False

    def each(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, (list, tuple)) else (1 if value is None else int(value),) * rank

    strides, dilation = each(source.settings.get("strides")), each(source.settings.get("dilation"))
    extra = source.settings.get("output_padding")
    words = padding_words(source, form, rank, strides, extra)
    dilated_on_cpu = form.framework == "keras" and kind == "conv_transpose" and max(dilation) > 1
    plain = {"strides": (1,) * rank, "padding": "valid", "dilation": (1,) * rank if dilated_on_cpu else dilation}
    if words is None or dilated_on_cpu:
        return {**plain, "output_padding": None}, lambda target: {}, True
    own = {"padding": words} if form.framework != "onnx" else words
    if extra is not None and kind == "conv_transpose" and any(each(extra)):
        own["output_padding"] = list(each(extra))
    settings = {"strides": strides, "dilation": dilation, "padding": "valid"}
    return settings, lambda target: own, False


def padding_words(source: BoundForm, form: Form, rank: int, strides: tuple[int, ...], extra: Any) -> Any:
    """The source's padding as the target says it; None where it cannot."""
    padding, kind = source.settings.get("padding"), source.kind.name
    if padding is None or padding == 0:
        padding = "valid"
    if isinstance(padding, int):
        padding = [padding] * rank
    if not isinstance(padding, str):
        flat = list(padding) * 2 if len(padding) == rank else list(padding)
        if form.framework == "onnx":
            return {"pads": flat}
        same = flat[:rank] == flat[rank:]
        return (flat[:rank] if same else None) if form.framework == "torch" else None
    if form.framework == "keras":
        # an extra row means something else to `same` of Keras; the steps are alike on all axes there
        fits = padding in ("valid", "same") or (padding == "causal" and form.class_name == "Conv1D")
        return padding if fits and extra is None and len(set(strides)) < 2 else None
    if padding == "valid":
        return {} if form.framework == "onnx" else 0
    if padding == "same" and (kind != "conv_transpose" or not extra) and form.framework == "onnx":
        return {"auto_pad": "SAME_UPPER"} if extra is None else None
    return "same" if padding == "same" and kind == "conv" and set(strides) == {1} else None


def einsum(target: BoundForm) -> dict[str, Any]:
    """The plain equation, where the target is an EinsumDense."""
    if target.form.name != "keras.EinsumDense":
        return {}
    bias = {"bias_axes": "c"} if any(t.name == "bias" for t in target.tensors) else {}
    return {"equation": "ab,bc->ac", "output_shape": target.sizes["output"], **bias}


def test_the_matrix_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that nobody expects, one that does not come, and a number that is not moved are all told."""
    pytest.importorskip("torch")
    cases = {case.name: case for path in FILES if path.stem in ("gru.keras", "lstm.keras") for case in read(path)}
    lstm, gru = REG.form("torch.LSTM"), REG.form("torch.GRU")
    before = cases["keras: keras.GRU (2, 5, 7) units=3 reset_after=false version=3"]
    plain = cases["keras: keras.LSTM (2, 5, 7) units=3 version=3"]
    assert converted(before, gru, {}) == converted(plain, lstm, {}) == ""
    monkeypatch.setattr(f"{__name__}.refusal", lambda *_: "")
    assert converted(before, gru, {}).startswith("is refused: torch.GRU cannot hold this keras.GRU")
    monkeypatch.setattr(f"{__name__}.refusal", lambda *_: "of a reason")
    assert converted(plain, lstm, {}) == "is not refused, though of a reason"
    monkeypatch.setattr(f"{__name__}.refusal", lambda *_: "")
    real = run_live
    monkeypatch.setattr(f"{__name__}.run_live", lambda bound, tensors, *rest: real(bound, spoilt(tensors), *rest))
    assert converted(plain, lstm, {}).startswith("computes another ")


def spoilt(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The first tensor with its last number changed by a thousandth."""
    found = {name: array.copy() for name, array in tensors.items()}
    next(iter(found.values())).reshape(-1)[-1] += 1e-3
    return found
