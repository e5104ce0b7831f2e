"""TensorFlow SavedModel folders: the variables, under the names that the object graph gives; no function is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.index import parse_object, text_of
from layoutx.files.magic import PROGRAM
from layoutx.files.notes import SKIPPED, skipped_of
from layoutx.files.onnx_wire import fields
from layoutx.files.store import Store, Tensor
from layoutx.files.tf_checkpoint import LISTED, STYLE, need_tensorflow, read_checkpoint

KERAS = "keras_metadata.pb"
SEED = "seed_generator_state"  # of a Dropout, in an export of Keras 3
_LISTED = re.compile(r"(?P<list>variables|_all_variables)/(?P<at>\d+)")  # keras 3.15.1 export: all that it tracks
METADATA, PATH = 5, 3  # fields of tf_keras 2.21 protobuf/saved_metadata.proto SavedObject; field 1 of the message


def is_saved_model(folder: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (folder / PROGRAM).is_file()


def read_saved_model(folder: Path) -> Store:
    """The variables of a SavedModel as a checkpoint holds them; of a Keras 2 model with its config.

    Variables that an export of Keras 3 only numbers get their own names, `sequential/dense/kernel`, and keep its order.

    Raises:
        UsageError: TensorFlow is missing.
        FileError: it has no variables, or is damaged.
    """
    index = folder / "variables" / "variables.index"
    if not index.is_file():
        raise FileError(
            f"{folder.name} is a SavedModel without variables",
            where=str(folder),
            why="its numbers are constants of the graph, or variables/variables.index is missing",
            do=f"{DO_AGAIN}, or freeze it to ONNX and give that file",
        )
    store = read_checkpoint(index)
    with reading(folder / PROGRAM, "a SavedModel"):
        if store.metadata[STYLE] == "objects" and any(map(_LISTED.fullmatch, store.tensors)):
            store = _named(store, folder)
    config = _config(folder / KERAS) if (folder / KERAS).is_file() else None
    return replace(store, path=folder, config=config)


def _named(store: Store, folder: Path) -> Store:
    """The store with numbered variables under their own names; those that are saved once more are left out."""
    names = _variable_names(folder)
    found: dict[str, Tensor] = {}
    skipped = skipped_of(store.metadata)
    listed = {name for name in store.tensors if name.startswith("variables/")}
    own = [names.get(name, "") for name in listed]
    usable = len(own) == len(set(own)) and all("/" in name for name in own)
    order = sorted(store.tensors, key=lambda name: int(m["at"]) if (m := _LISTED.fullmatch(name)) else -1)
    for name in order:
        match = _LISTED.fullmatch(name)
        if match and match["list"] == "_all_variables" and listed:
            skipped[name] = "the same variables again, as the export lists them"
            continue
        if match and names.get(name, "").endswith(SEED):
            skipped[name] = "random state"
            continue
        short = names[name] if match and usable else name
        found[short] = replace(store.tensors[name], name=short)
    said = {SKIPPED: json.dumps(skipped), **({LISTED: "the model's own order"} if listed else {})}
    return replace(store, tensors=found, metadata={**store.metadata, **said})


def _variable_names(folder: Path) -> dict[str, str]:
    """Place in a list of the saved object -> the variable's own name."""
    need_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel.FromString(text_of(folder / PROGRAM))
    nodes = found.meta_graphs[0].object_graph_def.nodes
    names = {}
    for way in nodes[0].children if nodes else ():
        for child in nodes[way.node_id].children:
            if nodes[child.node_id].WhichOneof("kind") == "variable":
                names[f"{way.local_name}/{child.local_name}"] = nodes[child.node_id].variable.name
    return names


def keras_nodes(path: Path) -> Iterator[Mapping[str, Any]]:
    """What `keras_metadata.pb` says of each object that it lists.

    Raises:
        FileError: it is damaged.
    """
    with reading(path, "the metadata of a Keras SavedModel"):
        for said in _listed(path):
            if METADATA in said:
                yield parse_object(said[METADATA], path, "the metadata")


def _config(path: Path) -> Mapping[str, Any] | None:
    """The config of the Keras model that was saved; None of a subclassed one, which has none."""
    with reading(path, "the metadata of a Keras SavedModel"):
        for said in _listed(path):
            if said.get(PATH) == b"root":
                told = _plain(parse_object(said[METADATA], path, "the metadata"))
                config = told.get("config")
                whole = isinstance(config, Mapping) and "layers" in config
                return {"class_name": told["class_name"], "config": config} if whole else None
    return None


def _listed(path: Path) -> Iterator[Mapping[int, bytes]]:
    """Field number -> its bytes, of each object that the metadata lists."""
    data = text_of(path)
    for _, _, start, end in fields(data, 0, len(data)):
        yield {number: data[a:b] for number, _, a, b in fields(data, start, end)}


def _plain(value: Any) -> Any:
    """JSON as Keras' own configs spell it: tuples and shapes are lists."""
    if isinstance(value, Mapping):
        if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
            return [_plain(one) for one in value["items"]]
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
