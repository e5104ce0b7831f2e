"""torch modules run: a float64 copy, every submodule's calls, one layer alone, the module itself untouched."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ModelError, UsageError
from layoutx.verify.recording import Recording
from layoutx.verify.running import Runner, opened
from layoutx.verify.running.torch_run import doubled

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional

Array = np.ndarray[Any, Any]


class Mixed(nn.Module):
    """A shared Linear, an in-place ReLU, a ModuleList, an LSTM given its states, attention by keyword; gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.act = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([nn.Linear(5, 7), self.a])
        self.lstm = nn.LSTM(5, 3, 2, batch_first=True, bidirectional=True)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.encode = nn.TransformerEncoderLayer(6, 2, 11, batch_first=True)
        self.scale = torch.tensor(1.3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any, gain: Any = None) -> dict[str, Any]:
        y = self.act(self.a(self.blocks[1](x)))
        start = torch.full((4, x.shape[0], 3), 0.1)
        h, (last, cell) = self.lstm(y, (torch.zeros(4, x.shape[0], 3), start))
        mixed, _ = self.attend(h, h, value=h, need_weights=False)
        coded = self.encode(mixed) * (self.scale if gain is None else gain)
        return {"z": self.blocks[0](y), "coded": self.drop(coded), "states": (last, cell)}


def mixed() -> Any:
    torch.manual_seed(20261121)
    return Mixed()


def batch(*shape: int) -> Array:
    return np.random.default_rng(3).normal(size=shape)


def alone_as_recorded(runner: Runner, found: Recording) -> None:
    """Every layer alone gives what it gave in the run."""
    assert found.calls
    for call in found.calls:
        again = runner.layer(call.layer, call.inputs, call.names)
        assert len(again) == len(call.outputs)
        for left, right in zip(again, call.outputs, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-13)


def test_every_call_is_recorded_in_float64() -> None:
    model = mixed()
    runner = opened(model)
    x = batch(2, 4, 5)
    found = runner.record(x)
    assert (found.framework, found.dtype, found.note) == ("torch", "float64", "")
    assert [(c.layer, c.number) for c in found.calls if c.layer in ("a", "")] == [("a", 0), ("a", 1), ("", 0)]
    lstm, attend = found.of("lstm"), found.of("attend")
    assert lstm is not None
    assert [a.shape for a in lstm.inputs] == [(2, 4, 5), (4, 2, 3), (4, 2, 3)]
    assert [a.shape for a in lstm.outputs] == [(2, 4, 6), (4, 2, 3), (4, 2, 3)]
    assert attend is not None
    assert attend.names == ("", "", "value")
    assert found.of("encode.linear1") is not None, "the fused path of the encoder was taken"
    assert [a.shape for a in found.outputs] == [(2, 4, 7), (2, 4, 6), (4, 2, 3), (4, 2, 3)]
    alone_as_recorded(runner, found)
    with torch.no_grad():
        plain = model.eval()(torch.tensor(x, dtype=torch.float32))
    difference = np.abs(plain["coded"].numpy() - found.outputs[1]).max()
    assert 0 < difference < 1e-5


def test_a_write_in_place_does_not_reach_what_was_recorded() -> None:
    found = opened(mixed()).record(batch(2, 4, 5))
    before, after = found.of("a", 1), found.of("act")
    assert before is not None
    assert after is not None
    assert (before.outputs[0] < 0).any()
    np.testing.assert_array_equal(before.outputs[0], after.inputs[0])
    np.testing.assert_array_equal(np.maximum(before.outputs[0], 0), after.outputs[0])


@pytest.mark.parametrize(("added", "many"), [(False, 1), (True, 2)])
def test_what_a_module_writes_over_is_kept_and_not_run_again(
    added: bool, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module with `inplace` is seen before it writes; a function that writes shows only behind the run."""
    from layoutx.verify.running import torch_run

    class Block(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.line, self.norm, self.act = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=inplace)
            self.inplace = inplace

        def forward(self, x: Any) -> Any:
            y = self.norm(self.line(x))
            z = self.act(y)
            if added and self.inplace:
                z += 1.0
                return z
            return z + 1.0 if added else z

    torch.manual_seed(4)
    runs: list[bool] = []
    plain = torch_run.hooked
    monkeypatch.setattr(torch_run, "hooked", lambda *args: (runs.append(args[-1]), plain(*args))[1])
    writing = Block(True)
    calm = Block(False)
    calm.load_state_dict(writing.state_dict())
    found, expected = (opened(model).record(batch(3, 5)) for model in (writing, calm))
    assert runs[:-1] == [False, True][:many]
    for here, there in zip(found.calls, expected.calls, strict=True):
        for left, right in zip((*here.inputs, *here.outputs), (*there.inputs, *there.outputs), strict=True):
            np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(found.inputs[0], batch(3, 5))


def test_the_module_stays_as_it_is() -> None:
    model = mixed()
    model.attend.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    runner = opened(model)
    runner.record(batch(2, 4, 5))
    runner.layer("a", [batch(2, 5)])
    runner.repeat(batch(2, 4, 5))
    assert modes == [module.training for module in model.modules()]
    assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert torch.get_default_dtype() == torch.float32
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_statistics_of_a_training_model_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model[1].running_mean.normal_()
    before = model[1].running_mean.clone()
    seen = opened(model).repeat(batch(7, 3))
    assert seen is not None
    (first,), (second,), (settled,) = seen
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - settled).max() > 0.1
    assert torch.equal(before, model[1].running_mean)
    assert int(model[1].num_batches_tracked) == 0


def test_repeat_tells_dropout_and_a_model_at_inference() -> None:
    model = nn.Sequential(nn.Linear(3, 31), nn.Dropout(0.5))
    seen = opened(model).repeat(batch(7, 3))
    assert seen is not None
    assert np.abs(seen[0][0] - seen[1][0]).max() > 0
    seen = opened(model.eval()).repeat(batch(7, 3))
    assert seen is not None
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][0], seen[2][0])


def test_keywords_reach_the_model() -> None:
    runner = opened(mixed())
    x, gain = batch(2, 4, 5), batch(2, 4, 6)
    found = runner.record({"x": x, "gain": gain})
    plain = runner.record({"x": x})
    assert np.abs(found.outputs[1] - plain.outputs[1]).max() > 1e-3
    whole = found.of("")
    assert whole is not None
    assert whole.names == ("x", "gain")
    alone_as_recorded(runner, found)


def test_whole_numbers_stay_whole() -> None:
    runner = opened(nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 3)))
    found = runner.record(np.array([[1, 10, 2]]))
    call = found.of("0")
    assert call is not None
    assert call.inputs[0].dtype == np.int64
    assert found.dtype == "float64"
    alone_as_recorded(runner, found)


class Casting(nn.Module):
    """Casts to float32 in its forward: there is no float64 run of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5)

    def forward(self, x: Any) -> Any:
        return self.inner(x.to(torch.float32))


def test_a_model_that_casts_runs_in_its_own_dtype() -> None:
    found = opened(Casting()).record(batch(2, 3))
    assert found.dtype == "float32"
    assert "not in float64" in found.note
    call = found.of("inner")
    assert call is not None
    assert call.outputs[0].dtype == np.float32


def test_own_dtype_when_asked() -> None:
    assert opened(nn.Linear(3, 5)).record(batch(2, 3), double=False).dtype == "float32"
    assert opened(nn.Linear(3, 5).to(torch.bfloat16)).record(batch(2, 3)).dtype == "float64"


def test_tied_weights_stay_tied_in_the_copy() -> None:
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[1].weight = model[0].weight
    copy = opened(model).copy(True)  # type: ignore[attr-defined]
    assert copy[0].weight is copy[1].weight


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: opened(Casting()).record(batch(2, 5)), UsageError, "does not run on these inputs"),
        (lambda: opened(Casting()).layer("innr", [batch(2, 3)]), UsageError, "near it is inner"),
        (lambda: opened(Casting()).layer("inner", [batch(2, 5)]), ModelError, "inner does not run"),
        (lambda: opened(nn.LazyLinear(3)).record(batch(2, 3)), ModelError, "has no shape yet"),
        (lambda: opened(nn.Linear(3, 5, device="meta")).record(batch(2, 3)), ModelError, "has no values"),
        (lambda: opened(nn.Linear(3, 5).state_dict()), UsageError, "mapping of weights cannot be run"),
        (lambda: opened(3), UsageError, "a int cannot be run"),
    ],
)
def test_what_cannot_be_run_is_told(call: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert said in str(caught.value)


class Exported(nn.Module):
    """A Linear called twice, a container with an in-place ReLU, an LSTM, new tensors and a cast."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.first = nn.Linear(3, 5)
        self.twice = nn.Linear(5, 5)
        self.seq = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True))
        self.lstm = nn.LSTM(7, 3, batch_first=True)

    def forward(self, x: Any) -> Any:
        x = self.twice(self.twice(self.norm(self.first(x))))
        y, states = self.lstm(self.seq(x)[:, None])
        return y * torch.full((3,), 1.7), states, x.to(torch.float32)


def exported() -> tuple[Any, Any]:
    torch.manual_seed(1)
    model = Exported().eval()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2.0)
    return model, torch.export.export(model, (torch.randn(2, 3),), strict=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("from_file", [False, True])
def test_an_exported_program_runs_by_its_modules(from_file: bool, tmp_path: Any) -> None:
    model, program = exported()
    given: Any = program
    if from_file:
        given = tmp_path / "model.pt2"
        torch.export.save(program, given)
    runner = opened(given)
    (x,) = runner.inputs()
    assert x.shape == (2, 3)
    found, expected = runner.record(x), opened(model).record(x)
    assert found.dtype == "float64"
    for left, right in zip(found.outputs[:3], expected.outputs[:3], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
    for layer, number in (("first", 0), ("twice", 0), ("twice", 1), ("seq.0", 0), ("seq.1", 0), ("seq", 0)):
        call, other = found.of(layer, number), expected.of(layer, number)
        assert call is not None
        assert other is not None
        assert call.class_name == other.class_name
        np.testing.assert_allclose(call.inputs[0], other.inputs[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(call.outputs[0], other.outputs[0], rtol=0, atol=1e-12)
    assert [call.layer for call in found.calls][-1] == ""
    alone_as_recorded(runner, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_eps_of_none_stays_that_of_the_models_own_dtype(dtype: Any) -> None:
    module = nn.Sequential(nn.RMSNorm(5, dtype=dtype), nn.RMSNorm(5, eps=0.25, dtype=dtype))
    copy = doubled(deepcopy(module))
    assert [norm.eps for norm in copy] == [torch.finfo(dtype).eps, 0.25]
    assert [norm.eps for norm in module] == [None, 0.25]
    x = 1e-4 * torch.arange(1.0, 6.0)
    if dtype == torch.float32:
        np.testing.assert_allclose(copy(x.double()).detach().numpy(), module(x).detach().numpy(), rtol=1e-5)
        assert abs(nn.RMSNorm(5).double()(x.double()) - copy[0](x.double())).max() > 0.1
