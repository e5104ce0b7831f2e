"""The soft update against NumPy: torch, Keras, and one from the other; ends, state, counters, ties, dtypes, speed."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="live models need keras")
torch = pytest.importorskip("torch", reason="live models need torch")
pytest.importorskip("tensorflow")

import layoutx as lx  # noqa: E402
from layoutx.errors import LayoutxError, UsageError  # noqa: E402

nn = torch.nn
TAU = 0.25


class Net(nn.Module):
    """A convolution, a norm, a stacked LSTM that reads the map's rows, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5, eps=1e-3)
        self.fc = nn.Linear(5 * 4 * 2, 7)

    def forward(self, x: Any) -> Any:
        return self.fc(self.norm(self.conv(x)).flatten(1))


def keras_net(dtype: str = "float64") -> Any:
    k = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 4, 3)),
            k.Conv2D(5, 3, name="conv", dtype=dtype),
            k.BatchNormalization(name="norm", dtype=dtype),
            k.Flatten(dtype=dtype),
            k.Dense(7, name="fc", dtype=dtype),
        ]
    )


def net(seed: int, dtype: Any = torch.float64) -> Any:
    found = Net().to(dtype)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for value in found.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(rng.uniform(0.1, 0.9, value.shape)))
            else:
                value.fill_(seed)
    return found


def keras_random(seed: int, dtype: str = "float64") -> Any:
    model, rng = keras_net(dtype), np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    return model


def state(module: Any) -> dict[str, Any]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def as_torch(model: Any) -> dict[str, Any]:
    """The Keras net's numbers under torch's names, turned by hand."""
    w = {f"{layer.name}.{v.name}": np.asarray(v) for layer in model.layers for v in layer.weights}
    return {
        "conv.weight": w["conv.kernel"].transpose(3, 2, 0, 1),
        "conv.bias": w["conv.bias"],
        "norm.weight": w["norm.gamma"],
        "norm.bias": w["norm.beta"],
        "norm.running_mean": w["norm.moving_mean"],
        "norm.running_var": w["norm.moving_variance"],
        "fc.weight": w["fc.kernel"].reshape(4, 2, 5, 7).transpose(3, 2, 0, 1).reshape(7, 40),
        "fc.bias": w["fc.bias"],
    }


def expected(old: dict[str, Any], new: dict[str, Any], tau: float) -> dict[str, Any]:
    return {name: tau * new[name] + (1 - tau) * array for name, array in old.items() if name in new}


def close(got: dict[str, Any], want: dict[str, Any]) -> None:
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=4e-16, atol=4e-16, err_msg=name)


def test_torch_from_torch() -> None:
    target, source = net(1), net(2)
    old, new = state(target), state(source)
    found = lx.blend(target, source, TAU)
    got = state(target)
    close(got, {n: a for n, a in expected(old, new, TAU).items() if "tracked" not in n})
    assert got["norm.num_batches_tracked"] == 2
    assert set(found.copied) == {"norm.num_batches_tracked"}
    assert set(found.blended) | set(found.copied) | set(found.kept) == set(old)
    assert not np.allclose(got["fc.weight"], old["fc.weight"])
    for name, array in state(source).items():
        np.testing.assert_array_equal(array, new[name])


def test_torch_from_keras() -> None:
    target, source = net(1), keras_random(2)
    old = state(target)
    found = lx.blend(target, source, TAU)
    got = state(target)
    close(got, expected(old, as_torch(source), TAU))
    assert got["norm.num_batches_tracked"] == 1
    assert found.kept == {"norm.num_batches_tracked": "a counter that the source does not have"}


def test_keras_from_torch() -> None:
    target, source = keras_random(1), net(2)
    old = as_torch(target)
    lx.blend(target, source, TAU)
    close(as_torch(target), expected(old, state(source), TAU))


def test_keras_from_keras() -> None:
    target, source = keras_random(1), keras_random(2)
    old = as_torch(target)
    lx.blend(target, source, TAU)
    close(as_torch(target), expected(old, as_torch(source), TAU))


def test_tf_keras() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    k = tf_keras.layers
    models = [tf_keras.Sequential([k.Input((3,)), k.Dense(5, name="a"), k.Dense(2, name="b")]) for _ in range(2)]
    old, new = ([w.numpy() for w in model.weights] for model in models)
    lx.blend(*models, TAU)
    for was, other, now in zip(old, new, models[0].weights, strict=True):
        np.testing.assert_allclose(now.numpy(), TAU * other + (1 - TAU) * was, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("make", [(net, net), (keras_random, keras_random), (net, keras_random), (keras_random, net)])
def test_the_ends_are_exact(make: tuple[Callable[[int], Any], Callable[[int], Any]]) -> None:
    target, source = make[0](1), make[1](2)
    of = {True: state, False: as_torch}
    old = of[isinstance(target, nn.Module)](target)
    lx.blend(target, source, 0.0)
    for name, array in of[isinstance(target, nn.Module)](target).items():
        assert array.tobytes() == old[name].tobytes(), name
    lx.blend(target, source, 1.0)
    new = of[isinstance(source, nn.Module)](source)
    for name, array in of[isinstance(target, nn.Module)](target).items():
        if name in new:
            assert np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(new[name]).tobytes(), name


@pytest.mark.parametrize("state_", ["blend", "copy", "keep"])
@pytest.mark.parametrize("make", [net, keras_random])
def test_state(state_: str, make: Callable[[int], Any]) -> None:
    target, source = net(1), make(2)
    old = state(target)
    new = state(source) if make is net else as_torch(source)
    lx.blend(target, source, TAU, state=state_)
    got = state(target)
    for name in ("norm.running_mean", "norm.running_var"):
        want = {"blend": TAU * new[name] + (1 - TAU) * old[name], "copy": new[name], "keep": old[name]}[state_]
        np.testing.assert_allclose(got[name], want, rtol=4e-16, err_msg=name)
    np.testing.assert_allclose(
        got["norm.weight"], TAU * new["norm.weight"] + (1 - TAU) * old["norm.weight"], rtol=4e-16
    )
    counted = {"blend": 2, "copy": 2, "keep": 1}[state_] if make is net else 1
    assert got["norm.num_batches_tracked"] == counted


@pytest.mark.parametrize("tau", [1e-3, 0.5, 0.999])
def test_many_steps(tau: float) -> None:
    target, source = net(1), net(2)
    step = lx.blender(target, source)
    want = state(target)
    for _ in range(5):
        step(tau)
        want = {**want, **expected(want, state(source), tau)}
        with torch.no_grad():
            source.conv.weight.add_(0.1)  # the source is read at each call, in place or not
    np.testing.assert_allclose(state(target)["conv.weight"], want["conv.weight"], rtol=1e-14)


def test_gates_in_another_order_and_two_biases() -> None:
    """A Keras LSTM has one bias where torch has two, of which only the sum counts."""
    k = keras.layers
    source = keras.Sequential([keras.Input((None, 3)), k.LSTM(5, name="rnn", dtype="float64")])
    rng = np.random.default_rng(4)
    for weight in source.weights:
        weight.assign(rng.normal(size=weight.shape))

    class Rnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0][:, -1]

    target = Rnn().double()
    old = state(target)
    lx.blend(target, source, TAU)
    kernel, recurrent, bias = (np.asarray(w) for w in source.weights)
    got = state(target)
    new = {"rnn.weight_ih_l0": kernel.T, "rnn.weight_hh_l0": recurrent.T}
    close(got, expected({name: old[name] for name in new}, new, TAU))
    both = [n["rnn.bias_ih_l0"] + n["rnn.bias_hh_l0"] for n in (got, old)]
    np.testing.assert_allclose(both[0], TAU * bias + (1 - TAU) * both[1], rtol=1e-14)


def test_the_sum_of_two_biases_is_blended_into_one() -> None:
    k = keras.layers
    target = keras.Sequential([keras.Input((None, 3)), k.LSTM(5, name="rnn", dtype="float64")])
    source = nn.ModuleDict({"rnn": nn.LSTM(3, 5, batch_first=True)}).double()
    old = np.asarray(target.weights[2]).copy()
    lx.blend(target, source, TAU)
    new = (source["rnn"].bias_ih_l0 + source["rnn"].bias_hh_l0).detach().numpy()
    np.testing.assert_allclose(np.asarray(target.weights[2]), TAU * new + (1 - TAU) * old, rtol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wide", [False, True])
def test_the_targets_dtype_is_kept_and_the_result_rounded_once(dtype: Any, wide: bool) -> None:
    target, source = net(1, dtype), net(2, torch.float64 if wide else dtype)
    old, new = target.fc.weight.double().detach().numpy().copy(), source.fc.weight.double().detach().numpy()
    lx.blend(target, source, TAU)
    assert target.fc.weight.dtype == dtype
    want = torch.from_numpy(TAU * new + (1 - TAU) * old).to(dtype)
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(target.fc.weight.double().detach().numpy(), want.double().numpy(), rtol=eps, atol=0)


@pytest.mark.parametrize("make", [net, keras_random])
def test_nan_spreads_and_only_a_copy_removes_it(make: Callable[[int], Any]) -> None:
    target, source = net(1), make(2)
    with torch.no_grad():
        target.fc.bias[3] = float("nan")
    lx.blend(target, source, TAU)
    assert np.flatnonzero(np.isnan(state(target)["fc.bias"])).tolist() == [3]
    lx.blend(target, source, 1.0)
    assert not np.isnan(state(target)["fc.bias"]).any()


def test_tied_parameters_are_blended_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(11, 7), nn.Linear(7, 11, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.embed(x))

    target, source = Tied().double(), Tied().double()
    old = target.embed.weight.detach().numpy().copy()
    lx.blend(target, source, TAU)
    want = TAU * source.embed.weight.detach().numpy() + (1 - TAU) * old
    np.testing.assert_allclose(target.embed.weight.detach().numpy(), want, rtol=4e-16)
    assert target.out.weight is target.embed.weight


def test_other_shapes_and_missing_layers_are_refused_and_nothing_changes() -> None:
    target, source = net(1), net(2)
    source.fc = nn.Linear(40, 9).double()
    old = state(target)
    with pytest.raises(LayoutxError, match="fc"):
        lx.blend(target, source, TAU)
    source = nn.Sequential(source, nn.Linear(9, 2).double())
    with pytest.raises(LayoutxError):
        lx.blend(target, source, TAU)
    for name, array in state(target).items():
        np.testing.assert_array_equal(array, old[name])
    found = lx.blend(target, net(3), TAU, skip=["fc"])
    assert found.kept == {"fc.weight": "left out by skip", "fc.bias": "left out by skip"}
    np.testing.assert_array_equal(state(target)["fc.weight"], old["fc.weight"])


@pytest.mark.parametrize("tau", [-0.1, 1.1, float("nan"), float("inf")])
def test_tau_is_a_share(tau: float) -> None:
    with pytest.raises(UsageError, match="tau"):
        lx.blend(net(1), net(2), tau)


def test_calls_that_are_wrong() -> None:
    with pytest.raises(UsageError, match="state"):
        lx.blender(net(1), net(2), state="drop")
    with pytest.raises(UsageError, match="does not write"):
        lx.blend({"w": np.ones(3)}, net(1), TAU)


def test_gradients_and_optimisers_go_on() -> None:
    target, source = net(1), net(2)
    optimiser = torch.optim.SGD(source.parameters(), lr=0.1)
    step = lx.blender(target, source)
    for _ in range(3):
        source(torch.ones(4, 3, 6, 4, dtype=torch.float64)).square().mean().backward()
        optimiser.step()
        old, new = state(target), state(source)
        step(TAU)
        close(state(target), {"fc.weight": expected(old, new, TAU)["fc.weight"]})
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in target.parameters())


def test_replaced_parameters_are_noticed() -> None:
    target, source = net(1), net(2)
    step = lx.blender(target, source)
    source.load_state_dict(copy.deepcopy(source.state_dict()), assign=True)
    with pytest.raises(UsageError, match="other parameters"):
        step(TAU)
    old = state(target)
    lx.blend(target, source, TAU)
    target.fc = copy.deepcopy(target.fc)
    lx.blend(target, source, TAU)
    want = expected(expected(old, state(source), TAU), state(source), TAU)
    close(state(target), {"fc.weight": want["fc.weight"]})


def test_memory_that_moves_is_followed() -> None:
    target, source = net(1), net(2)
    step = lx.blender(target, source)
    old = state(target)
    source.fc.weight.data = source.fc.weight.data.clone() + 1
    step(TAU)
    close(state(target), {"fc.weight": expected(old, state(source), TAU)["fc.weight"]})


def test_models_are_not_kept_alive() -> None:
    target, source = net(1), net(2)
    lx.blend(target, source, TAU)
    held = weakref.ref(target)
    del target
    gc.collect()
    assert held() is None


def test_as_fast_as_a_loop_by_hand() -> None:
    """The loop that is written by hand in every agent, against a blender; medians of turns, the best of five."""

    def mlp() -> Any:
        return nn.Sequential(nn.Linear(17, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))

    target, source = mlp(), mlp()
    step = lx.blender(target, source)

    def by_hand() -> None:
        with torch.no_grad():
            for p, q in zip(target.parameters(), source.parameters(), strict=True):
                p.lerp_(q, 0.005)

    def seconds(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        for _ in range(200):
            call()
        return time.perf_counter() - started

    calls: tuple[Callable[[], Any], ...] = (by_hand, lambda: step(0.005), lambda: lx.blend(target, source, 0.005))
    for call in calls:
        seconds(call)
    turns = [[seconds(call) for call in calls] for _ in range(5)]
    hand, ours, cached = (min(column) for column in zip(*turns, strict=True))
    assert ours < 1.5 * hand
    assert cached < 2.0 * hand


def test_a_mapping_file_that_was_edited_pairs_anew(tmp_path: Path) -> None:
    def two(seed: int) -> Any:
        made = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
        for at, layer in enumerate(made):
            nn.init.constant_(layer.weight, 10 * seed + at)
        return made

    target, source, file = two(1), two(2), tmp_path / "map.yaml"
    for first, second in (("0", "1"), ("1", "0")):
        file.write_text(f"pairs:\n  '0': '{first}'\n  '1': '{second}'\n", encoding="utf-8")
        lx.blend(target, source, 1.0, map=file)
        found = {place: target[int(place)].weight[0, 0].item() for place in (first, second)}
        assert found == {first: 20.0, second: 21.0}
