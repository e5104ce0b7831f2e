"""Planted mistakes are found, named and repaired; right ports and noise give no explanation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import planted_layers as layers
import pytest
from planted import broken, moved, rewritten, unknown
from planted_mistakes import (
    CONV,
    GRU,
    IH,
    LSTM,
    MISTAKES,
    SQUARE,
    Mistake,
    configured,
    gates,
    taken,
    told,
)

from layoutx.verify.diagnose.evaluate import computed
from layoutx.verify.diagnose.search import search
from layoutx.verify.diagnose.short import shortened
from layoutx.verify.diagnose.suspect import Diagnosis

LIMIT = 1e-9
BY_NAME = {str(mistake): mistake for mistake in MISTAKES}


def modes(diagnosis: Diagnosis) -> list[str]:
    return sorted(edit.mode for edit in diagnosis.explanations[0].edits) if diagnosis.explanations else []


@pytest.mark.parametrize("known", [True, False], ids=["weights known", "activations only"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_named_and_repaired(mistake: Mistake, known: bool) -> None:
    if mistake.needs and not known:
        pytest.skip("the numbers are lost: only the source has them")
    suspect = broken(layers.made(*mistake.layer), mistake.make)
    found = search(suspect if known else unknown(suspect))
    assert len(modes(found)) == 1, found.note
    assert modes(found)[0] in mistake.modes
    first = found.explanations[0]
    assert first.before > 1e-6
    assert first.after <= LIMIT * max(1.0, max(float(np.abs(a).max()) for a in suspect.expected.values()))
    assert first.edits[0].what
    assert first.edits[0].code or first.edits[0].option


@pytest.mark.parametrize("layer", layers.LAYERS, ids=lambda key: "-".join(map(str, key)))
def test_a_right_port_needs_no_explanation(layer: layers.Key) -> None:
    for seed in range(4):
        found = search(layers.MAKERS[str(layer[0])](*layer[1:], seed=seed))
        assert found.explanations == ()
        assert found.note == "the outputs agree: there is nothing to explain"


NOISE = (LSTM, GRU, ("dense", 8, 8), ("conv", 3, 3, 3, 3), ("batch_norm", 11), ("attention", 2, 3), ("embedding", 9, 9))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("layer", NOISE, ids=lambda key: "-".join(map(str, key)))
def test_noise_is_none_of_these(layer: layers.Key, known: bool) -> None:
    right = layers.made(*layer)
    rng = np.random.default_rng(5)
    noisy = {
        n: a + (0.2 * np.abs(rng.normal(size=a.shape)) if a.dtype.kind == "f" else 0) for n, a in right.stored.items()
    }
    suspect = broken(right, lambda s: replace(s, stored=noisy))
    found = search(suspect if known else unknown(suspect), budget=1.5)
    assert found.explanations == ()
    assert "none of these" in found.note
    assert 0 < found.next_best < np.inf
    assert found.tried > 10


PAIRS = (
    ("lstm-5-7-i_c_f_o", "lstm-5-7-copied", True), ("lstm-5-7-i_c_f_o", "lstm-5-7-copied", False),
    ("lstm-6-6-recurrent_transposed", "lstm-6-6-i_c_f_o", True), ("lstm-5-7-ONNX", "lstm-5-7-bytes", True),
    ("lstm-5-7-i_c_f_o", "lstm-5-7-bfloat16", True), ("lstm-5-7-packed", "lstm-5-7-copied", False),
    ("gru-5-7-z_r", "gru-5-7-reset_before", False), ("flat-2-3-5-7-rows", "flat-2-3-5-7-rows_twice", None),
    ("conv-3-3-3-3-in_and_out", "conv-3-3-3-3-flip", False), ("conv-2-3-5-7-flip", "conv-2-3-5-7-bias_doubled", False),
    ("conv-2-3-5-7-bytes", "conv-2-3-5-7-bias_missing", False), ("conv-2-3-5-7-flip", "conv-2-3-5-7-float16", True),
    ("batch_norm-11-eps_1e-5", "batch_norm-11-list_order", False),
    ("batch_norm-11-eps_2.7e-4", "batch_norm-11-deviation", True),
    ("dense-7-11-bias_doubled", "dense-7-11-relu_forgotten", False),
    ("dense-7-11-bytes", "dense-7-11-bias_missing", False),
    ("attention-2-3-interleaved", "attention-2-3-query_scale", False),
    ("attention-2-3-k_q_v", "attention-2-3-out_heads", False),
    ("embedding-13-7-root", "embedding-13-7-rows_moved", False),
    ("rms_norm-11-eps_1e-12", "rms_norm-11-less_one", True),
)  # fmt: skip


@pytest.mark.parametrize(("one", "other", "known"), [pair for pair in PAIRS if pair[2] is not None])
def test_two_mistakes_are_named_and_repaired(one: str, other: str, known: bool) -> None:
    first, second = BY_NAME[one], BY_NAME[other]
    suspect = broken(layers.made(*first.layer), first.make, second.make)
    found = search(suspect if known else unknown(suspect), budget=20)
    named = modes(found)
    assert len(named) == 2, (found.note, named)
    assert set(named) & set(first.modes)
    assert set(named) & set(second.modes)
    assert found.explanations[0].after <= 1e-8


def test_the_source_s_weights_make_it_certain() -> None:
    suspect = broken(layers.made(*LSTM), gates([0, 2, 1, 3]))
    assert search(suspect).explanations[0].certain
    assert not search(unknown(suspect)).explanations[0].certain


def test_a_gate_order_has_its_framework_s_name_and_is_one_of_24() -> None:
    first = search(broken(layers.made(*LSTM), gates([0, 2, 1, 3]))).explanations[0]
    assert "haiku.LSTM" in first.edits[0].what
    assert "tf1.BasicLSTMCell" in first.edits[0].what
    assert first.tried == 24
    assert first.rivals == ()


def test_orders_that_fit_alike_are_told() -> None:
    """A layer whose i and f gates hold the same numbers: two orders do it, and none is certain without the source."""

    def alike(w: np.ndarray) -> np.ndarray:
        w = w.reshape(4, -1, *w.shape[1:])
        w[1] = w[0]
        return w.reshape(-1, *w.shape[2:])

    right = layers.made(*LSTM)
    right = rewritten(**dict.fromkeys(right.stored, alike))(right)
    right = replace(broken(right), expected=broken(right).found)
    first = search(unknown(broken(right, gates([2, 3, 0, 1])))).explanations[0]
    assert first.edits[0].mode == "F3"
    assert len(first.rivals) == 0, "the same numbers count once"
    assert first.tried < 24


def test_a_layer_that_does_not_do_what_its_config_says() -> None:
    """The layer computes with another eps than its config tells; the output shows it."""
    right = layers.made("batch_norm", 11)
    hidden = replace(right, found=broken(right, configured(eps=1e-5)).found)
    found = search(hidden)
    assert "does not compute what its config tells" in found.note
    assert modes(found) == ["F8"]
    assert found.explanations[0].after <= 1e-12


def test_something_that_acts_on_the_layer_is_told() -> None:
    right = layers.made(*CONV)
    rng = np.random.default_rng(1)
    dropped = replace(right, found={"y": right.found["y"] * (rng.uniform(size=right.found["y"].shape) > 0.5)})
    found = search(dropped)
    assert found.explanations == ()
    assert "look for a mode" in found.note


def test_the_framework_computes_what_numpy_does_not() -> None:
    """`run` stands in where the reference gives something else: here all outputs are doubled by a hook."""
    wrong = broken(layers.made("dense", 8, 8), rewritten(weight=np.transpose))

    def run(stored: dict, inputs: dict) -> dict:
        return {"y": 2 * (inputs["x"] @ stored["weight"].T + stored["bias"])}

    doubled = replace(wrong, run=run, found=run(wrong.stored, wrong.inputs), expected={"y": 2 * wrong.expected["y"]})
    found = search(doubled)
    assert modes(found) == ["F2"]
    assert "weights and config tell" in found.note


def test_lost_numbers_are_told_without_the_source() -> None:
    found = search(unknown(broken(layers.made(*LSTM), taken("bias_ih_l0", 0.0))), budget=1)
    assert found.explanations == ()
    assert "bias_ih_l0 is 0 everywhere" in found.note


def test_one_lstm_is_quick_and_progress_is_told() -> None:
    told_of: list[tuple[int, int, str]] = []
    suspect = unknown(
        broken(layers.made(*LSTM), rewritten(weight_ih_l0=lambda w: w + 0.3 * np.sin(np.arange(140)).reshape(w.shape)))
    )
    began = time.perf_counter()
    search(suspect, budget=2.5, progress=lambda *what: told_of.append(what))
    assert time.perf_counter() - began < 10, "the time is a limit, on a busy machine too"
    assert told_of
    assert all(done < many for done, many, _ in told_of)


def test_float32_activations_are_compared_as_such() -> None:
    suspect = broken(layers.made(*SQUARE), gates([0, 2, 1, 3], IH))
    rough = replace(
        suspect,
        expected={n: a.astype(np.float32) for n, a in suspect.expected.items()},
        found={n: a.astype(np.float32) for n, a in suspect.found.items()},
    )
    first = search(unknown(rough)).explanations[0]
    assert first.edits[0].mode == "F3"
    assert first.rivals == ()


def test_the_fix_is_code_that_repairs_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    for mistake in ("lstm-5-7-i_c_f_o", "lstm-5-7-copied", "lstm-5-7-bytes"):
        suspect = broken(layers.made(*LSTM), BY_NAME[mistake].make)
        model = torch.nn.Module()
        model.block = torch.nn.Module()
        model.block.layer = torch.nn.LSTM(5, 7, batch_first=True).double()
        with torch.no_grad():
            for name, array in suspect.stored.items():
                getattr(model.block.layer, name).copy_(torch.from_numpy(array))
        for line in search(suspect).explanations[0].edits[0].code.splitlines():
            exec(line, {"torch": torch, "model": model})
        y, _ = model.block.layer(torch.from_numpy(suspect.inputs["x"]))
        np.testing.assert_allclose(y.detach().numpy(), suspect.expected["y"], rtol=0, atol=1e-9)


def test_the_fix_of_a_setting_names_the_constructor() -> None:
    norm = search(broken(layers.made("batch_norm", 11), configured(eps=1e-5))).explanations[0].edits[0]
    assert norm.code == "block.layer = torch.nn.BatchNorm1d(..., eps=0.001)"
    reset = search(broken(layers.made(*GRU), told(reset="before"))).explanations[0].edits[0]
    assert "reset" in reset.what


@pytest.mark.parametrize(
    ("padding", "strides"), [("valid", (1, 1)), ("same", (1, 1)), ("same", (2, 2)), (((1, 0), (2, 1)), (2, 1))]
)
def test_a_part_of_a_large_map_says_the_same(padding: object, strides: tuple[int, ...]) -> None:
    """The first positions of a right convolution are right, however it pads; those of a wrong one are not."""
    right = layers.made(*CONV)
    rng = np.random.default_rng(3)
    settings = {**right.settings, "padding": padding, "strides": strides}
    wide = replace(right, inputs={"x": rng.normal(size=(4, 17, 19, 5))}, settings=settings)
    outputs = broken(wide).found
    right = replace(wide, expected=outputs, found=outputs)
    part = shortened(right)
    assert part is not None
    np.testing.assert_allclose(computed(part)["y"], part.expected["y"], atol=1e-12)
    found = search(broken(right, BY_NAME["conv-2-3-5-7-flip"].make))
    assert modes(found) == ["F17"]


def backward_reversed(found: dict) -> dict:
    y = found["y"].copy()
    y[..., y.shape[-1] // 2 :] = y[:, ::-1, y.shape[-1] // 2 :]
    return {**found, "y": y}


def exchanged_states(found: dict) -> dict:
    return {**found, "h": found["c"], "c": found["h"]}


@pytest.mark.parametrize(
    ("layer", "turn", "mode"),
    [(("bilstm", 3, 5), backward_reversed, "F18"), (LSTM, exchanged_states, "F36")],
)
def test_outputs_turned_round_are_seen(layer: layers.Key, turn: Callable[[dict], dict], mode: str) -> None:
    right = layers.made(*layer)
    found = search(unknown(replace(right, found=turn(dict(right.found)))))
    assert modes(found) == [mode]
    assert "does not compute what its config tells" in found.note


def test_batch_and_time_exchanged_are_seen() -> None:
    right = layers.made(*LSTM)
    turned = {"x": right.inputs["x"].swapaxes(0, 1)}
    y = broken(replace(right, inputs=turned)).found["y"].swapaxes(0, 1)
    assert modes(search(replace(right, found={"y": y}))) == ["F36"]


def test_a_flattened_map_that_nobody_knows_of() -> None:
    """30 inputs are 2 x 3 x 5 with the channels first, and were to be last."""
    right = layers.MAKERS["dense"](30, 7)
    wrong = broken(unknown(right), rewritten(weight=lambda w: w.reshape(7, 6, 5).swapaxes(1, 2).reshape(7, 30)))
    first = search(wrong).explanations[0]
    assert first.edits[0].mode == "F1"
    assert first.rivals == ()


def test_the_fix_is_code_that_repairs_a_keras_layer() -> None:
    keras = pytest.importorskip("keras")
    right = moved(
        "torch.LSTM", "keras.LSTM", {"batch_first": True},
        {"weight_ih_l0": (28, 5), "weight_hh_l0": (28, 7), "bias_ih_l0": (28,), "bias_hh_l0": (28,)}, known=False,
    )  # fmt: skip
    suspect = broken(right, rewritten(recurrent_kernel=lambda w: w.reshape(7, 4, 7)[:, [0, 2, 1, 3]].reshape(7, 28)))
    layer = keras.layers.LSTM(7, return_sequences=True, name="block.layer", dtype="float64")
    model = keras.Sequential([keras.Input((5, 5)), layer])
    layer.set_weights(list(suspect.stored.values()))
    first = search(suspect).explanations[0]
    assert first.edits[0].mode == "F3"
    for line in first.edits[0].code.splitlines():
        exec(line, {"np": np, "model": model})
    got = np.asarray(layer(suspect.inputs["x"]))
    np.testing.assert_allclose(got, suspect.expected["y"], rtol=0, atol=1e-6)
