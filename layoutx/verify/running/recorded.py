"""A recording as a safetensors file: each array once, what belongs to which call as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError, LayoutxError, ModelError, UsageError
from layoutx.files.atomic import replacing
from layoutx.files.blob import DO_AGAIN
from layoutx.files.certificate import RECORDING as KEY
from layoutx.files.dtypes import settled
from layoutx.files.names import named_well
from layoutx.files.room import probe_room
from layoutx.files.safetensors import read_safetensors, write_safetensors
from layoutx.files.save import verify
from layoutx.files.store import Store
from layoutx.plan.plan import Array
from layoutx.verify.recording import Call, Recording
from layoutx.verify.running.given import Inputs, listed

VERSION = 1


@dataclass
class Recorded:
    """A run that was recorded elsewhere: it gives what is in it, and runs nothing."""

    model: Recording

    @property
    def framework(self) -> str:
        """The framework of the recorded model."""
        return self.model.framework

    def layers(self) -> Mapping[str, str]:
        """Layer name -> class name."""
        return {call.layer: call.class_name for call in self.model.calls}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """The inputs that were recorded."""
        return self.model.inputs

    def record(self, inputs: Inputs = None, double: bool = True) -> Recording:
        """The recording itself.

        Raises:
            UsageError: other inputs than those that were recorded.
        """
        given = self.model.inputs if inputs is None else listed(inputs)
        if len(given) != len(self.model.inputs) or not all(map(_same, given, self.model.inputs)):
            raise UsageError(
                "the recording was made of other inputs",
                why="a recording runs nothing: it holds one run",
                do="leave the inputs out, or record the model again on these",
            )
        return self.model

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """The recorded outputs, where the inputs are the recorded ones.

        Raises:
            ModelError: other inputs, or no such layer.
        """
        for call in self.model.calls:
            if call.layer == name and len(call.inputs) == len(inputs) and all(map(_same, call.inputs, inputs)):
                return call.outputs
        raise ModelError(f"{name} cannot be run", why="its model is a recording", do="give the live model")

    def repeat(self, inputs: Inputs) -> None:
        """A recording does not say in which mode its model was."""


def is_recording(store: Store) -> bool:
    """Whether a safetensors file is a recording."""
    return KEY in store.metadata


def write_recording(recording: Recording, path: Path) -> None:
    """Write the recording; the file appears whole or not at all.

    Raises:
        UsageError: no file can be written there, or a dtype that safetensors has no word for.
    """
    arrays: dict[str, Array] = {}
    keys: dict[int, str] = {}

    def keyed(values: Sequence[Array], stem: str) -> list[str]:
        for i, array in enumerate(values):
            if id(array) not in keys:
                keys[id(array)] = f"{stem}/{i}"
                arrays[f"{stem}/{i}"] = np.asarray(array, order="C")
        return [keys[id(array)] for array in values]

    about = {
        **{name: getattr(recording, name) for name in ("framework", "version", "dtype", "note")},
        "format": VERSION,
        "about": dict(recording.about),
        "inputs": keyed(recording.inputs, "inputs"),
        "calls": [
            {
                "layer": call.layer,
                "class": call.class_name,
                "number": call.number,
                "names": list(call.names),
                "in": keyed(call.inputs, f"calls/{n}/in"),
                "out": keyed(call.outputs, f"calls/{n}/out"),
            }
            for n, call in enumerate(recording.calls)
        ],
        "outputs": keyed(recording.outputs, "outputs"),
    }
    with replacing(path) as temporary:
        probe_room(temporary, sum(array.nbytes for array in arrays.values()))
        metadata = {KEY: json.dumps(about, ensure_ascii=False)}
        write_safetensors(temporary, arrays, metadata)
        verify(temporary, {name: settled(array) for name, array in arrays.items()}, metadata, path)
        read_recording(temporary)


def read_recording(path: Path) -> Recording:
    """A recording from its file.

    Raises:
        FileError: the file is damaged, or no recording.
    """
    store = named_well(read_safetensors(path))
    if not is_recording(store):
        raise FileError(f"{path.name} is no recording", where=str(path), do="make one with `layoutx record`")
    try:
        said = json.loads(store.metadata[KEY])
        if said["format"] > VERSION:
            raise FileError(f"{path.name} was written by a newer layoutx", where=str(path), do="update layoutx")
        arrays = {name: tensor.read() for name, tensor in store.tensors.items()}
        calls = tuple(_call(entry, arrays) for entry in said["calls"])
        inputs, outputs = (tuple(arrays[key] for key in said[side]) for side in ("inputs", "outputs"))
        framework, version, dtype, note = (str(said[name]) for name in ("framework", "version", "dtype", "note"))
        about = {str(k): str(v) for k, v in said["about"].items()}
        return Recording(framework, version, dtype, inputs, outputs, calls, about, note)
    except LayoutxError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"its list of calls does not fit its tensors: {error}"
        raise FileError(f"{path.name} is a damaged recording", where=str(path), why=why, do=DO_AGAIN) from error


def named(recording: Recording, **about: str) -> Recording:
    """The recording with more to say about it."""
    return replace(recording, about={**recording.about, **about})


def _call(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Call:
    inputs, outputs = (tuple(arrays[key] for key in entry[side]) for side in ("in", "out"))
    names = tuple(str(name) for name in entry["names"])
    if len(names) not in (0, len(inputs)):
        raise ValueError(f"{entry['layer']} has {len(inputs)} inputs and {len(names)} names")
    return Call(str(entry["layer"]), str(entry["class"]), inputs, outputs, names, int(entry["number"]))


def _same(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
