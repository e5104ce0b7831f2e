"""Chosen layers across models and frameworks: what is copied computes the same, what is kept keeps every bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="whole models need keras")
torch = pytest.importorskip("torch", reason="whole models need torch")
pytest.importorskip("tensorflow")

from safetensors.numpy import load_file, save_file  # noqa: E402

from layoutx.cli import main  # noqa: E402
from layoutx.errors import ConsentError, LayoutxError, UsageError  # noqa: E402
from layoutx.transfer import transfer  # noqa: E402

nn = torch.nn


def keras_encoder(classes: int = 11, seed: int = 3) -> Any:
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 9, 2)),
            k.Conv2D(5, 3, name="first"),
            k.BatchNormalization(name="norm", epsilon=2e-3),
            k.Conv2D(7, 3, name="second", activation="tanh"),
            k.Flatten(),
            k.Dense(classes, name="head"),
        ]
    )
    return randomised(model, seed)


def randomised(model: Any, seed: int) -> Any:
    """All numbers away from their start, variances positive; weights of a size that keeps outputs near one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 0.9, weight.shape) * (1 if "var" in weight.name else rng.choice([-1, 1])))
    return model


class Encoder(nn.Module):
    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(2, 5, 3)
        self.norm = nn.BatchNorm2d(5, eps=2e-3)
        self.conv_b = nn.Conv2d(5, 7, 3)
        self.out = nn.Linear(7 * 4 * 5, classes)

    def features(self, x: Any) -> Any:
        return torch.tanh(self.conv_b(self.norm(self.conv_a(x))))

    def forward(self, x: Any) -> Any:
        return self.out(self.features(x).flatten(1))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.other = Encoder()
        self.head = nn.Sequential(nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 3))

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(x) + self.other(x))


def state(module: Any) -> dict[str, Any]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def features(model: Any, x: Any) -> Any:
    return keras.Model(model.inputs, model.get_layer("second").output)(x).numpy()


def test_all_but_the_head_keras_to_torch() -> None:
    source, target = keras_encoder(10), Encoder(3)
    before = state(target)
    found = transfer(source, target, skip=["head", "out"])
    assert {one.place for one in found.copied} == {"conv_a", "norm", "conv_b"}
    assert found.kept == {"out.weight": "left out by skip", "out.bias": "left out by skip"}
    assert set(found.untaken["Sequential"].values()) == {"left out by skip"}
    assert len(found.keys) + len(found.kept) == len(before)
    after = state(target)
    for name in ("out.weight", "out.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    x = np.random.default_rng(1).normal(size=(4, 8, 9, 2)).astype("float32")
    with torch.no_grad():
        got = target.eval().features(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, features(source, x), atol=2e-6)
    assert found.largest is not None
    assert found.largest < 1e-9


def test_all_but_the_head_torch_to_keras() -> None:
    torch.manual_seed(5)
    source, target = Encoder(3), keras_encoder(11)
    for parameter in source.parameters():
        torch.nn.init.uniform_(parameter, 0.1, 0.7)
    kept = [np.asarray(w) for w in target.get_layer("head").weights]
    found = transfer(source, target, only=["conv*", "norm"])
    assert {one.place for one in found.copied} == {"first", "norm", "second"}
    assert set(found.kept.values()) == {"not in only"}
    for was, now in zip(kept, target.get_layer("head").weights, strict=True):
        np.testing.assert_array_equal(was, np.asarray(now))
    x = np.random.default_rng(1).normal(size=(4, 8, 9, 2)).astype("float32")
    with torch.no_grad():
        want = source.eval().features(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(features(target, x), want, atol=2e-6)


@pytest.mark.parametrize("into", ["torch", "keras"])
def test_another_number_of_classes_is_refused_by_name_and_nothing_is_written(into: str) -> None:
    source, target = (keras_encoder(10), Encoder(3)) if into == "torch" else (Encoder(10), keras_encoder(3))
    before = state(target) if into == "torch" else {w.path: np.asarray(w).copy() for w in target.weights}
    with pytest.raises(LayoutxError) as caught:
        transfer(source, target)
    assert ("out" if into == "torch" else "head") in str(caught.value)
    assert "--skip" in str(caught.value)
    after = state(target) if into == "torch" else {w.path: np.asarray(w) for w in target.weights}
    for name, was in before.items():
        np.testing.assert_array_equal(after[name], was)


def test_two_checkpoints_become_one_model(tmp_path: Any) -> None:
    keras_encoder(11).save(tmp_path / "a.h5")
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 3))
    save_file(state(head), tmp_path / "b.safetensors")
    target = Whole()
    before = state(target)
    found = transfer({"encoder.*": tmp_path / "a.h5", "head.*": tmp_path / "b.safetensors"}, target)
    after = state(target)
    np.testing.assert_array_equal(after["head.0.weight"], head[0].weight.detach().numpy())
    assert set(found.keys) | set(found.kept) == set(before)
    assert not set(found.keys) & set(found.kept)
    assert set(found.kept.values()) == {"no pattern names it"}
    for name in found.kept:
        assert name.startswith("other.")
        np.testing.assert_array_equal(after[name], before[name])
    assert found.untaken == {"a.h5": {}, "b.safetensors": {}}
    x = np.random.default_rng(1).normal(size=(4, 8, 9, 2)).astype("float32")
    with torch.no_grad():
        got = target.encoder.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(got, keras_encoder(11)(x).numpy(), atol=2e-4)


def test_a_list_of_sources_may_not_write_one_layer_twice(tmp_path: Any) -> None:
    with pytest.raises(LayoutxError, match="would be written by"):
        transfer([keras_encoder(11, 3), keras_encoder(11, 4)], Encoder(11))


def test_a_file_target_is_not_touched_and_the_new_file_has_its_structure(tmp_path: Any) -> None:
    keras_encoder(10).save(tmp_path / "source.keras")
    start, out = tmp_path / "start.safetensors", tmp_path / "out.safetensors"
    save_file({**state(Encoder(3)), "extra": np.arange(5.0)}, start)
    bytes_before = start.read_bytes()
    found = transfer(tmp_path / "source.keras", start, out, skip=["out", "head", "extra"])
    assert start.read_bytes() == bytes_before
    new, old = load_file(out), load_file(start)
    assert {n: (a.dtype, a.shape) for n, a in new.items()} == {n: (a.dtype, a.shape) for n, a in old.items()}
    assert set(found.kept) == {"out.weight", "out.bias", "extra"}
    for name in found.kept:
        np.testing.assert_array_equal(new[name], old[name])
    live = Encoder(3)
    transfer(keras_encoder(10), live, skip=["out"])
    for name in ("conv_a.weight", "norm.running_var", "conv_b.bias"):
        np.testing.assert_array_equal(new[name], state(live)[name])


def test_a_keras_file_as_target_loads_again(tmp_path: Any) -> None:
    target = keras_encoder(6, seed=8)
    target.compile("sgd", "mse")
    target.save(tmp_path / "start.keras")
    torch.manual_seed(2)
    source = Encoder(3)
    found = transfer(source, tmp_path / "start.keras", tmp_path / "out.keras", skip=["head"])
    again = keras.models.load_model(tmp_path / "out.keras")
    np.testing.assert_array_equal(
        np.asarray(again.get_layer("first").kernel), source.conv_a.weight.detach().numpy().transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(
        np.asarray(again.get_layer("head").kernel), np.asarray(target.get_layer("head").kernel)
    )
    assert all("optimizer" in name for name in found.dropped)


def test_a_narrower_dtype_needs_consent_and_keeps_the_targets(tmp_path: Any) -> None:
    target = Encoder(11)
    with pytest.raises(ConsentError, match="narrower"):
        transfer(Encoder(11).double(), target)
    source = Encoder(11).double()
    transfer(source, target, allow={"rounds"})
    assert target.conv_a.weight.dtype == torch.float32
    assert torch.equal(target.conv_a.weight, source.conv_a.weight.float())


def test_tied_tensors_are_told() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 7)
            self.mid = nn.Linear(7, 7)
            self.out = nn.Linear(7, 11, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.mid(self.embed(x)))

    source, target = Tied(), Tied()
    found = transfer(source, target)
    assert found.tied == {"out.weight": "embed.weight"}
    assert set(found.keys) == set(target.state_dict())
    assert torch.equal(target.out.weight, source.embed.weight)
    assert target.out.weight is target.embed.weight


def test_calls_that_are_wrong(tmp_path: Any) -> None:
    source = keras_encoder(11)
    with pytest.raises(UsageError, match="no layer of either side"):
        transfer(source, Encoder(11), skip=["nothing"])
    with pytest.raises(UsageError, match="no layer of the target"):
        transfer({"encode.*": source}, Whole())
    with pytest.raises(UsageError, match="no such file"):
        transfer(source, str(tmp_path / "none.safetensors"), tmp_path / "out.safetensors")
    save_file(state(Encoder(11)), tmp_path / "t.safetensors")
    with pytest.raises(UsageError, match="no output"):
        transfer(source, tmp_path / "t.safetensors")
    with pytest.raises(UsageError, match="itself"):
        transfer(source, tmp_path / "t.safetensors", tmp_path / "t.safetensors")
    with pytest.raises(UsageError, match="does not write into"):
        transfer(source, object())


def test_a_write_that_fails_leaves_the_old_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.job import slots

    target = Encoder(11)
    before = state(target)
    whole = slots.Slot.write
    calls = []

    def failing(self: Any, array: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("full")
        whole(self, array)

    monkeypatch.setattr(slots.Slot, "write", failing)
    with pytest.raises(RuntimeError, match="full"):
        transfer(keras_encoder(11), target)
    for name, array in state(target).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_target_that_drops_what_counts_is_refused() -> None:
    """The source's bias has no place; a silent copy of the kernel alone would be another function."""
    k = keras.layers
    source = randomised(keras.Sequential([keras.Input((5,)), k.Dense(7, name="one"), k.Dense(3, name="two")]), 1)
    target = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(7, 3))
    with pytest.raises(LayoutxError, match="bias"):
        transfer(source, target)


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    keras_encoder(11).save(tmp_path / "a.h5")
    torch.manual_seed(1)
    save_file(state(nn.Sequential(nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 3))), tmp_path / "b.safetensors")
    save_file(state(Whole()), tmp_path / "whole.safetensors")
    out = tmp_path / "out.safetensors"
    call = ["transfer", f"encoder.*={tmp_path / 'a.h5'}", f"head.*={tmp_path / 'b.safetensors'}"]
    assert main([*call, str(tmp_path / "whole.safetensors"), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["place"] for one in told["copied"]} >= {"encoder.conv_a", "head.0", "head.2"}
    assert set(told["kept"].values()) == {"no pattern names it"}
    assert set(load_file(out)) == set(load_file(tmp_path / "whole.safetensors"))
    assert main([*call, str(tmp_path / "whole.safetensors")]) == 2
    assert "there is no output" in capsys.readouterr().err
    assert main(["transfer", str(tmp_path / "a.h5"), str(tmp_path / "whole.safetensors"), "-o", str(out)]) == 1
    assert main([*call, str(tmp_path / "whole.safetensors"), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 99
    assert "kept: 11 tensors" in text
