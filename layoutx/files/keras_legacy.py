"""Legacy Keras `.h5`: whole models and weights only, from Keras 1 without names to Keras 3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import Blob, reading, whole
from layoutx.files.hdf5 import Listing, Notes, listing, names, tensor, text
from layoutx.files.index import parse_object
from layoutx.files.limits import within
from layoutx.files.store import Store, Tensor

MODEL = "model_weights"
OPTIMIZER = "optimizer_weights"
TOP = "top_level_model_weights"


def is_legacy(found: Listing) -> bool:
    """Whether an HDF5 file is laid out as the legacy format, by its root attributes and groups."""
    marks = ("layer_names", "nb_layers", "model_config")
    return MODEL in found.groups or any(mark in found.groups[""] for mark in marks)


def read_legacy(path: Path, found: Listing | None = None) -> Store:
    """A legacy file; a tensor's key is `<layer>/<weight name>`, its group holds them in `weight_names` order.

    Layers without weights have an empty group. The group `top_level_model_weights` (weights that no layer owns)
    is there only where it holds any. Optimizer state is under `optimizer_weights/...` and in no group.

    Args:
        found: what the file holds, where that is known.

    Raises:
        FileError: a name without its dataset, or given twice; a config that is not JSON, a damaged file.
    """
    with reading(path, "a legacy Keras .h5 file"):
        found = found or listing(whole(path))
        root = found.groups[""]
        top = found.group(MODEL) if MODEL in found.groups else root
        above = "" if top is root else f"{MODEL}/"
        tensors: dict[str, Tensor] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for layer, own in layers_of(found, above, top):
            keys = [f"{layer}/{name}" for name in own]
            if layer in groups or len(set(keys)) < len(keys):
                raise FileError(
                    f"{path.name} names '{layer}' twice, or a weight of it",
                    where=f"{path}, /{above}{layer}",
                    why="which of the two is meant, nobody can say",
                )
            for key in keys:
                tensors[key] = tensor(found, above + key, key)
            groups[layer] = tuple(keys)
        if top is not root and OPTIMIZER in found.groups:
            tensors |= {place: tensor(found, place) for place, _ in found.below(OPTIMIZER)}
        config = parse_object(said, path, "model_config") if (said := text(root, "model_config")) else None
        version, backend = (text(root, key) or text(top, key) for key in ("keras_version", "backend"))
        return Store(path, "h5", tensors, found.notes(), config, version, backend, groups)


def layers_of(found: Listing, above: str, top: Notes) -> Iterator[tuple[str, list[str]]]:
    """Each layer's group name and weight names, in the file's order.

    Keras 1 before 0.3 counted (`nb_layers`, `layer_0/param_0`); everything since names them
    (Keras 1.2.2 engine/topology.py load_weights_from_hdf5_group; keras 3.15 legacy_h5_format.py).

    Args:
        above: what stands before the layers' names in the file. top: the attributes of the group there.

    Raises:
        FileError: the group says neither.
    """
    layers = names(top, "layer_names")
    if layers is not None:
        for layer in layers:
            yield layer, names(found.group(above + layer), "weight_names") or []
        loose = found.groups.get(above + TOP)
        if loose and TOP not in layers and (own := names(loose, "weight_names")):
            yield TOP, own
    elif "nb_layers" in top:
        for k in range(_count(top, "nb_layers", found.blob)):
            yield f"layer_{k}", [f"param_{p}" for p in range(_params(found, f"{above}layer_{k}"))]
    else:
        raise FileError(
            f"{found.blob.path.name} has no weights",
            where=f"{found.blob.path}, group /{above.rstrip('/')}",
            why="it has neither layer_names nor nb_layers",
            do="save the model again with its weights",
        )


def _params(found: Listing, path: str) -> int:
    return _count(found.group(path), "nb_params", found.blob)


def _count(notes: Notes, name: str, blob: Blob) -> int:
    count = notes.get(name, 0)
    if not isinstance(count, int) or count < 0:
        raise FileError(f"{blob.path.name} is damaged", where=f"{blob.path}, attribute {name}", why="it is no count")
    within("TENSORS", count, blob.path, f"the count {name}")
    return count
