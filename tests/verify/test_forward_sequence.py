"""The NumPy recurrent layers and attention against torch and Keras in float64, roles by hand."""

from math import prod

import numpy as np
import pytest

from layoutx.errors import SizeError
from layoutx.verify import live
from layoutx.verify.forward import forward

BATCH, TIME, INPUT, HIDDEN = 2, 5, 3, 7


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def agree(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(got) == sorted(wanted)
    for name, array in got.items():
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, wanted[name], rtol=1e-12, atol=1e-12, err_msg=name)


# recurrent layers


def recurrent_roles(gates: int, directions: int, order: list[int], torch: bool, biases: int) -> tuple[dict, list]:
    """Roles and the native tensors (input, recurrent, biases, direction by direction) with the gates in `order`."""
    roles: dict[str, list[np.ndarray]] = {"w_input": [], "w_recurrent": [], "b_input": [], "b_recurrent": []}
    native = []
    for d in range(directions):
        w, r, b, s = (
            rand(20 + 4 * d + k, gates, HIDDEN, *more) for k, more in enumerate([(INPUT,), (HIDDEN,), (), ()])
        )
        for name, array in zip(roles, (w, r, b, s if biases == 2 else 0 * s), strict=True):
            roles[name].append(array if gates > 1 else array[0])
        rows = [array[order].reshape(gates * HIDDEN, -1) for array in (w, r, b, s)]
        vectors = [row[:, 0] for row in rows[2:]][:biases]
        matrices = rows[:2] if torch else [row.T for row in rows[:2]]
        native.append([*matrices, *vectors])
    return {name: np.stack(arrays) for name, arrays in roles.items()}, native


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("kind", "name", "order", "more", "facts"),
    [
        ("simple_rnn", "RNN", [0], {}, {}),
        ("simple_rnn", "RNN", [0], {"nonlinearity": "relu"}, {"activation": "relu"}),
        ("lstm", "LSTM", [0, 1, 2, 3], {}, {}),
        ("gru", "GRU", [1, 0, 2], {}, {"reset": "after"}),
    ],
)
def test_recurrent_is_torch(kind: str, name: str, order: list, more: dict, facts: dict, directions: int) -> None:
    pytest.importorskip("torch")
    roles, native = recurrent_roles(len(order), directions, order, True, 2)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    tensors = {
        f"{n}_l0{suffix}": array
        for suffix, arrays in zip(("", "_reverse"), native, strict=False)
        for n, array in zip(names, arrays, strict=True)
    }
    config = {"input_size": INPUT, "hidden_size": HIDDEN, "bidirectional": directions == 2, **more}
    x = rand(1, BATCH, TIME, INPUT)
    agree(forward(kind, roles, {"x": x}, facts), live.run(f"torch.{name}", config, tensors, {"x": x}))
    if kind == "lstm":  # and the comparison can fail
        swapped = {**roles, "b_input": roles["b_input"][:, [1, 0, 2, 3]]}
        with pytest.raises(AssertionError):
            agree(forward(kind, swapped, {"x": x}, facts), live.run(f"torch.{name}", config, tensors, {"x": x}))


HARD = {3: "hard_sigmoid_1/6", 2: "hard_sigmoid_0.2"}


@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("kind", "name", "order", "more", "facts"),
    [
        ("simple_rnn", "SimpleRNN", [0], {}, {}),
        ("lstm", "LSTM", [0, 1, 2, 3], {}, {}),
        ("lstm", "LSTM", [0, 1, 2, 3], {"recurrent_activation": "hard_sigmoid", "activation": "softsign"},
         {"activation": "softsign", "gate_activation": "hard"}),
        ("gru", "GRU", [0, 1, 2], {}, {}),
        ("gru", "GRU", [0, 1, 2], {"reset_after": False}, {"reset": "before"}),
        ("gru", "GRU", [0, 1, 2], {"recurrent_activation": "hard_sigmoid"}, {"gate_activation": "hard"}),
    ],
)  # fmt: skip
def test_recurrent_is_keras(
    kind: str, name: str, order: list, more: dict, facts: dict, directions: int, version: int
) -> None:
    pytest.importorskip("tensorflow")
    after = kind == "gru" and more.get("reset_after", True)
    roles, native = recurrent_roles(len(order), directions, order, False, 2 if after else 1)
    facts = {key: HARD[version] if value == "hard" else value for key, value in facts.items()}
    tensors = {}
    for side, (kernel, recurrent, *biases) in zip(("forward", "backward"), native, strict=False):
        bias = np.stack(biases) if after else biases[0]
        group = {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
        tensors.update({f"{side}/{key}": array for key, array in group.items()})
    config = {"units": HIDDEN, **more}
    x = rand(1, BATCH, TIME, INPUT)
    if directions == 2:
        wanted = live.run(f"keras.Bidirectional.{name}", {"version": version, "layer": config}, tensors, {"x": x})
    else:
        wanted = live.run(f"keras.{name}", {"version": version, **config}, tensors, {"x": x})
    agree(forward(kind, roles, {"x": x}, facts), wanted)


def test_a_single_direction_may_run_backward() -> None:
    pytest.importorskip("tensorflow")
    roles, [[kernel, recurrent, bias]] = recurrent_roles(4, 1, [0, 1, 2, 3], False, 1)
    tensors, x = {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}, rand(1, BATCH, TIME, INPUT)
    wanted = live.run("keras.LSTM", {"units": HIDDEN, "go_backwards": True}, tensors, {"x": x})
    wanted["y"] = wanted["y"][:, ::-1]  # Keras gives it in processing order
    agree(forward("lstm", roles, {"x": x}, {"direction": "backward"}), wanted)


# attention


def attention_roles(kv: int, rep: int, head: int, value: int, embed: tuple, out: int) -> dict[str, np.ndarray]:
    q, k, v = embed
    shapes = {
        "w_q": (kv, rep, head, q), "w_k": (kv, head, k), "w_v": (kv, value, v), "w_o": (kv, rep, value, out),
        "b_q": (kv, rep, head), "b_k": (kv, head), "b_v": (kv, value), "b_o": (out,),
    }  # fmt: skip
    return {name: rand(seed, *shape) / 2 for seed, (name, shape) in enumerate(shapes.items())}


def attention_data(embed: tuple) -> dict[str, np.ndarray]:
    times = (5, 7, 7)
    return {n: rand(31, BATCH, t, e) for n, t, e in zip(("query", "key", "value"), times, embed, strict=True)}


@pytest.mark.parametrize("embed", [(6, 6, 6), (6, 5, 7)])
def test_attention_is_torch(embed: tuple) -> None:
    pytest.importorskip("torch")
    roles, x = attention_roles(3, 1, 2, 2, embed, 6), attention_data(embed)
    q, k, v = roles["w_q"].reshape(6, 6), roles["w_k"].reshape(6, -1), roles["w_v"].reshape(6, -1)
    same = len(set(embed)) == 1
    weights = (
        {"in_proj_weight": np.concatenate([q, k, v])}
        if same
        else {f"{n}_proj_weight": w for n, w in zip("qkv", (q, k, v), strict=True)}
    )
    tensors = {
        **weights,
        "in_proj_bias": np.concatenate([roles[n].ravel() for n in ("b_q", "b_k", "b_v")]),
        "out_proj.weight": roles["w_o"].reshape(6, 6).T,
        "out_proj.bias": roles["b_o"],
    }  # fmt: skip
    config = {"embed_dim": 6, "num_heads": 3, "kdim": embed[1], "vdim": embed[2]}
    agree(forward("attention", roles, x), live.run("torch.MultiheadAttention", config, tensors, x))


@pytest.mark.parametrize("version", [3, 2])
def test_attention_is_keras(version: int) -> None:
    pytest.importorskip("tensorflow")
    embed = (6, 5, 7)
    roles, x = attention_roles(3, 1, 2, 5, embed, 11), attention_data(embed)
    tensors = {
        "query/kernel": roles["w_q"][:, 0].transpose(2, 0, 1), "query/bias": roles["b_q"][:, 0],
        "key/kernel": roles["w_k"].transpose(2, 0, 1), "key/bias": roles["b_k"],
        "value/kernel": roles["w_v"].transpose(2, 0, 1), "value/bias": roles["b_v"],
        "attention_output/kernel": roles["w_o"][:, 0], "attention_output/bias": roles["b_o"],
    }  # fmt: skip
    config = {"version": version, "num_heads": 3, "key_dim": 2, "value_dim": 5, "output_shape": 11}
    agree(forward("attention", roles, x), live.run("keras.MultiHeadAttention", config, tensors, x))


def test_grouped_attention_is_keras_and_torch() -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("torch")
    embed = (11, 11, 11)
    roles, x = attention_roles(2, 3, 5, 5, embed, 11), attention_data(embed)
    got = forward("attention", roles, x)
    tensors = {
        "query/kernel": roles["w_q"].reshape(6, 5, 11).transpose(2, 0, 1), "query/bias": roles["b_q"].reshape(6, 5),
        "key/kernel": roles["w_k"].transpose(2, 0, 1), "key/bias": roles["b_k"],
        "value/kernel": roles["w_v"].transpose(2, 0, 1), "value/bias": roles["b_v"],
        "attention_output/kernel": roles["w_o"].reshape(6, 5, 11), "attention_output/bias": roles["b_o"],
    }  # fmt: skip
    config = {"head_dim": 5, "num_query_heads": 6, "num_key_value_heads": 2}
    agree(got, live.run("keras.GroupQueryAttention", config, tensors, x))
    names = zip(("q_proj", "k_proj", "v_proj", "out_proj"), "qkvo", strict=True)
    linear = {}
    for name, letter in names:
        w = roles[f"w_{letter}"]
        matrix = w.reshape(prod(w.shape[:-1]), 11)
        linear.update(
            {f"{name}.weight": matrix.T if letter == "o" else matrix, f"{name}.bias": roles[f"b_{letter}"].ravel()}
        )
    agree(got, live.run("torch.AttentionProjections", {"num_heads": 6, "num_kv_heads": 2}, linear, x))


def test_a_role_of_the_wrong_rank_is_named() -> None:
    roles = attention_roles(2, 3, 5, 5, (11, 11, 11), 11)
    with pytest.raises(SizeError, match=r"w_q has the wrong rank") as caught:
        forward("attention", {**roles, "w_q": roles["w_k"]}, attention_data((11, 11, 11)))
    assert "w_q (kv rep head embed_q), but the shape is (2, 5, 11)" in str(caught.value)
