"""Keras 1's forms against its published equations, written a second time in plain NumPy (keras1_layers.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import keras1_layers as k1
import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.model.settings import carry
from layoutx.plan.plan import plan
from layoutx.spec.registry import registry
from layoutx.verify.witness import Case, bind_case, check

Array = np.ndarray
BATCH, TIME, IN, HIDDEN, ROWS, COLS = 2, 5, 3, 7, 3, 5  # a kernel of 3 by 5; images of 7 by 11
# releases of Keras 1.0, their backend, and whose equation they compute: that of Theano in 1.0.(6, 7), or 1.0.8's
OLD_NORMALIZATIONS = (
    ("1.0.0", "tensorflow", 5), ("1.0.5", "theano", 5), ("1.0.6", "theano", 6), ("1.0.6", "tensorflow", 8),
    ("1.0.7", "theano", 7), ("1.0.7", "tensorflow", 8),
)  # fmt: skip
GATES = {"lstm": "icfo", "gru": "zrh"}


def recurrent(kind: str, gates: str) -> dict[str, tuple[int, ...]]:
    shapes = {"W": (IN, HIDDEN), "U": (HIDDEN, HIDDEN), "b": (HIDDEN,)}
    if not gates:
        return shapes
    if gates == "gpu":
        many = len(GATES[kind])
        return {name: (*shape[:-1], many * HIDDEN) for name, shape in shapes.items()}
    return {f"{name}_{g}": shape for g in gates for name, shape in shapes.items()}


def image(ordering: str, channels: int) -> tuple[int, ...]:
    return (BATCH, channels, 7, 11) if ordering == "th" else (BATCH, 7, 11, channels)


def kernel(ordering: str, out: int, into: int) -> tuple[int, ...]:
    return (out, into, ROWS, COLS) if ordering == "th" else (ROWS, COLS, into, out)


def both(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{side}_layer/{name}": shape for side in ("forward", "backward") for name, shape in shapes.items()}


def made(
    form: str,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    x: tuple[int, ...] | Array,
    run: Callable[..., Any],
) -> Case:
    """Random weights, those of a normalisation positive, and what the replayed equations make of a random input."""
    rng = np.random.default_rng(sum(map(ord, form)) + len(config))
    w = {name: rng.normal(0, 0.6, shape) for name, shape in shapes.items()}
    if "running_std" in w:
        w = {name: np.abs(array) + 0.2 for name, array in w.items()}
    data = rng.normal(0, 1.3, x) if isinstance(x, tuple) else x
    return Case(f"keras1.{form}", config, {}, w, {"x": data}, run(w, data), "keras1", "1.2.2", "float64")


def recurrents() -> Iterator[Case]:
    x = (BATCH, TIME, IN)
    yield made("SimpleRNN", {}, recurrent("", ""), x, k1.simple_rnn)
    yield made("Bidirectional.SimpleRNN", {}, both(recurrent("", "")), x, partial(k1.bidirectional, k1.simple_rnn))
    for kind, run in (("lstm", k1.lstm), ("gru", k1.gru)):
        for how in ("cpu", "mem", "gpu"):
            shapes, config = recurrent(kind, "gpu" if how == "gpu" else GATES[kind]), {"consume_less": how}
            yield made(kind.upper(), config, shapes, x, run)
            yield made(f"Bidirectional.{kind.upper()}", config, both(shapes), x, partial(k1.bidirectional, run))
    for ordering in ("tf", "th"):
        for backend in ("tensorflow", "theano"):
            shape = (BATCH, 3, *image(ordering, 2)[1:])
            arrays = {f"{a}_{g}": kernel(ordering, 3, n) for g in "icfo" for a, n in (("W", 2), ("U", 3))}
            names = {f"{a}_{g}": (3,) if a == "b" else arrays[f"{a}_{g}"] for g in "icfo" for a in "WUb"}
            config = {"dim_ordering": ordering, "backend": backend}
            yield made("ConvLSTM2D", config, names, shape, partial(k1.conv_lstm2d, ordering=ordering, backend=backend))


def convolutions() -> Iterator[Case]:
    for backend in ("tensorflow", "theano"):
        for release in ("1.0.0", "1.0.8", "1.1.0", "1.2.2"):
            old = release.startswith("1.0")
            shapes = {"W": (HIDDEN, IN, 5, 1) if old else (5, 1, IN, HIDDEN), "b": (HIDDEN,)}
            config = {"backend": backend, "release": release}
            yield made(
                "Convolution1D", config, shapes, (BATCH, 11, IN), partial(k1.convolution1d, backend=backend, old=old)
            )
        config = {"backend": backend, "atrous_rate": 2}
        atrous = partial(k1.convolution1d, backend=backend, old=False, rate=2)
        yield made("AtrousConvolution1D", config, {"W": (3, 1, IN, HIDDEN), "b": (HIDDEN,)}, (BATCH, 11, IN), atrous)
        for ordering in ("tf", "th"):
            config, how = {"dim_ordering": ordering, "backend": backend}, {"ordering": ordering, "backend": backend}
            shapes, x = {"W": kernel(ordering, 7, IN), "b": (7,)}, image(ordering, IN)
            yield made("Convolution2D", config, shapes, x, partial(k1.convolution2d, **how))
            yield made(
                "AtrousConvolution2D", {**config, "atrous_rate": 2}, shapes, x, partial(k1.convolution2d, **how, rate=2)
            )
            # the weights of a Deconvolution2D are those of a Convolution2D; output_shape is (None, 15, 25, 7)
            deconv = {**config, "subsample": 2}
            yield made("Deconvolution2D", deconv, shapes, x, partial(k1.deconvolution2d, **how, stride=2))
            if backend == "tensorflow":
                same = {**config, "border_mode": "same"}
                yield made("Convolution2D", same, shapes, x, partial(k1.convolution2d, **how, same=True))
    for ordering in ("tf", "th"):
        depth, point = ((ROWS, COLS, IN, 2), (1, 1, 6, 7)) if ordering == "tf" else ((2, IN, ROWS, COLS), (7, 6, 1, 1))
        shapes = {"depthwise_kernel": depth, "pointwise_kernel": point, "b": (7,)}
        config = {"dim_ordering": ordering, "depth_multiplier": 2}
        run = partial(k1.separable_convolution2d, ordering=ordering)
        yield made("SeparableConvolution2D", config, shapes, image(ordering, IN), run)
        config = {"nb_row": ROWS, "nb_col": COLS, "dim_ordering": ordering, "output_shape": [5, 7]}
        shapes = {"W": (35, ROWS * COLS * IN, 2)} | ({"b": (5, 7, 2)} if ordering == "tf" else {})
        run = partial(k1.locally_connected2d, ordering=ordering, size=(ROWS, COLS))
        yield made("LocallyConnected2D", {**config, "bias": ordering == "tf"}, shapes, image(ordering, IN), run)
    shapes = {"W": (7, 5 * IN, 2), "b": (7, 2)}
    yield made("LocallyConnected1D", {"filter_length": 5}, shapes, (BATCH, 11, IN), k1.locally_connected1d)


def others() -> Iterator[Case]:
    square = {"W": (5, 5), "W_carry": (5, 5), "b": (5,), "b_carry": (5,)}
    yield made("Highway", {"activation": "tanh", "transform_bias": -2}, square, (7, 5), k1.highway)
    yield made("MaxoutDense", {}, {"W": (2, 5, 3), "b": (2, 3)}, (7, 5), k1.maxout_dense)
    yield made("Dense", {}, {"W": (5, 3), "b": (3,)}, (7, 5), k1.dense)
    yield made("TimeDistributedDense", {}, {"W": (5, 3), "b": (3,)}, (7, 5), k1.dense)
    yield made("Embedding", {}, {"W": (5, 3)}, np.array([4, 0, 2, 3, 3, 1]), k1.embedding)
    four = dict.fromkeys(("gamma", "beta", "running_mean", "running_std"), (3,))
    for axis, shape in ((1, (2, 3, 5, 7)), (-1, (2, 5, 7, 3)), (-1, (5, 3))):
        for epsilon, release in ((1e-3, "1.2.0"), (1e-5, "1.0.8")):
            config = {"axis": axis, "epsilon": epsilon, "release": release}
            yield made(
                "BatchNormalization", config, four, shape, partial(k1.batch_normalization, axis=axis, epsilon=epsilon)
            )
        for release, backend, equation in OLD_NORMALIZATIONS:
            config = {"axis": axis, "epsilon": 0.05, "release": release, "backend": backend}
            old = partial(k1.batch_normalization, axis=axis, epsilon=0.05, theano=equation)
            yield made("BatchNormalization", config, four, shape, old)
    for shape in ((11, 5), (11, 3, 5), (11, 1, 5)):
        x = (11, 3, 5) if len(shape) == 3 else shape
        own, rank = shape[1:], {"rank": len(shape) - 2}
        yield made("PReLU", rank, {"alphas": own}, x, k1.prelu)
        yield made("SReLU", rank, dict.fromkeys(("t_left", "a_left", "t_right", "a_right"), own), x, k1.srelu)
        yield made("ParametricSoftplus", rank, {"alphas": own, "betas": own}, x, k1.parametric_softplus)


CASES = [*recurrents(), *convolutions(), *others()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_spec_computes_what_keras_1_computed(case: Case) -> None:
    assert check(case, registry()) <= 1e-12


def planted(case: Case) -> Iterator[tuple[str, Case]]:
    """One mistake each: two arrays of one shape exchanged, an axis back to front, a square matrix transposed."""
    held = dict(case.tensors)
    for one, two in combinations(held, 2):
        if held[one].shape == held[two].shape:
            yield f"{one} and {two} exchanged", replace(case, tensors={**held, one: held[two], two: held[one]})
    for name, array in held.items():
        for axis, size in enumerate(array.shape):
            if size > 1:
                yield f"{name} axis {axis} reversed", replace(case, tensors={**held, name: np.flip(array, axis)})
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            yield f"{name} transposed", replace(case, tensors={**held, name: array.T})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_in_any_array_is_seen(case: Case) -> None:
    """Maxout alone is blind to one thing, the order of its features in both arrays; one array at a time it is not."""
    tried = list(planted(case))
    assert tried
    missed = [what for what, wrong in tried if check(wrong, registry()) < 1e-6]
    assert not missed


def normalization(release: str, backend: str) -> Case:
    """The case of a release, its data (batch, feature)."""
    return next(c for c in CASES if c.config.get("release") == release and c.config.get("backend") == backend
                and c.form == "keras1.BatchNormalization" and c.inputs["x"].ndim == 2)  # fmt: skip


def test_a_standard_deviation_becomes_a_variance_and_nothing_is_added_to_it() -> None:
    case = normalization("1.0.5", "theano")
    ((source, tensors),) = bind_case(case, registry())
    target = registry().bind("torch.BatchNorm1d", {}, sizes=source.sizes)
    found = plan(source, target)
    assert "(running_std + 0.05)²: computed in float64, rounded once" in str(found)
    assert any("eps=0.0" in line for line in carry(source, target))
    moved = found(tensors, allow={"rounds"})
    np.testing.assert_allclose(moved["running_var"], (tensors["running_std"] + 0.05) ** 2, rtol=1e-15)
    config = {"eps": 0.0, "num_features": 3}
    there = replace(case, form="torch.BatchNorm1d", config=config, tensors=moved)
    assert check(there, registry()) <= 1e-12
    back = found.inverse()(moved, allow={"rounds"})
    np.testing.assert_allclose(back["running_std"], tensors["running_std"], rtol=1e-14)


def test_a_negative_standard_deviation_has_no_variance() -> None:
    ((source, tensors),) = bind_case(normalization("1.0.5", "theano"), registry())
    found = plan(source, registry().bind("torch.BatchNorm1d", {}, sizes=source.sizes))
    wrong = {**tensors, "running_std": tensors["running_std"] * [1, -1, 1]}
    with pytest.raises(LayoutxError, match="1 of 3 results are not finite"):
        found(wrong, allow={"rounds"})


def test_epsilon_added_to_the_root_is_another_function() -> None:
    """1.0.7 on Theano: (x - mean) / (sqrt(variance) + epsilon), which no other layer computes."""
    ((source, _),) = bind_case(normalization("1.0.7", "theano"), registry())
    with pytest.raises(LayoutxError, match="eps_added_to"):
        plan(source, registry().bind("torch.BatchNorm1d", {}, sizes=source.sizes))


@pytest.mark.parametrize("said", [{"release": "unknown"}, {"release": "1.0.6", "backend": "unknown"}])
def test_a_release_that_nobody_knows_is_refused(said: dict[str, str]) -> None:
    case = next(c for c in CASES if c.form == "keras1.BatchNormalization")
    with pytest.raises(LayoutxError, match=list(said)[-1]):
        check(replace(case, config={**case.config, **said}), registry())


def test_theano_pads_half_the_kernel_on_both_sides() -> None:
    """Not TensorFlow's `same` where the kernel is even: the setting says so, and is not called `same`."""
    bound = registry().bind(
        "keras1.Convolution2D", {"border_mode": "same", "backend": "theano"}, shapes={"W": (2, 2, 3, 5), "b": (5,)}
    )
    assert bound.settings["padding"] == "half"
