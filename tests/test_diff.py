"""What moved between two models: rows, units, reasons, in named axes, across frameworks; one case a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import MatchError, UsageError

Move = Callable[[dict[str, np.ndarray]], None]


def network() -> Any:
    """Two inputs, a map that is flattened, a recurrent layer, an embedding: no weight at its initial value."""
    import keras

    layers = keras.layers
    keras.utils.clear_session()
    tokens, image = keras.Input((6,), name="tokens"), keras.Input((5, 7, 3), name="image")
    aux = keras.Input((2,), name="aux")
    lstm = layers.LSTM(5, name="lstm")(layers.Embedding(29, 11, name="table")(tokens))
    maps = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 2, name="conv")(image))
    flat = layers.Flatten(name="flat")(maps)
    hidden = layers.Dense(17, activation="relu", name="hidden")(flat)
    frozen = layers.Dense(13, name="frozen", trainable=False)(hidden)
    joined = layers.Concatenate(name="join")([lstm, aux, frozen])
    model = keras.Model([tokens, image, aux], layers.Dense(19, name="out")(joined))
    rng = np.random.default_rng(7)
    for weight in model.weights:
        low = "variance" in weight.path
        weight.assign(rng.uniform(0.5, 2, weight.shape) if low else rng.normal(size=weight.shape))
    return model


def moved(model: Any, moves: Mapping[str, Move], path: Path) -> Path:
    """The model after some of its layers' arrays were changed in place, saved."""
    before = model.get_weights()
    for name, move in moves.items():
        layer = model.get_layer(name)
        own = {w.name: w.numpy() for w in layer.weights}
        move(own)
        layer.set_weights(list(own.values()))
    model.save(path)
    model.set_weights(before)
    return path


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture(scope="module")
def before(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diff") / "before.keras"
    model.save(path)
    return path


def note(found: Any, layer: str, tensor: str) -> str:
    return " | ".join(found[layer].notes.get(tensor, ()))


def test_rows_and_units_that_did_not_move_are_named(model: Any, before: Path) -> None:
    still_rows, still_units = [0, 1, 2, 40], [3, 16]

    def hidden(own: dict[str, np.ndarray]) -> None:
        step = np.full(own["kernel"].shape, 0.25)
        step[still_rows] = 0
        step[:, still_units] = 0
        own["kernel"] += step
        own["bias"][[i for i in range(17) if i not in still_units]] += 0.5

    after = moved(model, {"hidden": hidden}, before.with_name("rows.keras"))
    found = lx.diff(before, after)
    kernel = found["hidden"]["kernel"]
    assert kernel.axes[0].still == tuple(still_rows)
    assert kernel.axes[1].still == tuple(still_units)
    assert kernel.changed == 92 * 15
    assert kernel.words == "92 of 96 rows"
    assert kernel.largest == pytest.approx(0.25, rel=1e-5)
    said = note(found, "hidden", "kernel")
    assert "4 rows (h 0 w 0 c 0, h 0 w 0 c 1, h 0 w 0 c 2, h 1 w 4 c 0) did not move at all" in said
    assert "an input that is always zero gives its row no gradient" in said
    assert "2 columns (output 3, 16)" in said
    assert "relu was always off (dead units)" in said
    assert found["hidden"]["bias"].words == "15 of 17"
    assert not found["conv"].moved
    assert found["frozen"].note == "frozen: trainable=False"
    assert "never given to the optimizer" in found["conv"].note


def test_whole_channels_of_a_flattened_map_are_said_by_axis(model: Any, before: Path) -> None:
    def hidden(own: dict[str, np.ndarray]) -> None:
        step = np.ones((4, 6, 4, 17))
        step[:, :, 2] = 0
        own["kernel"] += step.reshape(96, 17)

    found = lx.diff(before, moved(model, {"hidden": hidden}, before.with_name("channel.keras")))
    assert "24 rows (c 2, every h and w) did not move at all" in note(found, "hidden", "kernel")


def test_rows_of_a_concatenated_input_are_named_by_where_they_come_from(model: Any, before: Path) -> None:
    def out(own: dict[str, np.ndarray]) -> None:
        own["kernel"][[i for i in range(20) if i not in (2, 6)]] -= 1

    found = lx.diff(before, moved(model, {"out": out}, before.with_name("joined.keras")))
    assert "2 rows (lstm 2; aux 1) did not move at all" in note(found, "out", "kernel")


def test_words_never_seen_are_told_from_inputs_that_are_zero(model: Any, before: Path) -> None:
    def table(own: dict[str, np.ndarray]) -> None:
        own["embeddings"][4:9] += 0.125

    found = lx.diff(before, moved(model, {"table": table}, before.with_name("table.keras")))
    said = note(found, "table", "embeddings")
    assert "only 5 of 29 rows moved (vocab 4-8)" in said
    assert "a number that never occurs in the data is never looked up" in said


def test_gates_and_states_are_named(model: Any, before: Path) -> None:
    def lstm(own: dict[str, np.ndarray]) -> None:
        own["kernel"][:, :5] += 1  # the input gate only
        own["kernel"][:, 10:] += 1
        own["bias"] += 1

    def norm(own: dict[str, np.ndarray]) -> None:
        own["moving_mean"] += 0.5

    found = lx.diff(before, moved(model, {"lstm": lstm, "norm": norm}, before.with_name("gates.keras")))
    assert "5 columns (gate f, every hidden) did not move at all" in note(found, "lstm", "kernel")
    assert "sequences have one step" in note(found, "lstm", "recurrent_kernel")
    assert found["norm"]["moving_mean"].state
    assert "only its state moved" in found["norm"].note

    def trained(own: dict[str, np.ndarray]) -> None:
        own["gamma"] += 0.5

    again = lx.diff(before, moved(model, {"norm": trained}, before.with_name("inference.keras")))
    assert "the layer ran as in inference" in note(again, "norm", "moving_variance")


def test_the_printed_corners_are_explained(tmp_path: Path) -> None:
    kernel = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)
    save_file({"fc.weight": np.ascontiguousarray(kernel.T), "fc.bias": kernel[0].copy()}, tmp_path / "a.safetensors")
    inner = kernel.copy()
    inner[3:-3] += 0.01
    save_file({"fc.weight": np.ascontiguousarray(inner.T), "fc.bias": kernel[0] + 1}, tmp_path / "b.safetensors")
    found = lx.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    weight = found["fc"]["weight"]
    assert (weight.printed, weight.printed_still) == (36, 36)
    assert "printing it shows 36 of its 7,840 numbers, the corners: none of these moved" in note(found, "fc", "weight")
    assert "6 columns (input 0-2, 781-783) did not move" in note(found, "fc", "weight")
    inner[0, 0] += 1
    save_file({"fc.weight": np.ascontiguousarray(inner.T), "fc.bias": kernel[0] + 1}, tmp_path / "c.safetensors")
    other = lx.diff(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    assert other["fc"]["weight"].printed_still == 35
    assert "printing" not in note(other, "fc", "weight")


def test_another_framework_gives_the_same_answer(model: Any, before: Path) -> None:
    def hidden(own: dict[str, np.ndarray]) -> None:
        own["kernel"][[i for i in range(96) if i not in (7, 50)]] += 0.25

    def lstm(own: dict[str, np.ndarray]) -> None:
        own["bias"][5:10] += 1

    after = moved(model, {"hidden": hidden, "lstm": lstm}, before.with_name("both.keras"))
    torch_before, torch_after = (p.with_suffix(".safetensors") for p in (before, after))
    lx.convert(before, torch_before, to="torch", live=False)
    lx.convert(after, torch_after, to="torch", live=False)
    alike = lx.diff(before, after)
    for a, b in ((before, torch_after), (torch_before, after), (torch_before, torch_after)):
        found = lx.diff(a, b)
        kernel = found["hidden"].tensors[0]
        assert kernel.changed == alike["hidden"]["kernel"].changed == 94 * 17
        assert kernel.relative == pytest.approx(alike["hidden"]["kernel"].relative)
        bias = next(t for t in found["lstm"].tensors if "bias" in t.name)
        assert bias.changed == 5
        assert not found["conv"].moved
        assert found.paired
    crossed = lx.diff(torch_before, after)
    assert "2 columns (c 2 h 2 w 0, c 3 h 0 w 1)" in note(crossed, "hidden", "weight")
    bias = crossed["lstm"]["bias_ih_l0"]
    assert bias.summed
    assert bias.terms == ("lstm.bias_hh_l0",)
    assert not crossed.only_before
    assert dict(lx.diff(before, torch_after).only_after) == {
        "norm.num_batches_tracked": "counts training batches; inference does not read it"
    }
    same = lx.diff(after, torch_after)
    assert not any(t.changed for t in same.tensors)
    assert "nothing moved at all" in same.note


def test_live_models_and_frozen_parameters() -> None:
    import torch

    torch.manual_seed(0)
    build = lambda: torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))  # noqa: E731
    a, b = build(), build()
    b.load_state_dict(a.state_dict())
    b[0].weight.requires_grad_(False)
    b[0].bias.requires_grad_(False)
    with torch.no_grad():
        b[2].bias += 1
    found = lx.diff(a, b)
    assert found["0"].note == "frozen: requires_grad=False"
    assert found["2"]["bias"].words == "all 3"
    assert "no gradient reached it" in note(found, "2", "weight")


def test_numbers_that_are_none_and_other_precisions(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    a = {"fc.weight": rng.normal(size=(5, 3)).astype(np.float32), "fc.bias": np.ones(5, np.float32)}
    b = {k: v.copy() for k, v in a.items()}
    b["fc.weight"][1, 2] = np.nan
    b["fc.bias"][0] = np.inf
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    found = lx.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found["fc"]["weight"].broken == (0, 1)
    assert found["fc"]["weight"].changed == 1
    assert "NaN or infinite: 0 numbers before, 1 after" in note(found, "fc", "weight")
    assert lx.diff(tmp_path / "b.safetensors", tmp_path / "b.safetensors").same  # NaN is equal to NaN
    save_file({k: v.astype(np.float16) for k, v in a.items()}, tmp_path / "half.safetensors")
    half = lx.diff(tmp_path / "a.safetensors", tmp_path / "half.safetensors")
    assert half["fc"]["weight"].changed == 0
    assert half["fc"]["weight"].largest > 0


def test_tensors_of_no_known_layer_are_compared_by_name(tmp_path: Path) -> None:
    a = {"gate.mix": np.arange(30.0).reshape(2, 3, 5), "gone": np.ones(2)}
    b = {"gate.mix": a["gate.mix"].copy(), "new": np.ones(3)}
    b["gate.mix"][1] += 1
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **b)
    found = lx.diff(tmp_path / "a.npz", tmp_path / "b.npz", from_="torch", to="torch")
    mix = found["gate.mix"]["gate.mix"]
    assert (mix.changed, mix.axes[0].still) == (15, (0,))
    assert list(found.only_before) == ["gone"]
    assert list(found.only_after) == ["new"]


def test_only_and_skip(model: Any, before: Path) -> None:
    found = lx.diff(before, before, only=["hid*"])
    assert [layer.name for layer in found.layers] == ["hidden"]
    assert not found.only_before
    assert not found.only_after
    assert "conv" in found.skipped
    rest = lx.diff(before, before, skip=["hid*", "conv"])
    assert {"hidden", "conv"}.isdisjoint(layer.name for layer in rest.layers)
    assert not rest.only_before
    assert not rest.only_after
    with pytest.raises(UsageError, match="no layer is called"):
        lx.diff(before, before, only=["nope"])


def test_the_command(model: Any, before: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def out(own: dict[str, np.ndarray]) -> None:
        own["bias"] += 1

    after = moved(model, {"out": out}, before.with_name("cli.keras"))
    assert main(["diff", str(before), str(after)]) == 0  # differences are the answer
    text = capsys.readouterr().out
    assert "1 of 16 tensors moved" in text
    assert all(len(line) < 100 for line in text.splitlines())
    assert main(["diff", str(before), str(after), "--json", "--only", "out"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["layers"][0]["tensors"][1]["changed"] == 19
    save_file({"other.table": np.ones((3, 31), np.float32)}, tmp_path / "other.safetensors")
    assert main(["diff", str(before), str(tmp_path / "other.safetensors")]) == 1
    assert main(["diff", str(before), str(tmp_path / "missing.keras")]) == 2
    assert main(["diff", str(before), str(after), "--only", "nope"]) == 2


def test_models_without_a_common_tensor_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    np.savez(tmp_path / "b.npz", y=np.ones(4))
    with pytest.raises(MatchError, match="no tensor of the first model"):
        lx.diff(tmp_path / "a.npz", tmp_path / "b.npz", from_="torch", to="torch")


def test_a_tensor_that_the_other_side_has_no_place_for_is_listed(tmp_path: Path) -> None:
    """A PReLU or an attention scale has no absent value: without a counterpart it is told, not dropped."""
    import keras

    layers = keras.layers
    keras.utils.clear_session()
    whole = keras.Sequential([keras.Input((5,)), layers.Dense(7, name="fc"), layers.Dense(3, name="end")])
    part = keras.Sequential(
        [keras.Input((5,)), layers.Dense(7, name="fc"), layers.Dense(3, name="end", use_bias=False)]
    )
    part.get_layer("fc").set_weights([w + 1 for w in whole.get_layer("fc").get_weights()])
    part.get_layer("end").set_weights(whole.get_layer("end").get_weights()[:1])
    found = lx.diff(whole, part)
    bias = found["end"]["bias"]
    assert bias.absent == "zeros"
    assert bias.changed == 0
    assert found["fc"]["bias"].words == "all 7"
    assert not found.only_before
    back = lx.diff(part, whole)
    assert list(back.only_after.values()) == ["absent means zeros"]


@pytest.mark.parametrize(
    ("keras", "onnx"),
    [
        ("fc_2-2sigmoids-3.h5", "fc_2-2sigmoids-3.onnx"),
        ("cnn_max_mnist2.h5", "cnn_max_mninst2.onnx"),
        ("robust_mnist_sigmoid_linear.h5", "robust_model_sigmoid_linear.onnx"),
    ],
)
@pytest.mark.models
def test_real_files_of_one_network_in_two_formats(models: Path, keras: str, onnx: str) -> None:
    folder = models / "marabou-mnist"
    found = lx.diff(folder / keras, folder / onnx)
    assert found.same
    assert "nothing moved at all" in found.note


def test_large_tensors_are_compared_in_pieces(
    model: Any, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layoutx.verify import moved as module

    def hidden(own: dict[str, np.ndarray]) -> None:
        own["kernel"][5:70, 3:] += np.arange(65)[:, None]

    after = moved(model, {"hidden": hidden}, tmp_path / "large.keras")
    at_once = lx.diff(before, after)
    monkeypatch.setattr(module, "CHUNK", 40)
    in_pieces = lx.diff(before, after)
    for a, b in zip(at_once.tensors, in_pieces.tensors, strict=True):
        assert (a.changed, a.largest, a.at, a.axes) == (b.changed, b.largest, b.at, b.axes)
        assert a.norms == pytest.approx(b.norms, rel=1e-12)
    kernel = in_pieces["hidden"]["kernel"]
    assert kernel.at[0] == 69
    assert kernel.axes[0].still == (*range(6), *range(70, 96))
