"""Planted relations of whole layers: found, named, and made again bit for bit."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from layoutx.verify.relate.folded import Norm
from tests.verify.relate.planted import Planted, gates, layer

VALUES = ("", "levels", "zeros")
SIZES = ({"input": 7, "hidden": 5}, {"input": 5, "hidden": 5})


def lstm(values: str = "", sizes: dict[str, int] = SIZES[0]) -> Planted:
    return layer("keras.LSTM", "torch.LSTM", sizes, values=values)


def dense(values: str = "", **sizes: int) -> Planted:
    return layer("keras.Dense", "torch.Linear", sizes or {"input": 7, "output": 5}, values=values)


def conv(values: str = "", group: int = 1, **sizes: int) -> Planted:
    named = {"out": 7, "in": 5, "kh": 3, "kw": 2, **sizes, "group": group}
    return layer("keras.Conv2D", "torch.Conv2d", named, {"groups": group}, {"groups": group}, values=values)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_right_conversion_is_told_so(values: str, sizes: dict[str, int]) -> None:
    found = lstm(values, sizes).related()
    assert [r.status for r in found.values()] == ["same"] * 4
    assert all(r.exact and r.fine and not r.words and r.holds == r.reads for r in found.values())


@pytest.mark.parametrize("order", [o for o in permutations(range(4)) if o != (0, 1, 2, 3)])
@pytest.mark.parametrize("sizes", SIZES)
def test_every_gate_order_of_an_lstm(order: tuple[int, ...], sizes: dict[str, int]) -> None:
    wrong = lstm("", sizes).each(lambda name, array: gates(array, 4, order))
    found = wrong.related()
    wanted = tuple("ifgo"[i] for i in order)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
        assert found[name].status == "layout"
        assert found[name].exact
        assert found[name].labels["gate"] == wanted
        assert f"gate[{' '.join(wanted)}]" in found[name].holds
        assert found[name].words[0] == f"its gate order is {' '.join(wanted)}; torch.LSTM reads i f g o"
    assert found["bias_hh_l0"].fine  # zeros in any order


@pytest.mark.parametrize("order", [o for o in permutations(range(3)) if o != (0, 1, 2)])
@pytest.mark.parametrize("values", VALUES)
def test_every_gate_order_of_a_gru_with_ties_too(order: tuple[int, ...], values: str) -> None:
    right = layer("keras.GRU", "torch.GRU", SIZES[1], {"reset_after": True}, values=values)
    found = right.each(lambda name, array: gates(array, 3, order)).related()
    for relation in found.values():
        assert relation.labels["gate"] == tuple("rzn"[i] for i in order)
        assert relation.exact
        assert relation.status == "layout"


@pytest.mark.parametrize("values", VALUES)
def test_a_gate_order_and_a_forget_bias_together(values: str) -> None:
    right = lstm(values)
    bias = right.stored["bias_ih_l0"].copy()
    bias[5:10] += 1.0
    order = (0, 1, 3, 2)
    found = right.changed(bias_ih_l0=bias).each(lambda name, array: gates(array, 4, order)).related()
    relation = found["bias_ih_l0"]
    assert relation.status == "values"
    assert relation.exact
    assert relation.labels["gate"] == ("i", "f", "o", "g")
    assert "b_input.f + 1" in relation.words


@pytest.mark.parametrize("values", VALUES)
def test_a_forget_bias_alone(values: str) -> None:
    right = lstm(values)
    bias = right.stored["bias_ih_l0"].copy()
    bias[5:10] += 1.0
    found = right.changed(bias_ih_l0=bias).related()["bias_ih_l0"]
    assert (found.status, found.words, found.exact) == ("values", ("b_input.f + 1",), True)


def test_a_bias_in_both_places_counts_twice() -> None:
    right = lstm()
    found = right.changed(bias_hh_l0=right.stored["bias_ih_l0"]).related()["bias_hh_l0"]
    assert found.holds.startswith("b_input:")
    assert not found.fine
    assert any("counts twice" in word for word in found.words)
    onnx = layer("keras.LSTM", "onnx.LSTM", SIZES[0])
    both = np.concatenate([onnx.stored["B"][:, :20]] * 2, 1)
    found = onnx.changed(B=both).related()["B"]
    assert "{b_input | b_input}" in found.holds
    assert any("counts twice" in word for word in found.words)


@pytest.mark.parametrize("values", VALUES)
def test_another_split_of_a_sum_is_no_mistake(values: str) -> None:
    right = lstm(values)
    half = right.stored["bias_ih_l0"] / 2
    swapped = right.changed(bias_ih_l0=right.stored["bias_hh_l0"], bias_hh_l0=right.stored["bias_ih_l0"])
    for found in (right.changed(bias_ih_l0=half, bias_hh_l0=half).related(), swapped.related()):
        assert found["bias_ih_l0"].status == found["bias_hh_l0"].status == "split"
        assert all(relation.fine for relation in found.values())


def test_the_candidate_bias_of_a_gru_is_no_sum() -> None:
    right = layer("keras.GRU", "torch.GRU", SIZES[0], {"reset_after": True})
    total = right.stored["bias_ih_l0"] + right.stored["bias_hh_l0"]
    found = right.changed(bias_ih_l0=total, bias_hh_l0=np.zeros(15)).related()
    assert not found["bias_ih_l0"].fine
    assert not found["bias_hh_l0"].fine
    total[10:], rest = right.stored["bias_ih_l0"][10:], np.zeros(15)
    rest[10:] = right.stored["bias_hh_l0"][10:]
    found = right.changed(bias_ih_l0=total, bias_hh_l0=rest).related()
    assert all(relation.fine for relation in found.values())


@pytest.mark.parametrize("values", VALUES)
def test_directions_swapped(values: str) -> None:
    right = layer("keras.Bidirectional.LSTM", "torch.LSTM", SIZES[0], None, {"bidirectional": True}, values=values)
    other = {n: right.stored[n[:-8] if n.endswith("_reverse") else f"{n}_reverse"] for n in right.stored}
    found = right.changed(**other).related()
    assert found["weight_ih_l0"].holds.startswith("w_input.backward:")
    assert found["weight_hh_l0_reverse"].holds.startswith("w_recurrent.forward:")
    assert found["weight_ih_l0"].exact


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("sizes", [{"input": 7, "output": 5}, {"input": 5, "output": 5}])
def test_a_kernel_that_was_not_transposed(values: str, sizes: dict[str, int]) -> None:
    right = dense(values, **sizes)
    raw = right.weights["kernel"]
    found = right.changed(weight=raw.reshape(right.stored["weight"].shape)).related()["weight"]
    assert found.status == "layout"
    assert found.exact
    square = raw.shape[0] == raw.shape[1]
    assert found.holds == ("kernel: input output" if square else "kernel: (input output)")
    assert any(("not transposed" if square else "reshaped") in word for word in found.words)
    if square:
        assert "it is keras.Dense's kernel as it stands: not converted" in found.words


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("sizes", [{"h": 5, "w": 3, "c": 2, "output": 7}, {"h": 3, "w": 3, "c": 3, "output": 3}])
def test_flattened_rows_kept_in_the_source_order(values: str, sizes: dict[str, int]) -> None:
    right = layer("keras.Dense", "torch.Linear", sizes, refine=("(h w c)", "(c h w)"), values=values)
    found = right.changed(weight=right.weights["kernel"].T).related()["weight"]
    assert found.holds == "kernel: output (h w c)"
    assert found.reads == "kernel: output (c h w)"
    assert found.exact


def test_flattened_rows_are_factored_where_nobody_told_of_the_map() -> None:
    right = dense(input=30, output=7)
    rows = right.weights["kernel"].reshape(5, 3, 2, 7).transpose(3, 2, 0, 1).reshape(7, 30)
    found = right.changed(weight=rows).related()["weight"]
    assert found.holds == "kernel: output (input2 input1)"
    assert found.exact
    assert dict(found.sizes) == {"output": 7, "input1": 15, "input2": 2}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("sizes", [{}, {"out": 3, "in": 3, "kh": 3, "kw": 3}])
def test_a_flipped_kernel(values: str, sizes: dict[str, int]) -> None:
    right = conv(values, **sizes)
    found = right.changed(weight=right.stored["weight"][:, :, ::-1, ::-1]).related()["weight"]
    assert found.holds == "kernel: out in -kh -kw"
    assert found.exact
    assert found.words == ("kh and kw are stored back to front",)


def test_other_orders_of_a_convolution() -> None:
    right = conv(out=3, kh=3, kw=3, **{"in": 3})
    kernel = right.stored["weight"]
    for order, text in (((1, 0, 2, 3), "in out kh kw"), ((0, 1, 3, 2), "out in kw kh"), ((2, 3, 1, 0), "kh kw in out")):
        found = right.changed(weight=kernel.transpose(order)).related()["weight"]
        assert found.holds == f"kernel: {text}"
        assert found.exact
    found = right.changed(weight=kernel[:, ::-1]).related()["weight"]
    assert found.holds == "kernel: out -in kh kw"
    assert found.words == ("in is stored back to front",)
    grouped = conv(out=3, group=2)
    found = grouped.changed(weight=grouped.stored["weight"][:, :, ::-1]).related()["weight"]
    assert found.holds == "kernel: (group out) in -kh kw"


def test_depthwise_and_transposed_convolutions() -> None:
    sizes = {"group": 5, "out": 3, "in": 1, "kh": 3, "kw": 2}
    right = layer("keras.DepthwiseConv2D", "torch.Conv2d", sizes, {"depth_multiplier": 3}, {"groups": 5})
    swapped = right.stored["weight"].reshape(5, 3, 1, 3, 2).transpose(1, 0, 2, 3, 4).reshape(15, 1, 3, 2)
    found = right.changed(weight=swapped).related()["weight"]
    assert found.holds == "kernel: (out group) 1 kh kw"
    assert found.exact
    sizes = {"group": 1, "out": 5, "in": 5, "kh": 3, "kw": 3}
    right = layer("keras.Conv2DTranspose", "torch.ConvTranspose2d", sizes)
    wrong = right.stored["weight"].transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    found = right.changed(weight=wrong).related()["weight"]
    assert found.holds == "kernel: out in -kh -kw"
    assert found.exact
    assert len(found.words) == 2


def attention() -> Planted:
    sizes = {"embed_q": 6, "embed_k": 6, "embed_v": 6, "kv": 3, "rep": 1, "head": 2, "value": 2, "out": 6}
    config = {"num_heads": 3, "key_dim": 2}
    return layer(
        "keras.MultiHeadAttention", "torch.MultiheadAttention", sizes, config, {"num_heads": 3, "embed_dim": 6}
    )


def test_packing_of_attention() -> None:
    right = attention()
    packed = right.stored["in_proj_weight"].reshape(3, 3, 2, 6)
    found = right.changed(in_proj_weight=packed[[1, 0, 2]].reshape(18, 6)).related()["in_proj_weight"]
    assert found.holds == "({w_k | w_q | w_v} kv head) embed_q"
    assert found.exact
    found = right.changed(in_proj_weight=packed.transpose(1, 0, 2, 3).reshape(18, 6)).related()["in_proj_weight"]
    assert found.holds == "(kv {w_q | w_k | w_v} head) embed_q"
    assert found.exact
    raw = right.weights["attention_output/kernel"].reshape(6, 6)
    found = right.changed(out_proj__weight=raw).related()["out_proj.weight"]
    assert found.holds == "w_o: (kv head) out"
    assert found.exact


def test_rotary_rows() -> None:
    right = dense(input=6, output=16)
    rows = right.stored["weight"].reshape(2, 2, 4, 6).transpose(0, 2, 1, 3).reshape(16, 6)
    found = right.changed(weight=rows).related()["weight"]
    assert found.holds == "kernel: (output1 output3 output2) input"
    assert dict(found.sizes) == {"output1": 2, "output2": 2, "output3": 4, "input": 6}


def test_a_table_times_the_root_of_its_width() -> None:
    right = layer("keras.Embedding", "torch.Embedding", {"vocab": 11, "dim": 7})
    found = right.changed(weight=right.stored["weight"] * np.sqrt(7.0)).related()["weight"]
    assert found.words[0] == "table x 2.64575 (root of 7)"
    assert found.status == "values"


def norm() -> Planted:
    return layer("keras.BatchNormalization", "torch.BatchNorm2d", {"channel": 7})


def test_what_happens_to_batch_norms() -> None:
    right = norm()
    variance, gamma, beta = (right.stored[n] for n in ("running_var", "weight", "bias"))
    for stored, words in (
        (np.sqrt(variance), "variance: root of (x)"),
        (np.sqrt(variance + 1e-3), "variance: root of (x + 0.001)"),
        (1 / np.sqrt(variance + 1e-3), "variance: 1 / root of (x + 0.001)"),
        (variance**2, "variance: squared"),
    ):
        found = right.changed(running_var=stored).related()["running_var"]
        assert found.words[0] == words
        assert found.status == "values"
    assert right.changed(weight=gamma - 1).related()["weight"].words == ("gamma - 1",)
    found = right.changed(weight=beta, bias=gamma).related()
    assert found["weight"].holds == "beta: channel"
    assert found["bias"].holds == "gamma: channel"
    found = right.changed(running_var=right.stored["running_mean"]).related()["running_var"]
    assert found.words == ("it holds mean, where torch.BatchNorm2d reads variance",)
    assert right.changed(num_batches_tracked=np.array(9)).related()["num_batches_tracked"].fine


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_folded_batch_norm(dtype: type) -> None:
    right, own = conv(), norm()
    gamma, beta, mean, variance = (own.weights[n] for n in ("gamma", "beta", "moving_mean", "moving_variance"))
    factor = gamma / np.sqrt(variance + 1e-3)
    kernel = (right.stored["weight"] * factor[:, None, None, None]).astype(dtype)
    wrong = right.changed(weight=kernel, bias=((right.stored["bias"] - mean) * factor + beta).astype(dtype))
    found = wrong.related(
        norms=[Norm("other", gamma[::-1], beta, mean, variance), Norm("bn", gamma, beta, mean, variance)]
    )
    assert found["weight"].status == found["bias"].status == "values"
    assert found["weight"].words == ("batch norm bn is folded in: each out times gamma / root(variance + 0.001)",)
    assert found["bias"].words[0].startswith("batch norm bn is folded in")
    assert found["bias"].residual < 1e-5
    alone = wrong.related()["weight"]
    assert alone.status == "values"
    assert alone.words[0].startswith("each out is multiplied by a number of its own")


def test_numbers_that_were_rounded() -> None:
    right = dense()
    for dtype in (np.float16, np.float32):
        narrow = right.each(lambda name, array, dtype=dtype: array.astype(dtype)).related()["weight"]
        assert narrow.status == "rounded"
        assert narrow.fine
        assert narrow.words == (f"rounded to {np.dtype(dtype)}",)
        through = right.each(lambda name, array, dtype=dtype: array.astype(dtype).astype(np.float64)).related()[
            "weight"
        ]
        assert through.words == (f"rounded to {np.dtype(dtype)}",)
    raw = right.weights["kernel"].astype(np.float16).reshape(5, 7)
    found = right.changed(weight=raw).related()["weight"]
    assert found.holds == "kernel: (input output)"
    assert not found.wrong


def test_signs_and_factors() -> None:
    right = dense()
    found = right.changed(weight=-right.stored["weight"]).related()["weight"]
    assert found.holds == "-kernel: output input"
    assert found.words == ("all of it is stored with the other sign",)
    found = right.changed(weight=2.5 * right.stored["weight"]).related()["weight"]
    assert found.words[0] == "kernel x 2.5"
    found = right.changed(weight=2 * right.weights["kernel"].reshape(5, 7)).related()["weight"]
    assert found.words[-1] == "kernel x 2"
    assert found.holds == "kernel: (input output)"


def test_shuffled_units_are_no_layout() -> None:
    right = dense()
    order = [3, 1, 0, 4, 2]
    found = right.changed(weight=right.stored["weight"][order], bias=right.stored["bias"][order]).related()
    for relation in found.values():
        assert relation.exact
        assert relation.words == ("output is shuffled, in an order that no layout says",)


@pytest.mark.parametrize("values", VALUES)
def test_other_numbers_are_not_explained(values: str) -> None:
    right, other = (
        dense(values, input=11, output=13),
        layer("keras.Dense", "torch.Linear", {"input": 11, "output": 13}, values=values, seed=12),
    )
    found = right.changed(**other.stored).related()
    assert {relation.status for relation in found.values()} == {"other"}
    assert all(not r.exact and not r.holds for r in found.values())
    assert "not related" in found["weight"].words[0]


def test_one_value_everywhere_and_numbers_nearly_equal() -> None:
    right = dense()
    found = right.changed(bias=np.zeros(5)).related()["bias"]
    assert found.status == "initial"
    assert found.words[0].startswith("0 everywhere")
    noise = np.random.default_rng(5).normal(size=(5, 7))
    found = right.changed(weight=right.stored["weight"] + 0.01 * noise).related()["weight"]
    assert found.status == "close"
    assert "close, not equal (correlation 0.99" in found.words[0]
    row = right.stored["weight"].copy()
    row[2] += 1
    found = right.changed(weight=row).related()["weight"]
    assert found.status == "close"
    assert found.words[0].startswith("7 of 35 numbers differ, by up to 1;")


def test_a_tensor_in_another_order_and_trained_further() -> None:
    right = dense(input=23, output=23)
    noise = np.random.default_rng(5).normal(size=(23, 23))
    found = right.changed(weight=right.weights["kernel"] + 0.01 * noise).related()["weight"]
    assert found.status == "close"
    assert found.holds == "kernel: input output"
    assert not found.exact


def test_equal_numbers_leave_the_order_open() -> None:
    right = lstm()
    bias = np.repeat([0.0, 1.0, 0.0, 0.0], 5)
    right = Planted(right.source, {**right.weights, "bias": bias}, right.target, {**right.stored, "bias_ih_l0": bias})
    moved = gates(bias, 4, (1, 0, 2, 3))
    alone = right.changed(bias_ih_l0=moved).related()["bias_ih_l0"]
    assert alone.exact
    assert alone.rivals > 0
    assert any("orders fit" in word for word in alone.words)
    order = (1, 0, 3, 2)
    agreed = right.each(lambda name, array: gates(array, 4, order)).related()["bias_ih_l0"]
    assert agreed.labels["gate"] == ("f", "i", "o", "g")  # as the layer's other tensors say


def test_a_plain_kernel_where_cudnn_reads_blocks() -> None:
    right = layer("keras.LSTM", "keras.CuDNNLSTM", SIZES[0])
    assert all(relation.fine for relation in right.related().values())
    found = right.changed(kernel=right.weights["kernel"]).related()["kernel"]
    assert found.status == "layout"
    assert found.exact
    assert found.holds == "w_input: input (gate[i f g o] hidden)"
