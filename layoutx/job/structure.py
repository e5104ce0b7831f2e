"""What a live model is made of, apart from its numbers: two models of equal structure are planned alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np

from layoutx.model.keras_live import is_keras
from layoutx.verify.plain import is_torch

Walk = Callable[["_Walker", Any], None]

MOST = 400_000  # tokens; a larger structure is planned anew
SMALL = 64  # numbers in an array that is no weight: they are looked at
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, CodeType, np.dtype)
# what a Keras model keeps for its own use: neither its config nor its wiring reads it
OWN = """
    _tracker _lock _losses _loss_ids _losses_override _metrics _called _auto_config _call_signature _signature
    call_signature_parameters _call_context_args _tracked _path optimizer _optimizer loss _loss_tracker
    _compile_loss _compile_metrics _compile_config train_function test_function predict_function history
    stop_training stop_predicting stop_evaluating _eval_epoch_iterator _distribute_strategy
    _self_unconditional_checkpoint_dependencies _self_unconditional_dependency_names _parent_path
    _self_unconditional_deferred_dependencies _self_update_uid _self_name_based_restores
    _self_saveable_object_factories _self_setattr_tracking _saved_model_inputs_spec _saved_model_arg_spec
    build quantize _seed_generators seed_generator backend _trainable_variables _non_trainable_variables
    _call_has_context_arg _jit_compile compiled _run_eagerly _initial_epoch _build_shapes_dict _outbound_nodes
    _nodes_by_depth _operations_by_depth _nodes _compiled_trainable_state _compute_loss_has_training_arg
    _call_has_training_arg _call_has_mask_arg _flat_arguments keras_tensors _single_positional_tensor
    _input_spec _remat_mode supports_jit _convert_input_args _allow_non_tensor_positional_args
"""
KERAS_OWN = frozenset(OWN.split())


class UntoldError(Exception):
    """Something whose structure nobody can tell: an object of foreign code, or far too much of it."""


def structure(*models: Any) -> tuple[Any, ...] | None:
    """Classes, attributes, names, shapes, dtypes, ties and wiring of live models, as something to compare.

    Args:
        models: torch modules, Keras models, and plain data.

    Returns:
        Equal tuples for what is planned alike; None where it cannot be told. Weights stand in it by their shapes and
        dtypes; nothing that it holds keeps a weight alive.
    """
    walker = _Walker()
    try:
        for model in models:
            if hasattr(model, "__dict__") and is_torch(model) and not is_keras(model):
                walker.state(model)
            walker.walk(model)
    except (UntoldError, RecursionError):
        return None
    return tuple(walker.found)


class _Walker:
    """One pass over objects, each once; the second time its number stands for it."""

    def __init__(self) -> None:
        self.how: dict[type, Walk] = {}
        self.found: list[Any] = []
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no number of an object is given to another one meanwhile

    def state(self, module: Any) -> None:
        """The names of a torch module's tensors, and which of them lie in the same memory (as `keyed_module` tells)."""
        first: dict[Any, int] = {}
        for at, (name, value) in enumerate(module.state_dict(keep_vars=True).items()):
            if not hasattr(value, "data_ptr") or value.is_sparse or value.is_quantized:
                raise UntoldError
            key = at if value.is_meta or not value.numel() else (value.data_ptr(), value.shape, value.stride())
            self.found += (name, first.setdefault(key, at))
            self.weight(value)
        for value in module.buffers():  # those that are not saved
            self.weight(value)

    def weight(self, value: Any) -> None:
        """Add a tensor that is a weight: its numbers do not count."""
        if not self.again(value):
            self.found += (type(value), tuple(value.shape), str(value.dtype), value.is_meta)

    def walk(self, value: Any) -> None:
        """Add one value."""
        kind = type(value)
        handle = self.how.get(kind)
        if handle is None:
            handle = self.how[kind] = _how(value)
        handle(self, value)

    def again(self, value: Any) -> bool:
        """Whether an object was met before; its number is added then, and room for it made otherwise."""
        known = self.seen.get(id(value))
        if known is not None:
            self.found += ("#", known)
            return True
        if len(self.found) > MOST:
            raise UntoldError
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        return False


def _how(value: Any) -> Walk:
    """What is done with values of a class."""
    kind = type(value)
    if isinstance(value, PLAIN):
        return _number if isinstance(value, (float, complex, slice)) else _plain
    if isinstance(value, (type, BuiltinFunctionType, ModuleType, np.ufunc)):
        return _itself
    special: tuple[tuple[Any, Walk], ...] = (
        (FunctionType, _function),
        (MethodType, _method),
        (partial, _partial),
        ((dict, MappingProxyType), _mapping),
        ((list, tuple), _sequence),
        ((set, frozenset), _set),
        (np.ndarray, _array),
    )
    for classes, handle in special:
        if isinstance(value, classes):
            return handle
    module = kind.__module__.partition(".")[0]
    if module == "keras" and kind.__name__ == "KerasTensor":
        return _keras_tensor
    if kind.__module__.startswith(("keras.src.initializers", "keras.src.regularizers", "keras.src.constraints")):
        return _class_alone
    if isinstance(value, PurePath):
        return _text
    if module == "torch" and hasattr(value, "data_ptr"):
        return _torch_tensor
    if module in ("torch", "tensorflow", "keras") and kind.__name__ in ("dtype", "device", "DType", "memory_format"):
        return _text
    if hasattr(value, "assign") and hasattr(value, "shape"):
        return _variable
    if hasattr(value, "named_modules") or is_dataclass(value) or _told(value):
        return _keras_object if module in ("keras", "tf_keras") or hasattr(value, "get_weights") else _object
    return _untold


def _told(value: Any) -> bool:
    """Whether all that an object is made of lies where Python keeps it: classes of C have places of their own."""
    bases = [vars(base) for base in type(value).__mro__ if base is not object]
    own = [base.get(name) for base in bases for name in ("__new__", "__init__")]
    return hasattr(value, "__dict__") and not any(
        isinstance(one, (BuiltinFunctionType, WrapperDescriptorType)) for one in own
    )


def _plain(walker: _Walker, value: Any) -> None:
    walker.found += (type(value), value)


def _number(walker: _Walker, value: Any) -> None:
    """What is not equal to itself, or has no hash: nan, and slices."""
    walker.found += (type(value), repr(value))


def _text(walker: _Walker, value: Any) -> None:
    walker.found += (type(value), str(value))


def _itself(walker: _Walker, value: Any) -> None:
    walker.found.append(value)


def _untold(walker: _Walker, value: Any) -> None:
    raise UntoldError


def _function(walker: _Walker, value: Any) -> None:
    if walker.again(value):
        return
    walker.found += (value.__module__, value.__qualname__, value.__code__)
    for more in (value.__defaults__, value.__kwdefaults__, value.__dict__):
        walker.walk(more)
    for cell in value.__closure__ or ():
        walker.walk(cell.cell_contents)


def _method(walker: _Walker, value: Any) -> None:
    walker.walk(value.__func__)
    walker.walk(value.__self__)


def _partial(walker: _Walker, value: Any) -> None:
    for part in (value.func, value.args, value.keywords):
        walker.walk(part)


def _mapping(walker: _Walker, value: Any) -> None:
    if walker.again(value):
        return
    walker.found += (type(value), len(value))
    for key, item in value.items():
        walker.walk(key)
        walker.walk(item)


def _sequence(walker: _Walker, value: Any) -> None:
    if not value:
        walker.found += (type(value), 0)
    elif not walker.again(value):
        walker.found += (type(value), len(value))
        for item in value:
            walker.walk(item)


def _set(walker: _Walker, value: Any) -> None:
    if all(isinstance(item, (str, int, type)) for item in value):
        walker.found += (type(value), frozenset(value))
    elif not walker.again(value):  # no order to go by: the same objects may be met in another one
        raise UntoldError


def _array(walker: _Walker, value: Any) -> None:
    if value.size > SMALL or value.dtype.hasobject:
        raise UntoldError
    walker.found += (value.shape, value.dtype, value.tobytes())


def _torch_tensor(walker: _Walker, value: Any) -> None:
    """A tensor that is no weight (those were met before) by its numbers: a forward may ask for them."""
    if walker.again(value):
        return
    if value.numel() > SMALL or value.is_meta or value.is_sparse or value.is_quantized:
        raise UntoldError
    walker.found += (tuple(value.shape), str(value.dtype), str(value.tolist()))


def _variable(walker: _Walker, value: Any) -> None:
    if walker.again(value):
        return
    dtype = getattr(value.dtype, "name", value.dtype)
    walker.found += (type(value), getattr(value, "path", "") or value.name, tuple(value.shape), dtype)


def _object(walker: _Walker, value: Any) -> None:
    if walker.again(value):
        return
    kind = type(value)
    walker.found += (kind, getattr(kind.__dict__.get("forward"), "__code__", None))
    if is_dataclass(value) and not hasattr(value, "__dict__"):
        for one in fields(value):
            walker.walk(getattr(value, one.name))
        return
    for name, item in vars(value).items():
        walker.found.append(name)
        walker.walk(item)


def _keras_object(walker: _Walker, value: Any) -> None:
    if walker.again(value):
        return
    kind = type(value)
    walker.found += (kind, getattr(kind.__dict__.get("call"), "__code__", None))
    for name, item in vars(value).items():
        if name not in KERAS_OWN:
            walker.found.append(name)
            walker.walk(item)


def _keras_tensor(walker: _Walker, value: Any) -> None:
    """What a symbolic tensor of Keras says: its shape, and which call of which layer made it; names are counted."""
    if walker.again(value):
        return
    walker.found += (value.shape, value.dtype)
    history = getattr(value, "_keras_history", None)
    if history is not None:
        walker.walk(history.operation)
        walker.found += (history.node_index, history.tensor_index)


def _class_alone(walker: _Walker, value: Any) -> None:
    """How a weight of Keras begins, and what pulls at it in training, do not count."""
    walker.found.append(type(value))
