"""TensorFlow checkpoints, by variable name (TF 1) or by object graph (TF 2), read through TensorFlow."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Container, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files.blob import reading
from layoutx.files.dtypes import Array
from layoutx.files.limits import within
from layoutx.files.notes import SKIPPED
from layoutx.files.store import Store, Tensor
from layoutx.files.tf_table import check_index

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
STYLE, LISTED = "tf:style", "tf:listed"  # keys of the metadata
METRICS = ("metrics", "_metrics", "loss_tracker", "_loss_tracker")
# tf_keras 2.21 saving/legacy/saved_model/model_serialization.py ModelSavedModelSaver, base_serialization.py
LISTS = ("variables", "trainable_variables", "non_trainable_variables", "keras_api")
LONG = 200  # characters of a path that is not worth a look at the limit
AVERAGE = "ExponentialMovingAverage"  # tensorflow 2.21 python/training/moving_averages.py
COUNTERS = re.compile(r"global_step|beta[12]_power(_\d+)?")


def read_checkpoint(path: Path) -> Store:
    """The variables of a checkpoint by name, from its `.index` file (or the one file of TF before 0.12).

    TF 2 names lose `/.ATTRIBUTES/VARIABLE_VALUE`. A weight that is stored under its optimizer (Keras 3 does that:
    the optimizer's way to it is the shorter one) gets the name that leads to it through the model. What is no weight
    is left out; metadata `tf:skipped` maps its names to the reason, `tf:style` is `names` or `objects`.

    Raises:
        UsageError: TensorFlow is missing.
        FileError: the checkpoint is damaged, or its data files are not beside the index.
    """
    prefix = str(path).removesuffix(".index")
    if prefix != str(path) and not any(path.parent.glob(f"{escape(Path(prefix).name)}.data-*-of-*")):
        raise FileError(
            f"{path.name} has no data files",
            where=str(path),
            why="the numbers of a checkpoint are in .data-00000-of-00001 beside the index",
            do="copy all files of the checkpoint to one folder",
        )
    with reading(path, "a TensorFlow checkpoint"):
        if prefix != str(path):
            check_index(path)
    tf = need_tensorflow()
    with reading(path, "a TensorFlow checkpoint"):
        reader = tf.train.load_checkpoint(prefix)
        shapes = dict(sorted(reader.get_variable_to_shape_map().items()))
        dtypes = reader.get_variable_to_dtype_map()
        objects = GRAPH in shapes
        paths = _through_the_model(reader.get_tensor(GRAPH), path) if objects else {}
        tensors: dict[str, Tensor] = {}
        skipped: dict[str, str] = {}
        for key, shape in shapes.items():
            name = (paths.get(key) or key).removesuffix(VALUE)
            reason = _reason_of_object(key, name, paths) if objects else reason_of_name(name, shapes)
            if reason:
                skipped[name] = reason
            elif dtypes[key] in (tf.string, tf.resource, tf.variant):
                skipped[name] = f"no numbers: {dtypes[key].name}"
            else:
                tensors[name] = _tensor(path, reader, key, name, np.dtype(dtypes[key].as_numpy_dtype), shape)
    notes = {STYLE: "objects" if objects else "names", **({SKIPPED: json.dumps(skipped)} if skipped else {})}
    return Store(path, "tf_checkpoint", dict(sorted(tensors.items())), notes)


def need_tensorflow() -> Any:
    """The tensorflow module.

    Raises:
        UsageError: it is missing.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ImportError as error:
        raise UsageError(
            "reading TensorFlow checkpoints needs TensorFlow",
            why="nothing else reads their tables and shards",
            do="pip install tensorflow-cpu",
        ) from error
    return tensorflow


def _tensor(path: Path, reader: Any, key: str, name: str, dtype: np.dtype[Any], shape: list[int]) -> Tensor:
    def read() -> Array:
        with reading(path, "the checkpoint it was a moment ago"):
            return np.ascontiguousarray(reader.get_tensor(key)).reshape(shape)

    return Tensor(name, dtype, tuple(shape), read)


def _reason_of_object(key: str, name: str, paths: Mapping[str, str]) -> str:
    """Why a variable of an object graph is no weight; "" where it is one."""
    if key == GRAPH:
        return "the graph of the Python objects that were saved"
    if key not in paths:
        return "optimizer state"
    if any(part in METRICS for part in name.split("/")):
        return "state of a metric"
    return "counts what was saved" if name == "save_counter" else ""


def reason_of_name(name: str, known: Container[str]) -> str:
    """Why a variable with a name alone is no weight; "" where it is one. A variable below another is its slot."""
    base, _, slot = name.rpartition("/")
    if COUNTERS.fullmatch(slot):
        return "optimizer state"
    if base not in known:
        return ""
    return f"moving averages ({slot})" if slot == AVERAGE else f"optimizer state ({slot})"


def _through_the_model(graph: bytes, file: Path) -> dict[str, str]:
    """Checkpoint key -> the shortest path to it that leads through no optimizer; other keys are left out.

    Where no optimizer comes in between, that is the key itself: TensorFlow makes its keys so. A way through the
    lists that a SavedModel keeps of all variables is taken where there is no other: a list knows no layers.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    found: dict[str, str] = {}
    reached, waiting, listed = set[int](), deque([(0, "")]), deque[tuple[int, str]]()
    while waiting or listed:
        node, path = (waiting or listed).popleft()
        if node in reached:
            continue
        reached.add(node)
        if len(path) > LONG:  # a chain of a hundred thousand objects has a path of a megabyte for each
            within("NAME", len(path), file, "a path through the objects")
        for attribute in nodes[node].attributes:
            end = "" if attribute.name == VALUE.rpartition("/")[2] else f"/.ATTRIBUTES/{attribute.name}"
            found[attribute.checkpoint_key] = path.removeprefix("/") + end
        for child in nodes[node].children:
            if child.node_id not in reached and not _is_optimizer(nodes[child.node_id], child.local_name):
                part = child.local_name.replace(".", "..").replace("/", ".S")  # as TensorFlow escapes them
                queue = listed if part in LISTS else waiting
                queue.append((child.node_id, f"{path}/{part}"))
    return found


def _is_optimizer(node: Any, name: str) -> bool:
    """Keras calls the steps that it took `_iterations`, and before tf_keras 2.11 `iter`."""
    names = {child.local_name for child in node.children}
    return name in ("optimizer", "_optimizer") or not names.isdisjoint(("_iterations", "iter"))
