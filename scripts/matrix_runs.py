"""Pairs of forms, run: a captured layer of one framework, converted, in the framework of the target.

`converted` moves the captured weights, checks the way back and that a `moves` plan is a permutation, runs the target's
own framework on the captured inputs, and compares with what the source's framework gave.

Left out: targets for another number of spatial axes, but that mlx BatchNorm is given three of them as two and gives
its two as three (the positions are all alike to it); tflite PRELU on five dimensions, which it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import ConversionError, LayoutxError, Problems
from layoutx.lang.tree import Spread
from layoutx.model.cropping import cuts, ends
from layoutx.plan.fit import fit
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import run
from layoutx.plan.steps import Drop, Exactness
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry, builtin_folder, load_registry
from layoutx.spec.schema import Form
from layoutx.verify import live
from layoutx.verify.data import canonical_data, data_order, data_sizes, rearrange
from layoutx.verify.forward.activations import activation
from layoutx.verify.layer import run_live
from layoutx.verify.probe import always_same, spatial_rank, whole_sizes
from layoutx.verify.proof import round_trip
from layoutx.verify.reference import MERGES, forward_layer
from layoutx.verify.witness import Case, bind_case, read, refinement

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "witnesses"
MAIN = ("keras", "tf_keras", "torch", "onnx")
FRAMEWORKS = (*MAIN, "flax", "nnx", "haiku", "equinox", "paddle", "mlx", "tf1", "tflite")
ONLY_KERAS_3 = (
    *("keras.GroupQueryAttention", "keras.RMSNormalization", "keras.ShiftedRMSNormalization"),
    "keras.ReversibleEmbedding",
)
ONLY_TF_KERAS = (
    *("keras.LocallyConnected1D", "keras.LocallyConnected2D", "keras.CuDNNLSTM", "keras.CuDNNGRU"),
    *("keras.Bidirectional.CuDNNLSTM", "keras.Bidirectional.CuDNNGRU"),
)
NEVER_RUN = (  # a class that TensorFlow 2 lacks, and layers of a Keras on a backend that nobody can run
    *("tf1.CudnnCompatibleGRUCell", "keras.theano.Conv1D", "keras.theano.Conv2D", "keras.theano.Conv3D"),
    *("keras.theano.Conv2DTranspose", "keras.theano.ConvLSTM2D"),
)
EINSUMS = ("keras.EinsumDense", "flax.Einsum", "nnx.Einsum")  # they want an equation
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
CONVS = ("conv", "conv_transpose", "separable_conv", "conv_lstm")
LOCAL = ("locally_connected_1d", "locally_connected_2d")
MOST_EPSILON = 1e-3  # paddle.nn.LayerNorm refuses more
MOST_CASES = 4  # of a form, where source or target is none of the main frameworks


@dataclass(frozen=True)
class Run:
    """What came of one conversion: refused, or run with this largest relative difference, or something is wrong."""

    refused: str = ""
    wrong: str = ""
    error: float = 0.0
    dtype: str = "float64"


@cache
def specs() -> Registry:
    """The project's own specs."""
    return load_registry([builtin_folder()])


def files() -> list[Path]:
    """The captured witnesses, `kind.framework.npz`."""
    return sorted(FOLDER.glob("*.npz"))


def chosen(cases: Sequence[Case], framework: str) -> list[Case]:
    """All cases between the main frameworks; of each other form so many, spread over its list."""
    if framework in MAIN and all(case.framework in MAIN for case in cases):
        return list(cases)
    by_form: dict[str, list[Case]] = {}
    for case in cases:
        by_form.setdefault(case.form, []).append(case)
    return [case for held in by_form.values() for case in held[:: math.ceil(len(held) / MOST_CASES)]]


def measure(kinds: Sequence[str]) -> dict[str, dict[str, float]]:
    """`source -> target` to the largest difference by precision, rounded up to a power of ten; of kinds, all pairs.

    Each target framework runs in processes of its own: they do not all bear each other.
    """
    found: dict[str, dict[str, float]] = {}
    for framework in FRAMEWORKS:
        tasks = [(path, framework) for path in files() if path.stem.split(".")[0] in kinds]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(runs_of, *zip(*tasks, strict=True)))
        for (path, _), (pairs, wrong) in zip(tasks, results, strict=True):
            if wrong:
                print(f"{path.stem} -> {framework}: {len(wrong)} wrong\n  " + "\n  ".join(wrong[:12]), flush=True)
            for pair, errors in pairs.items():
                held = found.setdefault(pair, {})
                for dtype, error in errors.items():
                    held[dtype] = max(error, held.get(dtype, 0.0))
        print(f"{framework}: {sum(len(pairs) for pairs, _ in results)} pairs", flush=True)
    return {pair: {dtype: rounded_up(e, dtype) for dtype, e in errors.items()} for pair, errors in found.items()}


FLOOR = {"float64": 1e-15, "float32": 1e-7}


def rounded_up(error: float, dtype: str) -> float:
    """The next power of ten; the table stays still."""
    return float(10.0 ** math.ceil(math.log10(max(error, FLOOR[dtype]))))


def runs_of(path: Path, framework: str) -> tuple[dict[str, dict[str, float]], list[str]]:
    """All runs of one file's cases in one framework: pair to largest difference by precision, and what is wrong."""
    pairs: dict[str, dict[str, float]] = {}
    wrong: list[str] = []
    if not live.available(framework):
        return pairs, wrong
    for case, form, _, found in conversions(read(path), framework):
        if found.wrong:
            wrong.append(f"{case.name} -> {framework}: {form.name}: {found.wrong}")
        elif not found.refused:
            held = pairs.setdefault(f"{case.form} -> {form.name}", {})
            held[found.dtype] = max(found.error, held.get(found.dtype, 0.0))
    return pairs, wrong


def conversions(cases: Sequence[Case], framework: str) -> Iterator[tuple[Case, Form, dict[str, Any], Run]]:
    """What came of every conversion: the chosen cases into all forms, the others where no chosen one had a place."""
    cases = [case for case in cases if not specs().form(case.form).of]
    first = chosen(cases, framework)
    others = [case for case in cases if not any(case is other for other in first)]
    held: set[tuple[str, str]] = set()
    for case in [*first, *others]:
        for form, config in targets(case, bind_case(case, specs())[0][0], framework):
            if (case.form, form.name) in held and any(case is other for other in others):
                continue
            found = attempt(case, form, config)
            if not found.refused:
                held.add((case.form, form.name))
            yield case, form, config, found


def attempt(case: Case, form: Form, config: Mapping[str, Any]) -> Run:
    """`converted`, with whatever else goes wrong told and not raised."""
    try:
        return converted(case, form, config)
    except Exception as error:
        return Run(wrong=f"{type(error).__name__}: {' | '.join(str(error).split(chr(10)))[:400]}")


def targets(case: Case, source: BoundForm, framework: str) -> Iterator[tuple[Form, dict[str, Any]]]:
    """The forms of a framework for data of this rank, and what their config has to say."""
    name = "keras" if framework == "tf_keras" else framework
    x = next(iter(case.inputs.values()))
    spread = any(isinstance(dim, Spread) for dims in data_order(source).values() for dim in dims)
    rank = x.ndim - (3 if source.kind.name == "conv_lstm" else 2) if spread else None
    for form in specs().forms_of(source.kind.name, name, by_class=True):
        if form.name in (ONLY_KERAS_3 if framework == "tf_keras" else ONLY_TF_KERAS if framework == "keras" else ()):
            continue
        if form.name in NEVER_RUN:
            continue
        if form.rank not in (None, rank) and not other_rank(case.form, rank, form):
            continue
        if form.name == "tflite.PRELU" and rank == 3:
            continue
        config = {"version": 2 if framework == "tf_keras" else 3} if name == "keras" else {}
        if rank is not None:
            config["rank"] = rank
        if form.name == case.form and framework == case.framework:
            continue
        yield form, {key: value for key, value in config.items() if key in form.config}


def other_rank(source: str, rank: int | None, target: Form) -> bool:
    """Whether a class of so many spatial axes takes data of another number: of none, or two of mlx and one of 1."""
    return (rank, target.name) == (0, "torch.BatchNorm1d") or (source, rank, target.rank) == ("mlx.BatchNorm", 2, 3)


def converted(case: Case, form: Form, config: Mapping[str, Any]) -> Run:
    """One conversion: refused, or moved, moved back, and run in the target's own framework."""
    last = {axis: f"({text})" for axis, text in refinement(case).items()}
    layers = bind_case(case, specs())
    first = layers[0][0]
    try:
        plans = [fit(source, form, config, refine=last) for source, _ in layers]
    except LayoutxError as error:
        first_problem = error.problems[0] if isinstance(error, Problems) else error
        return Run(refused=" | ".join(str(first_problem).split("\n")))
    order, native = canonical_data(first.kind.name), data_order(first)
    stored = refinement(case)
    sizes = data_sizes(first)

    def canonical(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: rearrange(
                a, native[name], order[name], sizes, labels=first.labels, refine_here=stored, refine_there=last
            )
            for name, a in arrays.items()
        }

    x = canonical(case.inputs)
    settings, keywords, changed = translated(first, form, x, last)
    results, dtypes = [], {case.dtype}
    reference = []
    for plan, (source, tensors) in zip(plans, layers, strict=True):
        try:
            target = moved(plan, tensors)
        except (ConversionError, Problems) as error:  # a guard: numbers that are not what absence means have no place
            first_problem = error.problems[0] if isinstance(error, Problems) else error
            return Run(refused=str(first_problem).split("\n")[0])
        found, dtype = run_live(
            plan.target, target, shaped(form, turned(source, x)), settings, "float64", last, last, keywords(plan.target)
        )
        if source.kind.name == "batch_norm":
            found["y"] = found["y"].reshape(x["x"].shape)
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
        return Run(wrong=f"gives {', '.join(found)}, not {', '.join(wanted)}")
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    if form.framework == "onnx" and "eps" in settings and float(np.float32(settings["eps"])) != settings["eps"]:
        tolerance = max(tolerance, 1e-7)  # ONNX keeps attributes in float32
    largest = 0.0
    for name, array in wanted.items():
        if array.shape != found[name].shape:
            return Run(wrong=f"gives {name} {found[name].shape}, not {array.shape}")
        difference = float(np.abs(array - found[name]).max()) / max(1.0, float(np.abs(array).max()))
        if not difference <= tolerance:
            return Run(wrong=f"computes another {name}: {difference:.3g}")
        largest = max(largest, difference)
    return Run(error=largest, dtype=max(dtypes, key=TOLERANCE.__getitem__))


def moved(plan: Plan, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The target's tensors; the way back is checked, and that a `moves` plan is a permutation."""
    result = run(plan, tensors)
    trip = round_trip(plan, tensors, result.tensors, result.exactness(plan))
    if plan.exactness <= Exactness.FILLS:
        assert trip.startswith("bit-exact"), trip
    if plan.exactness is Exactness.MOVES:
        dropped = {step.source for step in plan.steps if isinstance(step, Drop)}
        start, index = 1, {}
        for name, array in tensors.items():
            index[name] = np.arange(start, start + array.size, dtype=np.float64).reshape(array.shape)
            start += array.size
        numbers = [np.abs(a.reshape(-1)) for a in run(plan, index).tensors.values()]  # some change their sign
        kept = [a.reshape(-1) for name, a in index.items() if name not in dropped]
        np.testing.assert_array_equal(np.sort(np.concatenate([*numbers, []])), np.sort(np.concatenate([*kept, []])))
    return result.tensors


def turned(source: BoundForm, x: Mapping[str, Array]) -> dict[str, Array]:
    """A layer that goes backwards is, for a target that does not, the same layer on reversed time."""
    return {"x": x["x"][:, ::-1]} if source.settings.get("go_backwards") else dict(x)


def shaped(form: Form, x: Mapping[str, Array]) -> dict[str, Array]:
    """Data of three spatial axes as the two that mlx takes, and of two as three: batch_norm alone comes to this."""
    data = x.get("x")
    if form.name == "mlx.BatchNorm" and data is not None and data.ndim == 5:
        return {"x": data.reshape(data.shape[0], -1, *data.shape[3:])}
    if form.rank == 3 and data is not None and data.ndim == 4:
        return {"x": data[:, None]}
    return dict(x)


def rebound(source: BoundForm, settings: Mapping[str, Any]) -> BoundForm:
    return replace(source, settings={**source.settings, **settings})


def translated(
    source: BoundForm, form: Form, x: Mapping[str, Array], last: Mapping[str, str]
) -> tuple[dict[str, Any], Any, bool]:
    """Settings for the target, a function to its own keywords, and whether they are not the source's (the target
    cannot say the same: then stride 1 and no padding, and the source is computed anew by the witnessed reference)."""
    kind, rank = source.kind.name, spatial_rank(source)
    eps = source.settings.get("eps")
    settings: dict[str, Any] = (
        {"eps": float(np.finfo(np.float64).eps) if eps is None else eps} if "eps" in source.settings else {}
    )
    if form.name == "paddle.LayerNorm" and settings["eps"] > MOST_EPSILON:
        return {"eps": MOST_EPSILON}, lambda target: {}, True
    if kind in LOCAL:
        settings = {"strides": source.settings.get("strides", 1), "padding": "valid"}
    if kind not in CONVS:
        return settings, lambda target: einsum(target, last), False

    def each(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, (list, tuple)) else (1 if value is None else int(value),) * rank

    strides, dilation = each(source.settings.get("strides")), each(source.settings.get("dilation"))
    extra = source.settings.get("output_padding")
    words = padding_words(source, form, rank, strides, extra) if form.framework in MAIN else None
    undilated = form.framework == "keras" and kind == "conv_transpose"  # not on a CPU
    undilated = max(dilation) > 1 and (undilated or "dilation" not in form.settings)
    padding = "same" if always_same(form) else "valid"
    plain = {"strides": (1,) * rank, "padding": padding, "dilation": (1,) * rank if undilated else dilation}
    if words is None or undilated:
        return {**plain, "output_padding": None}, lambda target: {}, True
    own = {"padding": words} if form.framework != "onnx" else words
    if form.framework == "onnx" and kind == "conv_transpose" and source.settings.get("padding") in ("valid", "same"):
        own = cropped(source, rank, strides, dilation, None if extra is None else each(extra))
    elif extra is not None and kind == "conv_transpose" and (any(each(extra)) or form.by_class):
        own["output_padding"] = list(each(extra))
    settings = {"strides": strides, "dilation": dilation, "padding": "valid"}
    return settings, lambda target: own, False


def padding_words(source: BoundForm, form: Form, rank: int, strides: tuple[int, ...], extra: Any) -> Any:
    """The source's padding as the target says it; None where it cannot."""
    padding, kind = source.settings.get("padding"), source.kind.name
    if padding is None or padding == 0:
        padding = "valid"
    if form.by_class:  # layoutx.torch takes Keras' words, and means by them what Keras does
        if kind == "conv_transpose" and source.form.framework != "keras":
            return None
        return padding if padding in ("valid", "same") or (padding == "causal" and form.rank == 1) else None
    if isinstance(padding, int):
        padding = [padding] * rank
    if not isinstance(padding, str):
        flat = list(padding) * 2 if len(padding) == rank else list(padding)
        if isinstance(padding[0], (list, tuple)):
            flat = [number for end in zip(*padding, strict=True) for number in end]
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
    if padding == "same" and form.framework == "onnx":
        return {"auto_pad": "SAME_UPPER"}  # of a transposed one, see cropped
    return "same" if padding == "same" and kind == "conv" and set(strides) == {1} else None


def cropped(
    source: BoundForm, rank: int, strides: Sequence[int], dilation: Sequence[int], extra: Sequence[int] | None
) -> dict[str, Any]:
    """Keras' names as the numbers of ONNX, whose own names come to something else where a stride is the longer."""
    kernel = [source.sizes[axis] for axis in source.kind.spread[rank]]
    cut = cuts(kernel, strides, dilation, extra)
    if source.settings["padding"] == "valid":
        cut = [min(c, 0) for c in cut] if extra is None else [-e for e in extra]
    front, end, more = ends(cut)
    return {"pads": front + end, "output_padding": more}


def einsum(target: BoundForm, last: Mapping[str, str]) -> dict[str, Any]:
    """The plain equation, where the target's own constructor wants one: refined axes stand there as one."""
    if target.form.name not in EINSUMS:
        return {}
    plain, sizes = "ab,bc->ac", whole_sizes(target, last)
    shape = [sizes["input"], sizes["output"]]
    biased = any(t.name == "bias" for t in target.tensors)
    if target.form.name == "keras.EinsumDense":
        return {"equation": plain, "output_shape": shape[1], **({"bias_axes": "c"} if biased else {})}
    if target.form.name == "flax.Einsum":
        return {"einsum_str": plain, "shape": shape}
    return {"einsum_str": plain, "kernel_shape": shape, **({"bias_shape": shape[1:]} if biased else {})}
