"""`.tflite` files of the real converter, read without TensorFlow; damaged ones; quantised ones."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from layoutx.errors import FileError
from layoutx.files.tflite_file import read_tflite
from layoutx.files.tflite_ops import CODES, OPTIONS, SLOTS, read_operators

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def converted(tf, layers, shape, path, quantise=False, dtype="float32"):
    """A tf_keras model of these layers with random weights, and its .tflite file."""
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Input(shape[1:], batch_size=shape[0], dtype=dtype), *layers])
    model.set_weights([RNG.uniform(0.1, 0.6, w.shape).astype("float32") for w in model.get_weights()])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())
    return model


def only(path, name):
    """The one operator of a name, and the constants in its slots."""
    (op,) = [op for op in read_operators(path) if op.name == name]
    tensors = read_tflite(path).tensors
    return op, {slot: tensors[name].read() for slot, name in op.inputs.items() if name in tensors}


@pytest.fixture(scope="module")
def mixed(tf, tmp_path_factory):
    """Several layers in one file, and the model."""
    layers = pytest.importorskip("tf_keras").layers
    path = tmp_path_factory.mktemp("tflite") / "m.tflite"
    own = [
        layers.Conv2D(5, (3, 2), strides=(2, 1), activation="relu6"),
        layers.DepthwiseConv2D(2, depth_multiplier=3, padding="same"),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Flatten(),
        layers.Dense(11),
    ]
    return path, converted(tf, own, (1, 7, 5, 3), path)


def test_every_table_as_the_schema_of_tensorflow_reads_it(mixed, tf):
    """Names, shapes and bytes of all constants, and operators with their tensors, against the generated schema."""
    from tensorflow.lite.python import schema_py_generated as schema

    path, _ = mixed
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (graph,) = model.subgraphs
    store = read_tflite(path)
    wanted = {t.name.decode(): t for t in graph.tensors if model.buffers[t.buffer].data is not None}
    assert list(store.tensors) == list(wanted)
    for name, tensor in wanted.items():
        found = store.tensors[name].read()
        assert found.shape == tuple(tensor.shape)
        assert found.dtype == {0: np.float32, 2: np.int32}[tensor.type]
        assert found.tobytes() == bytes(model.buffers[tensor.buffer].data)
        assert not found.flags.writeable
    for op, real in zip(read_operators(path), graph.operators, strict=True):
        code = model.operatorCodes[real.opcodeIndex]
        assert op.name == CODES.get(code.builtinCode, str(code.builtinCode))
        assert list(op.inputs.values()) == [graph.tensors[i].name.decode() for i in real.inputs if i >= 0]
        assert list(op.outputs) == [graph.tensors[i].name.decode() for i in real.outputs]


def test_numbers_of_operators_and_options_are_those_of_the_schema(tf):
    """Each field that is read by number has that number, type and default in the generated schema."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    from layoutx.files.flatbuffer import follow
    from layoutx.files.tflite_ops import _config
    from layoutx.verify.live import tflite_live

    assert {getattr(schema.BuiltinOperator, name): name for name in SLOTS} == CODES
    for name, own in tflite_live.CLASSES.items():
        plain = {key: value for key, value in OPTIONS[name].items() if not key.startswith(("stride", "dilation"))}
        config = {
            key: words[1] if words else code == "<?" or (2.5 if code == "<f" else 3)
            for key, (_, code, _, words) in plain.items()
        }
        config |= {key + "s": [7, 5, 3][: _rank(name)] for key in ("stride", "dilation") if f"{key}_h" in OPTIONS[name]}
        builder = flatbuffers.Builder(64)
        builder.Finish(tflite_live._options(getattr(schema, f"{own}T")(), config).Pack(builder))
        assert _config(name, follow(memoryview(bytes(builder.Output())), 0)) == config
        builder = flatbuffers.Builder(64)
        builder.Finish(getattr(schema, f"{own}T")().Pack(builder))
        empty = _config(name, follow(memoryview(bytes(builder.Output())), 0))
        assert not any(
            value
            for key, value in empty.items()
            if key not in ("padding", "fused_activation_function", "weights_format", "strides", "dilations")
        )
        assert empty.get("dilations", [1]) in ([1], [1, 1], [1, 1, 1])


def _rank(name):
    return 3 if name.startswith("CONV_3D") else 2


def test_what_the_converter_makes_of_keras_weights(mixed):
    path, model = mixed
    kernel, bias, depthwise, depth_bias, alpha, dense, dense_bias = model.get_weights()
    op, held = only(path, "CONV_2D")
    np.testing.assert_array_equal(held["filter"], kernel.transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(held["bias"], bias)
    assert op.config == {
        "padding": "VALID",
        "fused_activation_function": "RELU6",
        "strides": [2, 1],
        "dilations": [1, 1],
    }
    op, held = only(path, "DEPTHWISE_CONV_2D")
    np.testing.assert_array_equal(held["filter"], depthwise.reshape(1, 2, 2, 15))
    np.testing.assert_array_equal(held["bias"], depth_bias)
    assert (op.config["depth_multiplier"], op.config["padding"]) == (3, "SAME")
    np.testing.assert_array_equal(only(path, "PRELU")[1]["alpha"], alpha)
    op, held = only(path, "FULLY_CONNECTED")
    np.testing.assert_array_equal(held["filter"], dense.T)
    np.testing.assert_array_equal(held["bias"], dense_bias)
    assert op.config == {"fused_activation_function": "NONE", "weights_format": "DEFAULT"}


def test_an_lstm_shares_equal_constants_and_leaves_slots_out(tf, tmp_path):
    layers = pytest.importorskip("tf_keras").layers
    path = tmp_path / "m.tflite"
    model = converted(tf, [layers.LSTM(3, return_sequences=True)], (2, 5, 7), path)
    op, held = only(path, "UNIDIRECTIONAL_SEQUENCE_LSTM")
    assert "cell_to_input_weights" not in op.inputs
    kernel, recurrent, bias = model.get_weights()
    for n, gate in enumerate(("input", "forget", "cell", "output")):
        own = slice(3 * n, 3 * n + 3)
        np.testing.assert_array_equal(held[f"input_to_{gate}_weights"], kernel.T[own])
        np.testing.assert_array_equal(held[f"recurrent_to_{gate}_weights"], recurrent.T[own])
        np.testing.assert_array_equal(held["cell_bias" if gate == "cell" else f"{gate}_gate_bias"], bias[own])
    assert op.config["fused_activation_function"] == "TANH"
    model.set_weights([kernel, recurrent, np.repeat([0.5, 0.25, 0.5, 0.5], 3).astype("float32")])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    (op,) = [op for op in read_operators(path) if op.name.startswith("UNI")]
    assert op.inputs["input_gate_bias"] == op.inputs["cell_bias"] != op.inputs["forget_gate_bias"]


@pytest.mark.parametrize(
    ("layer", "shape", "operator", "axes"),
    [
        (("Conv1D", 5, 3), (2, 11, 7), "CONV_2D", lambda k: k.transpose(2, 0, 1)[:, None]),
        (("Conv1DTranspose", 5, 3), (2, 11, 7), "TRANSPOSE_CONV", lambda k: k.transpose(1, 0, 2)[:, None]),
        (("Conv2DTranspose", 5, (3, 2)), (2, 7, 5, 3), "TRANSPOSE_CONV", lambda k: k.transpose(2, 0, 1, 3)),
        (("Conv3D", 5, (3, 2, 2)), (2, 7, 5, 3, 3), "CONV_3D", lambda k: k),
        (("Conv3DTranspose", 5, (3, 2, 2)), (2, 5, 3, 2, 3), "CONV_3D_TRANSPOSE", lambda k: k),
        (("Embedding", 11, 3), (2, 5), "GATHER", lambda k: k),
    ],
)
def test_the_converter_lays_out_each_kernel_so(tf, tmp_path, layer, shape, operator, axes):
    name, *sizes = layer
    path = tmp_path / "m.tflite"
    own = getattr(pytest.importorskip("tf_keras").layers, name)(*sizes)
    model = converted(tf, [own], shape, path, dtype="int32" if name == "Embedding" else "float32")
    _, held = only(path, operator)
    slot = next(slot for slot in ("filter", "weights", "params") if slot in held)
    np.testing.assert_array_equal(held[slot], axes(model.get_weights()[0]))


def test_quantised_weights_are_listed_and_refused(tf, tmp_path):
    layers = pytest.importorskip("tf_keras").layers
    path = tmp_path / "q.tflite"
    converted(tf, [layers.Dense(64)], (1, 64), path, quantise=True)
    store = read_tflite(path)
    (name,) = [name for name, tensor in store.tensors.items() if tensor.dtype == np.int8]
    assert store.tensors[name].shape == (64, 64)
    note = json.loads(store.metadata["quantized:" + name])
    assert len(note["scale"]) == len(note["zero_point"]) in (1, 64)
    with pytest.raises(FileError, match="is quantised: int8 with"):
        store.tensors[name].read()


def test_reading_needs_no_tensorflow(mixed):
    script = f"""
import sys
from pathlib import Path
from layoutx.files.tflite_file import read_tflite
from layoutx.files.tflite_ops import read_operators
path = Path({str(mixed[0])!r})
assert read_operators(path) and [tensor.read() for tensor in read_tflite(path).tensors.values()]
print("tensorflow" in sys.modules or "flatbuffers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_damaged_file_is_a_file_error_or_a_file(mixed, tmp_path):
    """600 files with bytes or words changed, and every tenth truncation: FileError, or all of it can be read."""
    good = mixed[0].read_bytes()
    path = tmp_path / "bad.tflite"
    rng = np.random.default_rng(5)
    damaged = []
    for many in rng.integers(1, 9, 300):
        bad = bytearray(good)
        for at in rng.integers(0, len(good), many):
            bad[at] = rng.integers(256)
        damaged.append(bytes(bad))
    for at in rng.choice(len(good) // 4 - 1, 150, replace=False) * 4:  # offsets and lengths, huge or negative
        damaged += [good[:at] + word + good[at + 4 :] for word in (b"\xff\xff\xff\x7f", b"\xf0\xff\xff\xff")]
    damaged += [good[:size] for size in range(0, len(good), 10)]
    refused = 0
    for bad in damaged:
        path.write_bytes(bad)
        for read in (lambda: [t.read() for t in read_tflite(path).tensors.values()], lambda: read_operators(path)):
            try:
                read()
            except FileError:
                refused += 1
    assert refused > 200


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL2" + bytes(40))
    with pytest.raises(FileError, match="no TensorFlow Lite model"):
        read_tflite(path)
