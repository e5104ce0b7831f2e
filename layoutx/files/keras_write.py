"""New values in the structure of a given Keras file: same groups, attributes and names, so that Keras loads it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py

from layoutx.errors import LayoutxError, UsageError, raise_all
from layoutx.files import hdf5, hdf5_attributes
from layoutx.files.blob import reading
from layoutx.files.dtypes import Array, DType, is_extra
from layoutx.files.keras_file import INNER, weights_blob
from layoutx.files.keras_legacy import MODEL, OPTIMIZER
from layoutx.files.notes import KEY, to_text
from layoutx.files.store import Store

# state of a training run, not of the model: written only where it is given
STATE = ("optimizer", "metrics", OPTIMIZER)
# (group, name there, tensor name) -> a dataset without attributes; h5py's lower calls: models have thousands of both
Make = Callable[[h5py.h5g.GroupID, str, str], h5py.h5d.DatasetID]
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
    check_shapes(template, {name: array.shape for name, array in arrays.items()})
    if not zipped:
        _write_hdf5(template, path, arrays, metadata)
        return
    inner = path.with_name(path.name + ".inner")
    try:
        _write_hdf5(template, inner, arrays, metadata)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
            copy_members(template.path, new)
            new.write(inner, INNER)
    finally:
        inner.unlink(missing_ok=True)


def check_shapes(template: Store, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors (name -> shape) that are not the template's.

    Raises:
        UsageError: names that are missing or unknown, shapes that differ; all of them together.
    """
    where = str(template.path)
    wanted = weights_of(template)
    allowed = set(wanted) if template.format == "h5" else set(template.tensors)
    problems: list[LayoutxError] = [
        UsageError(f"no values for '{name}'", where=where, why="the template has it", do="give an array for it")
        for name in wanted
        if name not in shapes
    ]
    for name, shape in shapes.items():
        if name not in allowed:
            problems.append(UsageError(f"the template has no '{name}'", where=where, do="leave it out"))
        elif shape != template.tensors[name].shape:
            problems.append(
                UsageError(
                    f"'{name}' has another shape in the template",
                    where=[where, f"given {shape}, template {template.tensors[name].shape}"],
                )
            )
    raise_all(problems, f"{len(problems)} arrays do not fit {template.path.name}")


def _write_hdf5(template: Store, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    def make(group: h5py.h5g.GroupID, own: str, name: str) -> h5py.h5d.DatasetID:
        array = arrays[name]
        plain = array.view(f"V{array.dtype.itemsize}") if is_extra(array.dtype) else array
        return h5py.Group(group).create_dataset(own, data=plain).id

    with h5py.File(path, "w") as new:
        copy_structure(template, new, {name: array.dtype for name, array in arrays.items()}, make)
        if metadata:
            new.attrs[KEY] = to_text(metadata)


def copy_structure(template: Store, new: h5py.File, dtypes: Mapping[str, DType], make: Make) -> None:
    """The template's groups, their attributes, and a dataset (from `make`) for each of `dtypes` (tensor name -> dtype).

    Training state of which `dtypes` holds nothing is left out, and so are the notes of layoutx.

    Raises:
        FileError: the template cannot be read any more.
    """
    with reading(template.path, "a template"):
        objects = hdf5.skeleton(weights_blob(template.path, template.format))
    legacy = template.format == "h5" and any(path == MODEL for path, _, _ in objects)
    names = {(f"{MODEL}/" if legacy else "") + name: name for name in dtypes}
    left_out = set(STATE) - {path.split("/", 1)[0] for path in names}
    open_ = [("", new.id)]  # the groups above, outermost first; each more that stays open slows HDF5 down
    for path, is_group, attributes in objects:
        if not path:
            _attach(new.id, attributes, KEY)
        if not path or path.split("/", 1)[0] in left_out:
            continue
        above, _, own = path.rpartition("/")
        while open_[-1][0] != above:
            open_.pop()
        if is_group:
            open_.append((path, h5py.h5g.create(open_[-1][1], *link(own))))
            _attach(open_[-1][1], attributes)
        elif name := names.get(path):
            made = make(open_[-1][1], own, name)
            _attach(made, attributes, "dtype")
            if is_extra(dtypes[name]):  # HDF5 has no word for it
                h5py.Dataset(made).attrs["dtype"] = dtypes[name].name


def _attach(made: h5py.h5i.ObjectID, attributes: Sequence[hdf5_attributes.Attribute], but: str = "") -> None:
    """All attributes but one, their types as stored."""
    for attribute in attributes:
        if attribute[0] != but:
            hdf5_attributes.write_attribute(made, attribute)


def link(name: str) -> tuple[bytes, h5py.h5p.PropLCID | None]:
    """A name as HDF5 takes it, and how it is told that the bytes are UTF-8; None for ASCII, as h5py does."""
    if name.isascii():
        return name.encode(), None
    coding = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    coding.set_char_encoding(h5py.h5t.CSET_UTF8)
    return name.encode("utf-8", "surrogateescape"), coding


def copy_members(template: Path, new: zipfile.ZipFile) -> zipfile.ZipInfo:
    """All of a `.keras` file but its weights, under the same dates; the answer is an entry for the weights."""
    with zipfile.ZipFile(template) as old:
        for info in old.infolist():
            if info.filename != INNER:
                new.writestr(_stored(info), old.read(info))
        return _stored(old.getinfo(INNER))


def _stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """A plain member of the same name and date, so that what is written twice is the same twice."""
    made = zipfile.ZipInfo(info.filename, info.date_time)
    made.external_attr = 0o600 << 16  # as zipfile writes texts; without it, unpacked files cannot be read
    return made
