"""TensorFlow 1 and TensorFlow Lite layers as they run: gate orders, names and refusals, without any spec."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.errors import BindError, UsageError
from layoutx.verify.live import tf1_live, tflite_live

RNG = np.random.default_rng(13)
X = RNG.normal(size=(2, 5, 7))


def values(shapes):
    return {name: RNG.uniform(-0.6, 0.6, shape) for name, shape in dict(shapes).items()}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(x, kernel, bias, order, forget_bias, diagonal, projection):
    """The published equations, rows of the kernel split by hand; the gates in the order given."""
    c, h, ys = np.zeros((len(x), len(bias) // 4)), None, []
    h = np.zeros((len(x), projection.shape[1] if projection is not None else c.shape[1]))
    p = diagonal or dict.fromkeys("ifo", 0.0)
    for t in range(x.shape[1]):
        gates = dict(zip(order, np.split(np.concatenate([x[:, t], h], 1) @ kernel + bias, 4, 1), strict=True))
        i, f = sigmoid(gates["i"] + p["i"] * c), sigmoid(gates["f"] + forget_bias + p["f"] * c)
        c = f * c + i * np.tanh(gates["g"])
        h = sigmoid(gates["o"] + p["o"] * c) * np.tanh(c)
        h = h @ projection if projection is not None else h
        ys.append(h)
    return np.stack(ys, 1), h[None], c[None]


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf_keras")


def test_a_cell_with_everything_is_its_equations():
    config = {"num_units": 3, "use_peepholes": True, "num_proj": 2, "forget_bias": 0.75}
    shapes = tf1_live.describe("tf1.LSTMCell", config, {"x": X.shape})
    assert [name for name, _ in shapes] == [
        *("kernel", "bias", "w_f_diag", "w_i_diag", "w_o_diag", "projection/kernel"),
    ]
    held = values(shapes)
    found = tf1_live.run("tf1.LSTMCell", config, held, {"x": X})
    seen = {gate: held[f"w_{gate}_diag"] for gate in "ifo"}
    wanted = lstm(X, held["kernel"], held["bias"], "igfo", 0.75, seen, held["projection/kernel"])
    for name, array in zip(("y", "h", "c"), wanted, strict=True):
        np.testing.assert_allclose(found[name], array, atol=1e-14)
    other = lstm(X, held["kernel"], held["bias"], "ifgo", 0.75, seen, held["projection/kernel"])
    assert np.abs(found["y"] - other[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("form", "order", "extra"),
    [
        ("LSTMBlockCell", "igfo", 1.0),
        ("LSTMBlockFusedCell", "igfo", 1.0),
        ("BlockLSTMV2", "ifgo", 0.0),
        ("CudnnCompatibleLSTMCell", "igfo", 0.0),
    ],
)
def test_gate_orders_of_the_block_operators(form, order, extra):
    """ICFO, but for BlockLSTMV2; the documentation of LSTMBlockCell in TF 2.21 says IFCO and is wrong."""
    held = values({"kernel": (10, 12), "bias": (12,)})
    seen = None
    config = {"num_units": 3}
    if form != "CudnnCompatibleLSTMCell":
        held |= values({f"w_{gate}_diag": (3,) for gate in "ifo"})
        seen, config = {gate: held[f"w_{gate}_diag"] for gate in "ifo"}, {**config, "use_peephole": True}
    first = form in ("LSTMBlockFusedCell", "BlockLSTMV2")
    found = tf1_live.run(f"tf1.{form}", config, held, {"x": X.swapaxes(0, 1) if first else X})
    y, h, c = lstm(X, held["kernel"], held["bias"], order, extra, seen, None)
    np.testing.assert_allclose(found["y"].swapaxes(0, 1) if first else found["y"], y, atol=1e-6)
    np.testing.assert_allclose(found["h"], h, atol=1e-6)
    np.testing.assert_allclose(found["c"], c, atol=1e-6)


def test_the_names_of_gru_block_cell_are_crossed():
    """What its variables w_c and w_ru hold only shows in their shapes."""
    own = values({"gates/kernel": (10, 6), "gates/bias": (6,), "candidate/kernel": (10, 3), "candidate/bias": (3,)})
    crossed = {"w_c": own["gates/kernel"], "b_ru": own["gates/bias"]}
    crossed |= {"w_ru": own["candidate/kernel"], "b_c": own["candidate/bias"]}
    plain = tf1_live.run("tf1.GRUCell", {"num_units": 3}, own, {"x": X})
    for form, held in (("GRUBlockCellV2", own), ("GRUBlockCell", crossed)):
        found = tf1_live.run(f"tf1.{form}", {"num_units": 3}, held, {"x": X})
        np.testing.assert_allclose(found["y"], plain["y"], atol=1e-6)


def test_a_stack_is_its_cells_one_after_the_other():
    """MultiRNNCell has no form of its own: a reader makes one record of each `cell_<k>`."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        stack = legacy_cells.MultiRNNCell([legacy_cells.BasicLSTMCell(3), legacy_cells.GRUCell(5)])
        y, _ = v1.nn.dynamic_rnn(stack, tf.constant(X), dtype=tf.float64)
        variables = {v.op.name: v for v in v1.global_variables()}
        held = values({name: v.shape for name, v in variables.items()})
        session.run([v.assign(held[name]) for name, v in variables.items()])
        wanted = session.run(y)
    stem = "rnn/multi_rnn_cell/cell_{}/{}/"
    first, second = stem.format(0, "basic_lstm_cell"), stem.format(1, "gru_cell")
    x = X
    for form, units, prefix in (("BasicLSTMCell", 3, first), ("GRUCell", 5, second)):
        own = {name.removeprefix(prefix): array for name, array in held.items() if name.startswith(prefix)}
        x = tf1_live.run(f"tf1.{form}", {"num_units": units}, own, {"x": x})["y"]
    np.testing.assert_allclose(x, wanted, atol=1e-14)


def test_both_directions_are_in_the_order_of_the_input():
    shapes = tf1_live.describe("tf1.Bidirectional.BasicRNNCell", {"num_units": 3}, {"x": X.shape})
    assert [name for name, _ in shapes] == ["fw/kernel", "fw/bias", "bw/kernel", "bw/bias"]
    held = values(shapes)
    found = tf1_live.run("tf1.Bidirectional.BasicRNNCell", {"num_units": 3}, held, {"x": X})
    for n, way in enumerate(("fw", "bw")):
        own = {name: held[f"{way}/{name}"] for name in ("kernel", "bias")}
        x = X if way == "fw" else X[:, ::-1]
        one = tf1_live.run("tf1.BasicRNNCell", {"num_units": 3}, own, {"x": x})
        y = one["y"] if way == "fw" else one["y"][:, ::-1]
        np.testing.assert_allclose(found["y"][..., 3 * n : 3 * n + 3], y, atol=1e-14)
        np.testing.assert_allclose(found["h"][n], one["h"][0], atol=1e-14)


def test_weights_that_are_not_the_layers():
    held = values({"kernel": (7, 5), "bias": (5,)})
    for wrong in ({"kernel": held["kernel"]}, {**held, "more": held["bias"]}, {**held, "bias": held["bias"][:3]}):
        with pytest.raises(BindError, match="does not take this"):
            tf1_live.run("tf1.Dense", {"units": 5}, wrong, {"x": X[:, 0]})
    with pytest.raises(BindError, match="does not take this"):
        tf1_live.run("tf1.Dense", {"units": 5, "beans": 3}, held, {"x": X[:, 0]})
    with pytest.raises(UsageError, match="no layer Dance"):
        tf1_live.run("tf1.Dance", {}, {}, {"x": X})
    with pytest.raises(UsageError, match="cannot be listed"):
        tf1_live.describe("tf1.LSTMBlockCell", {"num_units": 3}, {"x": X.shape})
    with pytest.raises(BindError, match="it takes no beans"):
        tf1_live.run("tf1.LSTMBlockCell", {"num_units": 3, "beans": 1}, {}, {"x": X})


def test_tflite_refuses_what_an_operator_does_not_have():
    held = values({"filter": (5, 7), "bias": (5,)})
    x = {"x": X[:, 0]}
    found = tflite_live.run("tflite.FULLY_CONNECTED", {}, held, x)["y"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, X[:, 0] @ held["filter"].T + held["bias"], atol=1e-6)
    for config, tensors in (({"strides": 2}, held), ({"beans": 1}, held), ({}, {**held, "weights": held["bias"]})):
        with pytest.raises(BindError, match="does not take this"):
            tflite_live.run("tflite.FULLY_CONNECTED", config, tensors, x)
    with pytest.raises(UsageError, match="no operator"):
        tflite_live.run("tflite.ADD", {}, held, x)


def test_what_tf_contrib_computed_is_its_equations():
    held = values({"gamma": (6,), "beta": (6,)})
    x = RNG.normal(size=(2, 5, 3, 6))

    def normed(x, axes, eps):
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return (x - mean) / np.sqrt(variance + eps)

    apart = normed(x.reshape(2, 5, 3, 2, 3), (1, 2, 4), 1e-6).reshape(x.shape)
    wanted = {
        "LayerNorm": (normed(x[:, 0, 0], -1, 1e-12), x[:, 0, 0], {}),
        "InstanceNorm": (normed(x, (1, 2), 1e-6), x, {}),
        "GroupNorm": (apart, x, {"groups": 2}),
    }
    for name, (y, data, config) in wanted.items():
        found = tf1_live.run(f"tf1.{name}", config, held, {"x": data})["y"]
        np.testing.assert_allclose(found, y * held["gamma"] + held["beta"], atol=1e-12)
    rows = values({"output_weights": (4, 6), "output_bias": (4,)})
    found = tf1_live.run("tf1.Output", {}, rows, {"x": x[:, 0, 0]})["y"]
    np.testing.assert_allclose(found, x[:, 0, 0] @ rows["output_weights"].T + rows["output_bias"], atol=1e-12)
    kernel = values({"depthwise_kernel": (3, 2, 6, 2)})
    found = tf1_live.run("tf1.DepthwiseConv2D", {"padding": "VALID", "use_bias": False}, kernel, {"x": x})["y"]
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (1, 2))
    wanted_y = np.einsum("bhwcij,ijcm->bhwcm", windows, kernel["depthwise_kernel"]).reshape(found.shape)
    np.testing.assert_allclose(found, wanted_y, atol=1e-12)


def test_weights_that_tf_contrib_did_not_have():
    held = values({"gamma": (6,), "beta": (6,), "more": (6,)})
    with pytest.raises(BindError, match="it has no more"):
        tf1_live.run("tf1.LayerNorm", {}, held, {"x": RNG.normal(size=(2, 6))})
    with pytest.raises(BindError, match="does not take this"):
        tf1_live.run("tf1.LayerNorm", {}, {"gamma": held["gamma"]}, {"x": RNG.normal(size=(2, 6))})
