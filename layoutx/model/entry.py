"""One layer's entry in a Keras config: its class, whose class that is, its input shape; nothing is imported or run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.errors import ModelError
from layoutx.files.names import refusal, shown

MAPPING = (dict, Mapping)  # in this order: isinstance takes long for the second alone


def class_of(entry: Any, where: str, clean: bool = False) -> str:
    """The class name of a layer entry; ModelError where there is none.

    Args:
        clean: the name was looked at before.
    """
    if not isinstance(entry, MAPPING):
        raise bad_config("A layer's entry is not an object", where)
    name = entry.get("class_name")
    if not isinstance(name, str) or not name:
        raise bad_config("A layer's entry has no class_name", where)
    return name if clean else named(name, "class name", where)


def named(text: str, what: str, where: str) -> str:
    """The text, which a file gives as a name; ModelError where it could deceive a reader or is much too long."""
    if why := refusal(text):
        do = "Rename it where the model was made."
        raise ModelError(f"A {what} is refused: {shown(text)}", where=where, why=why, do=do)
    return text


def is_custom(entry: Mapping[str, Any], class_name: str) -> bool:
    """Whether the entry says that its class is not Keras' own class of that name."""
    module, registered = entry.get("module"), entry.get("registered_name")
    if ">" in class_name or (isinstance(registered, str) and ">" in registered):
        return True
    if module is None:  # legacy files say nothing; Keras 3 says `module: null` for a registered custom class
        return isinstance(registered, str) and registered != class_name
    return str(module).split(".")[0] not in ("keras", "tf_keras", "tensorflow", "keras_core")


def is_operation(entry: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Legacy files of Keras 3 do not say the module, but the config of a layer has `trainable` or `dtype`."""
    if "module" in entry:
        return ".ops." in str(entry["module"])
    calls = entry.get("inbound_nodes")
    new = isinstance(calls, list) and bool(calls) and isinstance(calls[0], Mapping) and "args" in calls[0]
    return new and "trainable" not in config and "dtype" not in config and "layers" not in config


def index_of(entry: Mapping[str, Any]) -> Any:
    """What a GetItem of Keras 3 is called with, `x[:, -1]`, as its config writes it; None where it is not said."""
    calls = entry.get("inbound_nodes")
    args = mapping_of(calls[0]).get("args") if isinstance(calls, list) and len(calls) == 1 else None
    return args[1] if isinstance(args, list) and len(args) == 2 else None


def keywords_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and texts that a function of Keras 2 is called with by name: `block_size` of its only call."""
    calls = entry.get("inbound_nodes")
    said = calls[0][-1] if isinstance(calls, list) and len(calls) == 1 and isinstance(calls[0], list) else None
    said = said[3] if isinstance(said, list) and len(said) == 4 else said
    return {key: one for key, one in mapping_of(said).items() if isinstance(one, (int, str))}


def registered(entry: Mapping[str, Any], class_name: str) -> str:
    """The name under which a class was registered, `package>Name`; the class name where it was not."""
    registered = entry.get("registered_name")
    return registered if isinstance(registered, str) and ">" in registered else class_name if ">" in class_name else ""


def shape_of(config: Mapping[str, Any], entry: Mapping[str, Any], where: str = "") -> tuple[int | None, ...] | None:
    """Input shape without the batch; Keras 1 and 2 write batch_input_shape, Keras 3 batch_shape.

    Raises:
        ModelError: a length is no whole number.
    """
    for key in ("batch_input_shape", "batch_shape"):
        shape = config.get(key)
        if isinstance(shape, list) and shape:
            return lengths(shape, key, where)
    built = mapping_of(entry.get("build_config")).get("input_shape")
    if isinstance(built, list) and built and all(d is None or isinstance(d, int) for d in built):
        return tuple(built[1:])
    return None


def lengths(shape: Any, key: str, where: str) -> tuple[int | None, ...]:
    """A shape as a config writes it, without the batch.

    Raises:
        ModelError: a length is no whole number.
    """
    own = shape[1:] if isinstance(shape, list | tuple) else [shape]  # a live model gives tuples
    if not all(d is None or isinstance(d, int) or (isinstance(d, float) and d.is_integer()) for d in own):
        raise bad_config(f"{key} is {str(shape)[:80]}", where)
    return tuple(None if d is None else int(d) for d in own)


def mapping_of(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if value is not None and isinstance(value, MAPPING) else {}


def bad_config(what: str, where: str) -> ModelError:
    """The error of a config that cannot be followed."""
    return ModelError(
        what, where=where, why="This is not a model config as Keras writes it.", do="Save the model again with Keras."
    )
