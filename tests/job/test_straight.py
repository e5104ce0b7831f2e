"""Weights straight into a live model's memory: the plain executor's numbers, for all kinds, dtypes and strides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch modules are filled")
keras = pytest.importorskip("keras", reason="Keras models are read")
pytest.importorskip("tensorflow", reason="Keras models are built on TensorFlow")
from torch import nn  # noqa: E402

from layoutx.errors import ConsentError, ConversionError, LayoutxError, ModelError, VerificationError  # noqa: E402
from layoutx.job import straight  # noqa: E402
from layoutx.job.device import place  # noqa: E402
from layoutx.job.jobs import Job, options_of  # noqa: E402
from layoutx.job.paired import plan_pair  # noqa: E402
from layoutx.job.run import move  # noqa: E402
from layoutx.job.slots import slots_of  # noqa: E402
from layoutx.model.load import live_model  # noqa: E402
from layoutx.plan.blocks import memory  # noqa: E402
from layoutx.port import port  # noqa: E402
from layoutx.spec.registry import registry  # noqa: E402

QUIET: dict[str, Any] = {"compare": False, "verify": "none", "allow": ("rounds", "conditional")}
ZEROS = {"recurrent_initializer": "zeros", "name": "a"}  # an orthogonal matrix is not computed in bfloat16
ZOO: dict[str, tuple[tuple[int, ...], Callable[[], Any], Callable[[], Any]]] = {
    "dense": ((11,), lambda: keras.layers.Dense(7, name="a"), lambda: nn.Linear(11, 7)),
    "square": ((5,), lambda: keras.layers.Dense(5, name="a"), lambda: nn.Linear(5, 5)),
    "conv": ((13, 11, 3), lambda: keras.layers.Conv2D(7, (5, 3), name="a"), lambda: nn.Conv2d(3, 7, (5, 3))),
    "conv1d": ((13, 5), lambda: keras.layers.Conv1D(5, 5, name="a"), lambda: nn.Conv1d(5, 5, 5)),
    "lstm": ((5, 7), lambda: keras.layers.LSTM(3, **ZEROS), lambda: nn.LSTM(7, 3, batch_first=True)),
    "gru": ((5, 7), lambda: keras.layers.GRU(7, **ZEROS), lambda: nn.GRU(7, 7, batch_first=True)),
    "bn": ((11,), lambda: keras.layers.BatchNormalization(name="a"), lambda: nn.BatchNorm1d(11)),
    "embedding": ((5,), lambda: keras.layers.Embedding(13, 7, name="a"), lambda: nn.Embedding(13, 7)),
}


def keras_model(name: str) -> Any:
    """A Keras model of one layer, of random weights; variances are positive."""
    model = attention() if name == "mha" else keras.Sequential([keras.Input(ZOO[name][0]), ZOO[name][1]()])
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.5, 2, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def attention() -> Any:
    """Self-attention of two heads over seven steps."""
    x = keras.Input((7, 10))
    return keras.Model(x, keras.layers.MultiHeadAttention(2, 5, name="a")(x, x))


def module_of(name: str) -> Any:
    """Its counterpart in torch."""
    return nn.ModuleDict({"a": nn.MultiheadAttention(10, 2, batch_first=True) if name == "mha" else ZOO[name][2]()})


def planned(source: Any, target: Any) -> Job:
    """The job between two models."""
    known = registry()
    return plan_pair(live_model(source, known), live_model(target, known), known, options_of())


def plainly(source: Any, target: Any) -> dict[str, np.ndarray]:
    """What the plain executor makes, in the target's dtypes."""
    made = move(planned(source, target), options_of(allow=["rounds", "conditional"]), proved=())
    return {name: array.astype(slots_of(target)[name].dtype) for name, array in made.arrays.items()}


def held(target: Any) -> dict[str, np.ndarray]:
    """What the target holds."""
    return {name: np.array(slot.look()) for name, slot in slots_of(target).items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Bit for bit, for all that is expected."""
    assert expected
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


@pytest.fixture(params=["float32", "float64", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """A dtype, which Keras' layers have meanwhile."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", [*ZOO, "mha"])
def test_there_and_back_in_every_dtype(name: str, dtype: str) -> None:
    source, module = keras_model(name), module_of(name).to(getattr(torch, dtype))
    port(source, module, **QUIET)
    assert_same(held(module), plainly(source, module))
    back = keras_model(name)
    back.set_weights([0 * w for w in back.get_weights()])
    port(module, back, **QUIET)
    assert_same(held(back), plainly(module, back))
    for ours, first in zip(held(back).values(), held(source).values(), strict=True):
        assert ours.tobytes() == first.tobytes()


@pytest.mark.parametrize("name", [*ZOO, "mha"])
@pytest.mark.parametrize(("own", "wanted"), [("float32", "float64"), ("float64", "float32"), ("float32", "bfloat16")])
def test_other_dtypes(name: str, own: str, wanted: str) -> None:
    source = module_of(name).to(getattr(torch, own))
    with torch.no_grad():
        for value in source.state_dict().values():
            value.copy_(torch.rand_like(value.double()) + 0.5)
    target = module_of(name).to(getattr(torch, wanted))
    port(source, target, **QUIET)
    assert_same(held(target), plainly(source, target))


def test_a_narrower_dtype_needs_consent_and_changes_nothing_before() -> None:
    source, target = module_of("dense").double(), module_of("dense")
    before = held(target)
    with pytest.raises(ConsentError, match="narrower for 2 tensors"):
        port(source, target, compare=False, verify="none")
    with torch.no_grad():
        source["a"].weight[3, 2] = 1e300
    with pytest.raises(ConversionError, match="does not fit"):
        port(source, target, **QUIET)
    assert_same(held(target), before)


@pytest.mark.parametrize("half", [False, True])
def test_channels_last_parameters(half: bool) -> None:
    source, module = keras_model("conv"), module_of("conv").to(memory_format=torch.channels_last)
    module = module.half() if half else module
    at, strides = module["a"].weight.data_ptr(), module["a"].weight.stride()
    assert not module["a"].weight.is_contiguous()
    port(source, module, **QUIET)
    assert (module["a"].weight.data_ptr(), module["a"].weight.stride()) == (at, strides)
    assert_same(held(module), plainly(source, module))


def test_parameters_that_are_views_of_other_memory() -> None:
    """Every second column of a wider tensor; the columns between stay."""
    source, module, wide = keras_model("dense"), module_of("dense"), torch.full((7, 22), 9.0)
    module["a"].weight = nn.Parameter(wide[:, ::2])
    module["a"].bias = nn.Parameter(torch.ones(1).expand(7).clone(), requires_grad=False)
    port(source, module, **QUIET)
    assert_same(held(module), plainly(source, module))
    assert torch.equal(wide[:, ::2], module["a"].weight)
    assert torch.equal(wide[:, 1::2], torch.full((7, 11), 9.0))


def test_what_has_one_number_for_many_is_refused_by_torch_itself() -> None:
    source, module = keras_model("dense"), module_of("dense")
    module["a"].bias = nn.Parameter(torch.ones(1).expand(7))
    with pytest.raises(RuntimeError, match="single memory location"):
        port(source, module, compare=False)


def test_a_module_without_memory_is_refused() -> None:
    with torch.device("meta"):
        module = module_of("dense")
    with pytest.raises(ModelError, match="has no values"):
        port(keras_model("dense"), module, **QUIET)


def test_autograd_notices_the_change() -> None:
    """A graph that saved a parameter does not compute gradients with other numbers than it was run with."""
    source, module = keras_model("dense"), module_of("dense")
    module["a"].bias.requires_grad_(False)
    x = torch.randn(3, 11, requires_grad=True)
    y = module["a"](x).sum()
    port(source, module, **QUIET)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    assert module["a"].weight.requires_grad
    assert not module["a"].bias.requires_grad
    module["a"](x).sum().backward()


def test_inference_tensors_have_no_version() -> None:
    with torch.inference_mode():
        module = module_of("dense")
    port(keras_model("dense"), module, **QUIET)
    assert_same(held(module), plainly(keras_model("dense"), module))


def test_tied_parameters_are_written_once_and_may_not_differ() -> None:
    def tied() -> Any:
        found = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
        found["b"].weight = found["a"].weight
        return found

    source, target = tied(), tied()
    port(source, target, **QUIET)
    assert torch.equal(target["a"].weight, source["a"].weight)
    apart = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, name="a"), keras.layers.Dense(5, name="b")])
    before = held(target)
    for verify in ("none", "bytes", "layers"):
        for one in (apart, model):
            with pytest.raises(LayoutxError):
                port(one, target, compare=False, verify=verify)
    assert_same(held(target), before)


def test_a_trained_keras_model_trains_on_after_a_port() -> None:
    """The variables' memory is theirs: an optimizer changes it, and nobody else's arrays with it."""
    module, model = module_of("dense"), keras_model("dense")
    port(module, model, **QUIET)
    ported = [np.array(w) for w in model.get_weights()]
    assert_same(held(model), plainly(module, model))
    view = next(iter(slots_of(model).values())).look()
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 11), "float32"), np.zeros((4, 7), "float32"), verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(ported, model.get_weights(), strict=True))
    np.testing.assert_array_equal(view, ported[0])
    np.testing.assert_array_equal(ported[0], module["a"].weight.detach().numpy().T)


@pytest.mark.parametrize("verify", ["bytes", "layers"])
def test_a_failing_comparison_restores_every_bit(verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's own numbers come back, NaN payloads and all, when what it holds is not what was made."""
    source, module = keras_model("conv"), module_of("conv")
    with torch.no_grad():
        module["a"].weight.view(torch.int32)[0, 0] = 0x7FC01234
    before = held(module)
    own = straight.carry_out

    def wrong(steps: Any, to: Any, flat: Any, jobs: int = 1) -> None:
        own(steps, to, flat, jobs)
        to[0] += 1

    monkeypatch.setattr(straight, "carry_out", wrong)
    with pytest.raises(VerificationError, match="2 variables do not hold"):
        port(source, module, compare=False, verify=verify)
    assert_same(held(module), before)
    port(source, module, compare=False, verify="none")
    assert not np.array_equal(held(module)["a.weight"], before["a.weight"])


def test_models_that_compute_something_else_get_their_numbers_back() -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, activation="relu", name="a")])
    module = nn.Sequential()
    module.add_module("a", nn.Linear(5, 5))
    before = held(module)
    for verify in ("none", "auto"):
        with pytest.raises(VerificationError, match="do not compute the same"):
            port(model, module, verify=verify)
        assert_same(held(module), before)


def test_what_is_shown_at_each_level() -> None:
    source, module = keras_model("dense"), module_of("dense")
    (line,) = port(source, module, compare=False).layers
    assert line.proof.round_trip == "bit-exact"
    assert line.proof.method
    (line,) = port(source, module, compare=False, verify="bytes").layers
    assert line.proof.round_trip == "bit-exact by its plan"
    assert "compared" in line.proof.note
    (line,) = port(source, module, compare=False, verify="none").layers
    assert line.proof.note == "nothing was read back"
    with pytest.raises(LayoutxError, match="no level"):
        port(source, module, verify="some")


@pytest.mark.parametrize("name", [*ZOO, "mha"])
@pytest.mark.parametrize("last", [False, True])
def test_the_way_of_a_device(name: str, last: bool) -> None:
    """Uploaded as it lies and put in order there; here the device is the CPU."""
    source, module = keras_model(name), module_of(name)
    module = module.to(memory_format=torch.channels_last) if last and name == "conv" else module
    expected, slots = plainly(source, module), slots_of(module)
    many = 0
    for way in straight.ways(planned(source, module), slots):
        flat = {n: memory(way.layer.plan.source.tensor(n), t.read()) for n, t in way.layer.sources.items()}
        for slot, steps in way.moved.items():
            value = slots[way.layer.targets[slot]].variable
            place(value, steps, flat)
            assert_same(held(module), {way.layer.targets[slot]: expected[way.layer.targets[slot]]})
            many += 1
    assert many


def test_a_device_turns_what_lies_back_to_front() -> None:
    from layoutx.plan.steps import Copy, Fill, Loop

    steps = (
        Copy("t", "s", 0, 14, (Loop("a", 5, 3, -3), Loop("b", 3, 1, -1))),
        Copy("t", "s", 17, 2, (Loop("a", 3, -1, 1),)),
        Fill("t", 18, (Loop("a", 2, 1),), 7.0),
    )
    source, expected, value = np.arange(15.0), np.zeros(20), torch.zeros(20, dtype=torch.float64)
    straight.carry_out(steps, expected, {"s": source})
    place(value, steps, {"s": source})
    np.testing.assert_array_equal(value.numpy(), expected)
    np.testing.assert_array_equal(expected, [*range(14, -1, -1), 4, 3, 2, 7, 7])


CHILD = """
import os, sys
os.environ["KERAS_BACKEND"] = "numpy"
import torch
from torch import nn
import layoutx as lx

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(sys.argv[2])) * 1024

def pair(n, size):
    return nn.Sequential(*(nn.Conv2d(size, size, 3) for _ in range(n)))

options = dict(compare=False, verify=sys.argv[1])
lx.port(pair(2, 64), pair(2, 64), **options)  # all that is imported, is
source, target = pair(12, 512), pair(12, 512).to(memory_format=torch.channels_last)
total = sum(p.nbytes for p in target.parameters())
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
before = anonymous()
lx.port(source, target, **options)
print(anonymous() - before, total)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_no_temporary() -> None:
    """113 MB get into the target with hardly any memory beside it; where bytes are compared, with a copy of the old."""
    found = {}
    for verify in ("none", "bytes"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, verify, "VmHWM"], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        found[verify], total = (int(word) for word in done.stdout.split())
    assert found["none"] < 0.1 * total
    assert found["bytes"] > 0.9 * total  # and such a copy would be seen
