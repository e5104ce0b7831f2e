"""New values in the structure of a given Keras file: same groups, attributes and names, so that Keras loads it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py

from layoutx.errors import LayoutxError, UsageError, raise_all
from layoutx.files import hdf5
from layoutx.files.blob import reading
from layoutx.files.dtypes import Array, is_extra
from layoutx.files.keras_file import INNER, weights_blob
from layoutx.files.keras_legacy import MODEL, OPTIMIZER
from layoutx.files.notes import KEY, to_text
from layoutx.files.store import Store

# state of a training run, not of the model: written only where it is given
STATE = ("optimizer", "metrics", OPTIMIZER)
ENDINGS = {"keras": (".weights.h5", ".keras"), "weights.h5": (".weights.h5",), "h5": (".h5", ".hdf5")}


def weights_of(template: Store) -> tuple[str, ...]:
    """The tensors that a file like the template must have; training state (optimizer, metrics) may be left out."""
    if template.format == "h5":
        return tuple(key for keys in template.groups.values() for key in keys)
    return tuple(name for name in template.tensors if name.split("/", 1)[0] not in STATE)


def check_like(template: Store, path: Path) -> None:
    """Refuse an ending that Keras would read as another format than the template's.

    Raises:
        UsageError: no Keras file as template, shards, or the wrong ending.
    """
    if template.format not in ENDINGS or template.path.suffix == ".json":
        raise UsageError(
            f"{template.path.name} cannot be a template for {path.name}",
            where=str(template.path),
            why="a Keras file is written in the structure of one .keras, .weights.h5 or .h5 file",
            do="give such a file of the same model",
        )
    fits = ENDINGS[template.format]
    legacy = path.name.endswith((".h5", ".hdf5")) and not path.name.endswith(".weights.h5")
    found = ".keras" if path.suffix == ".keras" else ".h5" if legacy else ".weights.h5"
    if found not in fits:
        raise UsageError(
            f"a template of the format {template.format} does not give {path.name}",
            where=str(template.path),
            why="Keras chooses its reader by the ending of the name",
            do=f"choose an output that ends in {' or '.join(fits)}",
        )


def write_like(
    template: Store, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], *, zipped: bool = False
) -> None:
    """Write `arrays` (template tensor name -> array of the same shape) as the template's own format.

    A `.keras` template gives a `.weights.h5`, or with `zipped` a `.keras` with the template's config. The arrays'
    dtypes are kept. Training state that `arrays` lacks is left out; in a legacy file it always is.

    Raises:
        UsageError: names that are missing or unknown, shapes that differ; all of them together.
    """
    _check_names(template, arrays)
    if not zipped:
        _write_hdf5(template, path, arrays, metadata)
        return
    inner = path.with_name(path.name + ".inner")
    try:
        _write_hdf5(template, inner, arrays, metadata)
        with zipfile.ZipFile(template.path) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
            for info in old.infolist():
                if info.filename != INNER:
                    new.writestr(info.filename, old.read(info))
            new.write(inner, INNER)
    finally:
        inner.unlink(missing_ok=True)


def _check_names(template: Store, arrays: Mapping[str, Array]) -> None:
    where = str(template.path)
    wanted = weights_of(template)
    allowed = wanted if template.format == "h5" else tuple(template.tensors)
    problems: list[LayoutxError] = [
        UsageError(f"no values for '{name}'", where=where, why="the template has it", do="give an array for it")
        for name in wanted
        if name not in arrays
    ]
    for name, array in arrays.items():
        if name not in allowed:
            problems.append(UsageError(f"the template has no '{name}'", where=where, do="leave it out"))
        elif array.shape != template.tensors[name].shape:
            problems.append(
                UsageError(
                    f"'{name}' has another shape in the template",
                    where=[where, f"given {array.shape}, template {template.tensors[name].shape}"],
                )
            )
    raise_all(problems, f"{len(problems)} arrays do not fit {template.path.name}")


def _write_hdf5(template: Store, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    blob = weights_blob(template.path, template.format)
    with reading(template.path, "a template"):
        source = hdf5.opened(blob)
    with source as old, h5py.File(path, "w") as new:
        prefix = f"{MODEL}/" if template.format == "h5" and MODEL in old else ""
        values = {prefix + name: array for name, array in arrays.items()}
        _copy_attributes(old, new)
        new.attrs.pop(KEY, None)
        for found in hdf5.walk(old, blob):
            _copy(found, new, found.name.strip("/"), values)
        if metadata:
            new.attrs[KEY] = to_text(metadata)


def _copy(found: h5py.Group | h5py.Dataset, new: h5py.File, path: str, values: Mapping[str, Array]) -> None:
    """One group with its attributes, or one dataset with its new values."""
    top = path.split("/", 1)[0]
    if top in STATE and not any(name.split("/", 1)[0] == top for name in values):
        return
    if isinstance(found, h5py.Group):
        _copy_attributes(found, new.require_group(path))
    elif path in values:
        array = values[path]
        plain = array.view(f"V{array.dtype.itemsize}") if is_extra(array.dtype) else array
        dataset = new.create_dataset(path, data=plain)
        _copy_attributes(found, dataset)
        dataset.attrs.pop("dtype", None)
        if is_extra(array.dtype):
            dataset.attrs["dtype"] = array.dtype.name


def _copy_attributes(old: h5py.Group | h5py.Dataset, new: h5py.Group | h5py.Dataset) -> None:
    for key in old.attrs:
        new.attrs.create(key, old.attrs[key], dtype=old.attrs.get_id(key).dtype)
