"""The corpus of the fuzzer: one small real file of each kind, as the frameworks themselves write it.

    python -m scripts.fuzzing.seeds keras torch      write tests/corpus/<reader>/<case>/... anew for some makers
    python -m scripts.fuzzing.seeds                  for all of them, each in a process of its own

A case is a folder; the file or folder in it that is opened is the first in the order of names (`a...`).
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "corpus"
RNG = np.random.default_rng(7)


def case(reader: str, name: str) -> Path:
    """The empty folder of a case."""
    folder = CORPUS / reader / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "fc.weight": RNG.standard_normal((3, 5)).astype(np.float32),
        "fc.bias": RNG.standard_normal(3).astype(np.float16),
        "bn.count": np.array(7, np.int64),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 5), np.float64),
    }


def of_keras() -> None:
    import keras

    k = keras.layers
    model = keras.Sequential(
        [k.Input((5, 3)), k.LSTM(2, name="m"), k.BatchNormalization(name="bn"), k.Dense(3, name="d")]
    )
    model.save(case("keras", "three") / "a.keras")
    model.save(case("h5", "three") / "a.h5")
    model.save_weights(case("weights", "three") / "a.weights.h5")
    folder = case("index", "keras_shards")
    model.save_weights(folder / "a.weights.json", max_shard_size=1e-6)


def of_tf_keras() -> None:
    import tf_keras

    k = tf_keras.layers
    model = tf_keras.Sequential([k.Input((6, 5, 2)), k.Conv2D(2, 3, name="c"), k.Flatten(), k.Dense(3, name="d")])
    model.save(str(case("keras", "two") / "a.keras"))
    model.save(str(case("h5", "two") / "a.h5"))
    model.save_weights(str(case("h5", "weights_only") / "a.h5"))
    model.save_weights(str(case("tf_checkpoint", "object") / "a"))
    model.save(str(case("saved_model", "keras") / "a"), save_format="tf")
    (CORPUS / "tf_checkpoint" / "object" / "checkpoint").unlink()


def of_tflite() -> None:
    import tensorflow as tf
    import tf_keras

    k = tf_keras.layers
    model = tf_keras.Sequential([k.Input((6, 5, 2)), k.Conv2D(2, 3, name="c"), k.Flatten(), k.Dense(3, name="d")])
    for name, options in (("plain", []), ("quantised", [tf.lite.Optimize.DEFAULT])):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = options
        (case("tflite", name) / "a.tflite").write_bytes(converter.convert())


def of_tf1() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    v1.get_variable("block/w", initializer=RNG.standard_normal((3, 5)).astype(np.float32))
    v1.get_variable("cut", shape=(6, 5), partitioner=tf.compat.v1.fixed_size_partitioner(2))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(case("tf_checkpoint", "named") / "a"), write_meta_graph=False)
    (CORPUS / "tf_checkpoint" / "named" / "checkpoint").unlink()


def of_torch() -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))
    state = {**model.state_dict(), "half": torch.ones(3, dtype=torch.bfloat16), "turned": torch.ones(2, 3).T}
    torch.save(state, case("torch", "zip") / "a.pt")
    torch.save(state, case("torch_old", "stream") / "a.pt", _use_new_zipfile_serialization=False)
    torch.save({"model": state, "epoch": 3}, case("torch", "nested") / "a.pth")
    dcp.save({"model": model.state_dict()}, checkpoint_id=case("dcp", "one") / "a", no_dist=True)
    program = torch.export.export(model.eval(), (torch.ones(2, 5),))
    torch.export.save(program, case("pt2", "linear") / "a.pt2")
    _without_paths(CORPUS / "pt2" / "linear" / "a.pt2")


def _without_paths(path: Path) -> None:
    """An archive written anew without the stack traces of this machine."""
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members:
            new.writestr(
                zipfile.ZipInfo(name), re.sub(rb'"stack_trace": "(\\.|[^"\\])*"', b'"stack_trace": ""', content)
            )


def of_onnx() -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    held = {name: array for name, array in arrays().items() if name != "empty"}
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 5], RNG.standard_normal(15).tolist())
    nodes = [
        helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=1, name="fc"),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(3.0), "k")),
        helper.make_node("If", ["flag"], ["z"], then_branch=branch("t"), else_branch=branch("e")),
    ]
    ins = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    inits = [weight, *(numpy_helper.from_array(array, name) for name, array in held.items())]
    graph = helper.make_graph(nodes, "g", ins, outs, inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, case("onnx", "plain") / "a.onnx")
    onnx.save(
        model, case("onnx", "external") / "a.onnx", save_as_external_data=True, location="b.data", size_threshold=0
    )


def branch(name: str) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.ones(2), name))
    return helper.make_graph([made], name, [], [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [2])])


def of_numpy() -> None:
    from safetensors.numpy import save_file

    held = arrays()
    save_file(held, case("safetensors", "plain") / "a.safetensors", metadata={"format": "pt"})
    folder = case("index", "safetensors_shards")
    names = list(held)
    save_file({n: held[n] for n in names[:2]}, folder / "b-1.safetensors")
    save_file({n: held[n] for n in names[2:]}, folder / "b-2.safetensors")
    where = {n: f"b-{1 if n in names[:2] else 2}.safetensors" for n in names}
    index = {"metadata": {"total_size": 99}, "weight_map": where}
    (folder / "a.safetensors.index.json").write_text(json.dumps(index))
    turned = {**held, "turned": np.asfortranarray(np.ones((2, 3))), "big": np.arange(3, dtype=">f8")}
    np.savez(case("npz", "stored") / "a.npz", **turned)
    np.savez_compressed(case("npz", "packed") / "a.npz", **turned)
    tree = {"linear": {"w": np.asfortranarray(np.ones((2, 3))), "b": np.arange(3.0)}, "step": 3}
    for protocol in (2, 4):
        (case("paddle", f"protocol_{protocol}") / "a.pkl").write_bytes(pickle.dumps(tree, protocol))


def of_flax() -> None:
    import jax.numpy as jnp
    import orbax.checkpoint as ocp
    from flax import serialization

    tree = {"params": {"dense": {"kernel": jnp.ones((3, 5), jnp.bfloat16), "bias": jnp.arange(5.0)}}, "step": 3}
    (case("msgpack", "flax") / "a.msgpack").write_bytes(serialization.to_bytes(tree))
    serialization.MAX_CHUNK_SIZE = 8
    (case("msgpack", "chunks") / "a.msgpack").write_bytes(serialization.to_bytes(tree))
    arrays = {"params": tree["params"]}
    with ocp.StandardCheckpointer() as saver:
        saver.save((case("orbax", "ocdbt") / "a").resolve(), arrays)
    (CORPUS / "orbax" / "ocdbt" / "a" / "commit_success.txt").write_text("Checkpoint commit was successful\n")


def of_paddle() -> None:
    import paddle

    model = paddle.nn.Sequential(paddle.nn.Linear(5, 3), paddle.nn.BatchNorm1D(3))
    paddle.save(model.state_dict(), str(case("paddle", "state") / "a.pdparams"))


def of_layoutx() -> None:
    import torch

    import layoutx as lx

    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for what in ("all", "summary"):
        with lx.History(case("history", what) / "a.lxh", what=what, by="step").watch(model, optimizer):
            for _ in range(2):
                model(torch.randn(7, 5)).square().sum().backward()
                optimizer.step()
    (case("mapping", "pairs") / "a.yaml").write_text(MAPPING)


MAPPING = """\
source: a.h5
target: mypkg.models:Net
pairs:
  conv1: features.0    # by name
  lstm/layer_1: "rnn"  # by shape
  # dense_2: ? head.fc1 | head.fc2    # both fit
skip: ["dropout*", flatten]
keep_order: [dense_1]
forms: {lstm: keras.LSTM}
set: {release: 1.0.5, up.transpose_kernel: true, conv1.eps: 0.001}
"""


MAKERS: dict[str, Callable[[], None]] = {
    name.removeprefix("of_"): made for name, made in list(globals().items()) if name.startswith("of_")
}


def main(names: list[str]) -> int:
    if len(names) == 1:
        MAKERS[names[0]]()
        return 0
    # paddle cannot be imported after tensorflow, tf1 switches eager execution off
    calls = [[sys.executable, "-m", "scripts.fuzzing.seeds", name] for name in names or MAKERS]
    return max(subprocess.call(call) for call in calls)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
