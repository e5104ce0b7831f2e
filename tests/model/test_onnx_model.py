"""ONNX graphs as layers: forms and configs, names, weights on detours, tied ones; axes followed to where they meet."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.bindings import bind_record
from layoutx.model.onnx_live import onnx_store
from layoutx.model.onnx_model import onnx_records
from layoutx.model.onnx_names import scope_of
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import registry

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
rng = np.random.default_rng(11)
REGISTRY = registry()


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> Any:
    """A node; inputs and outputs are written with blanks between, "_" for one that is left out."""
    split = [[x.replace("_", "") if x == "_" else x for x in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *split, name, **attributes)


def saved(
    path: Path, nodes: Sequence[Any], shape: Sequence[Any], opset: int = 17, x: int = FLOAT, **weights: Any
) -> Path:
    """A model with input x of this shape and output y; a weight is its shape, or an array."""
    arrays = {
        n.replace("__", "."): rng.normal(size=w).astype("f4") if isinstance(w, tuple) else w for n, w in weights.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", x, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def layers(path: Path, *args: Any, **kwargs: Any) -> tuple[LayerRecord, ...]:
    """The layers of the model that `saved` makes; those with a form fit it."""
    model = onnx_records(open_store(saved(path / "m.onnx", *args, **kwargs)))
    for record in model.layers:
        if record.form:
            bind_record(record, REGISTRY)
    return model.layers


FORMS: dict[str, tuple[Any, list[Any], dict[str, Any], dict[str, Any]]] = {
    "Conv": (node("Conv", "x W B", "y", "c"), ["n", 6, 11, 13], {"W": (10, 3, 3, 5), "B": (10,)}, {"rank": 2}),
    "ConvTranspose": (node("ConvTranspose", "x W", "y", "c", strides=[2]), [2, 3, 7], {"W": (3, 5, 4)}, {"rank": 1}),
    "Gemm": (node("Gemm", "x W b", "y", "c", transB=1), ["n", 3], {"W": (5, 3), "b": (5,)}, {"transB": 1}),
    "MatMul": (node("MatMul", "x W", "y", "c"), ["n", 7, 3], {"W": (3, 5)}, {}),
    "BatchNormalization": (
        node("BatchNormalization", "x s b m v", "y", "c", epsilon=1e-3),
        ["n", 5, 7],
        dict.fromkeys("sbmv", (5,)),
        {"epsilon": 1e-3, "training_mode": 0},
    ),
    "LayerNormalization": (node("LayerNormalization", "x s b", "y", "c"), ["n", 5], {"s": (5,), "b": (5,)}, {}),
    "InstanceNormalization": (
        node("InstanceNormalization", "x s b", "y", "c"), ["n", 5, 7, 3], {"s": (5,), "b": (5,)}, {},
    ),
    "PRelu": (node("PRelu", "x s", "y", "c"), ["n", 5, 7, 3], {"s": (5, 1, 1)}, {"rank": 2}),
    "GRU": (
        node("GRU", "x W R B", "y", "c", hidden_size=5, linear_before_reset=1),
        [7, "n", 3],
        {"W": (1, 15, 3), "R": (1, 15, 5), "B": (1, 30)},
        {"hidden_size": 5, "linear_before_reset": 1},
    ),
    "LSTM": (
        node("LSTM", "x W R", "y", "c", hidden_size=5, direction="reverse"),
        [7, "n", 3],
        {"W": (1, 20, 3), "R": (1, 20, 5)},
        {"hidden_size": 5, "direction": "reverse"},
    ),
    "RNN": (
        node("RNN", "x W R", "y", "c", hidden_size=5, activations=["Relu"]),
        [7, "n", 3],
        {"W": (1, 5, 3), "R": (1, 5, 5)},
        {"hidden_size": 5, "activations": ["Relu"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", FORMS)
def test_every_form(op: str, tmp_path: Path) -> None:
    single, shape, weights, config = FORMS[op]
    (record,) = layers(tmp_path, [single], shape, **weights)
    assert (record.name, record.class_name, record.form) == ("c", op, f"onnx.{op}")
    assert next(iter(record.tensors.values())).name == next(iter(weights))
    assert config.items() <= record.config.items()


@pytest.mark.parametrize(("opset", "since"), [(18, 18), (21, 21)])
def test_group_norm_before_opset_21_is_another_function(opset: int, since: int, tmp_path: Path) -> None:
    group = [node("GroupNormalization", "x s b", "y", "c", num_groups=2)]
    path = saved(tmp_path / "m.onnx", group, ["n", 6, 5], opset, s=(6,), b=(6,))
    (record,) = onnx_records(open_store(path)).layers
    assert record.config["since_version"] == since
    if since < 21:
        with pytest.raises(LayoutxError, match=r"since_version|one number a group"):
            bind_record(record, REGISTRY)
    else:
        bind_record(record, REGISTRY)


def test_rms_norm_and_embedding(tmp_path: Path) -> None:
    nodes = [node("Gather", "table x", "e", "emb"), node("RMSNormalization", "e s", "y", "norm")]
    found = layers(tmp_path, nodes, ["n", 5], 23, onnx.TensorProto.INT64, table=(13, 7), s=(7,))
    assert [(r.name, r.form) for r in found] == [("emb", "onnx.Gather"), ("norm", "onnx.RMSNormalization")]
    assert found[1].inputs == ("emb",)


def test_matmul_takes_the_add_of_its_bias(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x W", "m", "a"),
        node("Add", "b m", "h"),
        node("MatMul", "h V", "k", "b"),
        node("Add", "k c", "y"),
        node("Relu", "k", "z"),
    ]
    a, b, add = layers(tmp_path, nodes, ["n", 3], W=(3, 5), b=(5,), V=(5, 7), c=(7,))
    assert {n: t.name for n, t in a.tensors.items()} == {"B": "W", "bias": "b"}
    assert list(b.tensors) == ["B"], "its product is read twice: the Add is not its bias"
    assert (add.class_name, add.form, list(add.tensors)) == ("Add", "", ["c"])
    assert (a.inputs, b.inputs, add.inputs) == ((), ("a",), ("b",))


def test_weights_on_detours(tmp_path: Path) -> None:
    """Identity and a widening Cast are followed, a Transpose is Gemm's transB; all else is computed, or refused."""
    nodes = [
        node("Identity", "A", "a0"), node("MatMul", "x a0", "a", "identity"),
        node("Cast", "H", "h0", to=FLOAT), node("MatMul", "a h0", "h", "cast"),
        node("Transpose", "T", "t0", perm=[1, 0]), node("MatMul", "h t0", "t", "turned"),
        node("Transpose", "G", "g0", perm=[1, 0]), node("Gemm", "t g0", "g", "gemm", transB=1),
        node("Reshape", "R size", "r0", "reshape"), node("MatMul", "g r0", "r", "reshaped"),
        node("DequantizeLinear", "Q q_scale", "q0", "dequantize"), node("MatMul", "r q0", "q", "quantised"),
        node("Cast", "D", "d0", "narrow", to=FLOAT), node("MatMul", "q d0", "y", "narrowed"),
    ]  # fmt: skip
    found = {
        r.name: r
        for r in layers(
            tmp_path, nodes, ["n", 3], A=(3, 5), H=rng.normal(size=(5, 7)).astype("f2"), T=(11, 7), G=(11, 13),
            R=(65,), size=np.array([13, 5]), Q=np.ones((5, 3), "i1"), q_scale=np.float32(0.5),
            D=rng.normal(size=(3, 2)),
        )
    }  # fmt: skip
    forms = {name: r.form for name, r in found.items() if r.form}
    assert forms == {
        "identity": "onnx.MatMul", "cast": "onnx.MatMul", "turned": "onnx.Gemm", "gemm": "onnx.Gemm",
        "reshaped": "onnx.MatMul", "narrowed": "onnx.MatMul",
    }  # fmt: skip
    assert (found["turned"].config["transB"], found["gemm"].config["transB"]) == (1, 0)
    assert found["cast"].tensors["B"].dtype == np.float16
    assert found["reshaped"].note == "B: computed in the graph by Reshape"
    assert "quantised" in found["quantised"].note
    narrow = found["narrowed"].tensors["B"]
    assert (narrow.name, narrow.dtype, narrow.derived) == ("d0", np.float32, "computed in the graph by Cast")


def test_what_is_no_layer_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "W x", "a", "first"),
        node("Mul", "a scale", "b", "scaled"),
        node("MatMul", "b V", "c", "batched"),
        node("Gelu2", "c w", "y", "mine", domain="my.ops"),
    ]
    found = layers(tmp_path, nodes, [3, 5], W=(7, 3), scale=(7, 5), V=(2, 5, 3), w=(3,))
    assert [r.form for r in found] == ["onnx.Gemm", "", "", ""]
    assert "first operand" in found[0].note
    assert "onnx.Mul" in found[1].note
    assert "3 dimensions" in found[2].note
    assert "my.ops.Gelu2" in found[3].note
    with pytest.raises(LayoutxError) as caught:
        convert(tmp_path / "m.onnx", tmp_path / "out.safetensors", to="torch")
    assert all(name in str(caught.value) for name in ("scaled", "batched", "mine"))
    assert not (tmp_path / "out.safetensors").exists()


def test_recurrent_states_that_are_stored(tmp_path: Path) -> None:
    lstm = [node("LSTM", "x W R B _ h", "y", "r", hidden_size=5)]
    weights = {"W": (1, 20, 3), "R": (1, 20, 5), "B": (1, 40)}
    assert layers(tmp_path, lstm, [7, 2, 3], **weights, h=np.zeros((1, 2, 5), "f4"))[0].form == "onnx.LSTM"
    (record,) = layers(tmp_path, lstm, [7, 2, 3], **weights, h=(1, 2, 5))
    assert (record.form, "not zero" in record.note) == ("", True)


def test_peepholes_are_told(tmp_path: Path) -> None:
    lstm = [node("LSTM", "x W R B _ _ _ P", "y", "r", hidden_size=5)]
    path = saved(tmp_path / "m.onnx", lstm, [7, 2, 3], W=(1, 20, 3), R=(1, 20, 5), B=(1, 40), P=(1, 15))
    (record,) = onnx_records(open_store(path)).layers
    assert record.tensors["P"].shape == (1, 15)


def test_tied_weights_and_layers_called_twice(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "wte x", "e", "/wte/Gather"),
        node("Gemm", "e W b", "f", "/fc/Gemm"),
        node("Gemm", "f W b", "g", "/fc/Gemm_1"),
        node("Transpose", "wte", "t", perm=[1, 0]),
        node("MatMul", "g t", "y", "/head/MatMul"),
    ]
    found = layers(tmp_path, nodes, ["n"], 17, onnx.TensorProto.INT64, wte=(13, 7), W=(7, 7), b=(7,))
    assert [r.name for r in found] == ["wte", "fc", "head"]
    assert found[1].inputs == ("wte",)
    assert found[0].tensors["data"] == found[2].tensors["B"]


@pytest.mark.parametrize(
    ("name", "op", "scope"),
    [
        ("/fc/Gemm", "Gemm", "fc"),
        ("/net/net.0/Conv", "Conv", "net.0"),
        ("/features/features.0/features.0.1/Conv_2", "Conv", "features.0.1"),
        ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1"),
        ("Conv_3", "Conv", ""),
        ("model/dense/MatMul", "MatMul", "dense"),
        ("model/dense_2/Tensordot/MatMul", "MatMul", "dense_2"),
        ("dense_14", "MatMul", "dense_14"),
        ("", "Gemm", ""),
        ("/gru/GRU", "GRU", "gru"),
    ],
)
def test_scopes(name: str, op: str, scope: str) -> None:
    assert scope_of(name, op) == scope


def test_names_from_weights_are_torchs(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x enc.0.fc.weight enc.0.fc.bias", "h", "Gemm_7", transB=1),
        node("Gemm", "h W", "y", "Gemm_8"),
    ]
    found = layers(tmp_path, nodes, ["n", 3], enc__0__fc__weight=(5, 3), enc__0__fc__bias=(5,), W=(5, 2))
    assert [r.name for r in found] == ["enc.0.fc", "Gemm_8"]


# -- axes ------------------------------------------------------------------------------------------------------------

CONV = node("Conv", "c K", "k", "conv")
TO_FIRST, TO_LAST = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
NCHW, NHWC = ["n", 3, 9, 11], ["n", 9, 11, 3]
K = (5, 3, 3, 5)  # gives 5 channels of 7 by 7
ROWS = 5 * 7 * 7


def dense_of(tmp_path: Path, nodes: Sequence[Any], shape: Sequence[Any], **weights: Any) -> LayerRecord:
    """The last layer of a model."""
    return layers(tmp_path, nodes, shape, **{"K": K, "D": (ROWS, 13), **weights})[-1]


def flattened(record: LayerRecord, axis: str = "input") -> tuple[str, str, str]:
    """The two orders of an axis, and the graph's own."""
    found = record.refine[axis]
    return found.last, found.first, found.own


def test_flatten_of_a_channels_first_map(tmp_path: Path) -> None:
    nodes = [
        node("Identity", "x", "c"),
        CONV,
        node("Relu", "k", "r"),
        node("Flatten", "r", "f"),
        node("MatMul", "f D", "y"),
    ]
    record = dense_of(tmp_path, nodes, NCHW)
    assert flattened(record) == ("(h w c)", "(c h w)", "")
    assert record.inputs == ("conv",)
    assert dict(record.refine["input"].sizes) == {"h": 7, "w": 7, "c": 5}


@pytest.mark.parametrize("shape", [[0, -1], [-1, ROWS], [1, ROWS]])
def test_reshape_as_flatten(tmp_path: Path, shape: list[int]) -> None:
    nodes = [node("Identity", "x", "c"), CONV, node("Reshape", "k s", "f"), node("MatMul", "f D", "y")]
    batch = [1 if shape[0] == 1 else "n", *NCHW[1:]]
    assert flattened(dense_of(tmp_path, nodes, batch, s=np.array(shape))) == ("(h w c)", "(c h w)", "")


def test_a_graph_that_keras_exported_flattens_channels_last(tmp_path: Path) -> None:
    """tf2onnx and keras2onnx: Transpose, Conv, Transpose back, Reshape."""
    nodes = [
        node("Transpose", "x", "c", **TO_FIRST), CONV, node("MaxPool", "k", "p", kernel_shape=[2, 2]),
        node("Transpose", "p", "l", **TO_LAST), node("Reshape", "l s", "f"), node("MatMul", "f D", "y"),
    ]  # fmt: skip
    record = dense_of(tmp_path, nodes, NHWC, s=np.array([-1, 180]), D=(180, 13))
    assert flattened(record) == ("(h w c)", "(c h w)", "last")
    assert dict(record.refine["input"].sizes) == {"h": 6, "w": 6, "c": 5}


@pytest.mark.parametrize("perm", [[0, 3, 2, 1], [0, 1, 3, 2]])
def test_any_other_order_is_not_followed(tmp_path: Path, perm: list[int]) -> None:
    nodes = [node("Identity", "x", "c"), CONV, node("Transpose", "k", "t", perm=perm)]
    nodes += [node("Flatten", "t", "f"), node("MatMul", "f D", "y")]
    record = dense_of(tmp_path, nodes, NCHW)
    assert not record.refine
    assert "input axis could not be followed" in record.note


def test_unknown_operators_are_not_followed_and_stay_in_torchs_order(tmp_path: Path) -> None:
    nodes = [node("Identity", "x", "c"), CONV, node("Mix", "k", "m", "mix", domain="my.ops")]
    nodes += [node("Flatten", "m", "f"), node("MatMul", "f D", "y")]
    record = dense_of(tmp_path, nodes, NCHW)
    assert "input axis could not be followed through Mix mix" in record.note
    convert(tmp_path / "m.onnx", to="torch")


def test_unknown_orders_of_a_channels_last_graph_are_refused(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "c", **TO_FIRST), CONV, node("Mix", "k", "m", "mix", domain="my.ops")]
    nodes += [node("Flatten", "m", "f"), node("MatMul", "f D", "y", "dense")]
    dense_of(tmp_path, nodes, NHWC)
    with pytest.raises(LayoutxError, match="order of the 245 input rows of dense is not known"):
        convert(tmp_path / "m.onnx", to="torch")
    convert(tmp_path / "m.onnx", to="torch", keep_order=["dense"])


def test_a_flattened_input_may_be_either(tmp_path: Path) -> None:
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f D", "y")]
    record = dense_of(tmp_path, nodes, ["n", 3, 5, 7], D=(105, 13))
    assert "may stand first or last" in record.note
    plain = dense_of(tmp_path, nodes, ["n", 1, 5, 7], D=(35, 13))
    assert "may stand first or last" in plain.note
    rows = dense_of(tmp_path, nodes, ["n", 5, 7], D=(35, 13))
    assert not rows.note


def test_concatenation_of_a_map_and_a_vector(tmp_path: Path) -> None:
    nodes = [
        node("Identity", "x", "c"), CONV, node("Flatten", "k", "f"), node("GlobalAveragePool", "k", "g"),
        node("Flatten", "g", "v"), node("Concat", "f v", "j", axis=1), node("MatMul", "j D", "y"),
    ]  # fmt: skip
    last, first, own = flattened(dense_of(tmp_path, nodes, NCHW, D=(ROWS + 5, 13)))
    assert own == ""
    assert [x.partition("(")[2].split()[0] for x in (last, first)] == ["h", "conv_c_2"]


@pytest.mark.parametrize("last", [False, True])
def test_a_vector_that_becomes_a_map(tmp_path: Path, last: bool) -> None:
    """The generator: Gemm, Reshape to a map, ConvTranspose; Keras' export turns the map first."""
    nodes = [node("Gemm", "x D b", "d", "dense"), node("Reshape", "d s", "m")]
    nodes += [node("Transpose", "m", "t", **TO_FIRST)] if last else [node("Identity", "m", "t")]
    nodes += [node("ConvTranspose", "t U", "y", "up")]
    shape = np.array([-1, 3, 5, 7] if last else [-1, 7, 3, 5])
    found = layers(tmp_path, nodes, ["n", 2], D=(2, 105), b=(105,), U=(7, 2, 3, 3), s=shape)
    assert flattened(found[0], "output")[2] == ("last" if last else "")
    made = found[0].refine["output"]  # each axis under its own letter, in the order of the file
    assert dict(made.sizes) == ({"h": 3, "w": 5, "c": 7} if last else {"c": 7, "h": 3, "w": 5})
    assert (made.last, made.first) == ("(h w c)", "(c h w)")
    assert found[1].inputs == ("dense",)


def test_norms_after_flatten(tmp_path: Path) -> None:
    nodes = [node("Identity", "x", "c"), CONV, node("Flatten", "k", "f")]
    nodes += [node("BatchNormalization", "f s b m v", "y", "bn")]
    record = dense_of(tmp_path, nodes, NCHW, **dict.fromkeys("sbmv", (ROWS,)))
    assert flattened(record, "channel") == ("(h w c)", "(c h w)", "")


def test_a_norm_over_a_whole_map(tmp_path: Path) -> None:
    nodes = [node("Identity", "x", "c"), CONV, node("LayerNormalization", "k s b", "y", "ln", axis=1)]
    record = layers(tmp_path, nodes, NCHW, K=K, s=(5, 7, 7), b=(5, 7, 7))[-1]
    assert flattened(record, "features") == ("h w c", "c h w", "")


def test_sequences_of_a_recurrent_net_keep_their_order(tmp_path: Path) -> None:
    """Both directions side by side, then time and features flattened: alike in all frameworks."""
    nodes = [
        node("LSTM", "x W R B", "h", "rnn", hidden_size=5, direction="bidirectional"),
        node("Transpose", "h", "t", perm=[2, 0, 1, 3]), node("Reshape", "t s", "f"), node("MatMul", "f D", "y"),
    ]  # fmt: skip
    weights = {"W": (2, 20, 3), "R": (2, 20, 5), "B": (2, 40), "D": (70, 2)}
    record = layers(tmp_path, nodes, [7, "n", 3], s=np.array([0, -1]), **weights)[-1]
    assert (dict(record.refine), record.note, record.inputs) == ({}, "", ("rnn",))


def test_stacked_recurrent_nodes_are_one_module(tmp_path: Path) -> None:
    nodes = [
        node("LSTM", "x W R B", "a", "/rnn/LSTM", hidden_size=5), node("Squeeze", "a one", "b"),
        node("LSTM", "b V S C", "y", "/rnn/LSTM_1", hidden_size=5),
    ]  # fmt: skip
    weights = {"W": (1, 20, 3), "R": (1, 20, 5), "B": (1, 40), "V": (1, 20, 5), "S": (1, 20, 5), "C": (1, 40)}
    found = layers(tmp_path, nodes, [7, "n", 3], one=np.array([1]), **weights)
    assert [(r.name, dict(r.instance), r.inputs) for r in found] == [
        ("rnn/layer_0", {"layer": 0}, ()),
        ("rnn/layer_1", {"layer": 1}, ("rnn/layer_0",)),
    ]
    report = convert(tmp_path / "m.onnx", tmp_path / "out.safetensors", to="torch")
    names = [f"rnn.{part}_l{n}" for n in (0, 1) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert sorted(open_store(tmp_path / "out.safetensors").tensors) == sorted(names)
    assert report.round_trip == "bit-exact"


def test_local_functions_are_opened(tmp_path: Path) -> None:
    inner = helper.make_function(
        "mine", "Layer", ["a", "w"], ["b"], [node("MatMul", "a w", "m"), node("Relu", "m", "b")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = onnx.load(saved(tmp_path / "m.onnx", [node("Layer", "x W", "y", "one", domain="mine")], ["n", 3], W=(3, 5)))
    model.functions.append(inner)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (record,) = onnx_records(open_store(tmp_path / "m.onnx")).layers
    assert (record.form, record.tensors["B"].name) == ("onnx.MatMul", "W")


def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x s", "r", "flat"), node("MatMul", "r W", "y", "fc")]
    path = saved(tmp_path / "m.onnx", nodes, ["n", 3, 1], s=np.array([-1, 3]), W=(3, 5), spare=(2,))
    model: ModelRecord = onnx_records(open_store(path))
    assert dict(model.leftover) == {"s": "a constant of Reshape flat", "spare": "no node reads it"}


def test_the_file_of_a_live_model_goes_with_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that looks at models all day does not fill the disk with them."""
    path = saved(tmp_path / "m.onnx", [node("Gemm", "x w b", "y")], (1, 5), w=(5, 7), b=(7,))
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    model = onnx.load(path)
    store = onnx_store(model)
    left = store.tensors["w"]
    del model, store
    gc.collect()
    assert len(list(there.iterdir())) == 1
    np.testing.assert_array_equal(left.read(), open_store(path).tensors["w"].read())
    del left
    gc.collect()
    assert list(there.iterdir()) == []
