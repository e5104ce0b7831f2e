"""From a file, a live model or a callable's name to what a conversion works on: records, or names alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.certificate import RECORDING
from layoutx.files.names import refusal_of
from layoutx.files.open import open_store
from layoutx.files.store import Store
from layoutx.model.alone import alone
from layoutx.model.callables import built, no_class
from layoutx.model.config import with_input_shape
from layoutx.model.constants import aside, unformed_aside
from layoutx.model.dense_apart import dense_apart
from layoutx.model.entry import named
from layoutx.model.fused import said_apart
from layoutx.model.identify import identified
from layoutx.model.keyed import Keyed, keyed_module, keyed_store
from layoutx.model.loose import taken_apart
from layoutx.model.onnx_live import is_onnx, onnx_store
from layoutx.model.origin import with_values
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.said import forms_said, values_said
from layoutx.model.spelling import framework_of
from layoutx.model.stacked import unstacked
from layoutx.model.state import state_records
from layoutx.model.tree import is_tree, tree_keyed
from layoutx.model.tree_config import told
from layoutx.spec.registry import MAIN, Registry
from layoutx.spec.registry import registry as builtin
from layoutx.words import near

JAX = ("flax", "nnx", "haiku", "equinox")  # jax itself has no layers, and these keep theirs each in its own way
KERAS_FORMATS = ("keras", "weights.h5", "h5", "live")


def is_keras_file(store: Store) -> bool:
    """Whether a file holds a Keras model or its weights, a checkpoint of objects too."""
    if store.format != "tf_checkpoint":
        return store.format in KERAS_FORMATS
    from layoutx.model.tf_objects import is_objects

    return is_objects(store)


def says_itself(store: Store) -> bool:
    """Whether a file is more than names and numbers."""
    return is_keras_file(store) or store.format in ("onnx", "tflite")


def model_of(
    store: Store,
    registry: Registry,
    forms: Mapping[str, str],
    *,
    template: ModelRecord | None = None,
    config: Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    framework: str = "",
    plain: Callable[[Keyed], Keyed] = lambda keyed: keyed,
    values: Mapping[str, Any] = NOTHING,
    elsewhere: Collection[str] = (),
) -> ModelRecord:
    """The layers of a file; those whose class the file does not tell are identified by names and shapes.

    Args:
        forms: layer -> form, decided by the user.
        template: a model whose config also describes this file; config: such a config itself.
        input_shape: the model's input without batch, where the config does not say it.
        framework: whose names a file of named tensors holds, where the user says it.
        plain: what makes weights of those that are stored in parts, or refuses them.
        values: config values that the user adds, for every layer that reads them.
        elsewhere: keys of such values that may be meant for another model.
    """
    if framework:
        check_framework(framework, registry)
    own = store.format if store.format in ("onnx", "tflite") else "keras"
    if says_itself(store) and framework not in ("", own, "keras1"):
        raise UsageError(f"{store.path.name} says itself what it is, not {framework}", do="leave --from out")
    bare = False
    if store.format == "onnx":
        from layoutx.model.onnx_model import onnx_records

        model = onnx_records(store)
    elif store.format == "tflite":
        from layoutx.model.tflite_model import tflite_records

        model = tflite_records(store)
    elif is_keras_file(store):
        if input_shape is not None:
            store = replace(store, config=with_input_shape(store.config, input_shape))
        from layoutx.model.keras import UNSAID, records

        model = records(store, lambda name: name in registry.forms, config=config, template=template)
        bare = not (template or config) and all(r.note.startswith(UNSAID) for r in model.layers)
    else:
        keyed = plain(keyed_of(store, framework, registry, values))
        model = told(state_records(keyed, registry, values, forms), keyed, registry)
    refused = refusal_of([layer.name for layer in model.layers])
    for place, layer in enumerate(model.layers if refused else ()):
        named(layer.name, "layer's name", f"{store.path}, layer {place}")
    model = with_forms(model, registry, forms, guessing=bare, values=values)
    said = config or (template.store.config if template is not None else None)
    model = with_values(model, registry, values, said, elsewhere)
    model = dense_apart(model, values)
    if model.framework == "tf1":
        from layoutx.model.tf1_scopes import with_assumed

        model = with_assumed(model, registry, values)
    return model


LIBRARIES = {"jax": JAX, "tensorflow": ("keras", "tf1"), "tf": ("keras", "tf1")}  # whose layers are those of others


def check_framework(name: str, registry: Registry) -> None:
    """Refuse a framework that no form is of.

    Raises:
        UsageError: with the names of those that there are.
    """
    frameworks = sorted(set(registry.last_names()), key=lambda one: ([*MAIN, one].index(one), one))
    if name not in frameworks:
        do = f"--from and --to name one of them: {', '.join(LIBRARIES[name])}" if name in LIBRARIES else ""
        raise UsageError(f"no framework is called {name!r}", why=near(name, frameworks, "known:"), do=do)


def with_forms(
    model: ModelRecord,
    registry: Registry,
    forms: Mapping[str, str],
    *,
    guessing: bool = False,
    values: Mapping[str, Any] = NOTHING,
) -> ModelRecord:
    """A model whose layers have the forms that the user gave, or that names and shapes tell.

    Args:
        values: config values that the user adds; some tell which of two layouts a tensor has.

    Raises:
        UsageError: a form for a layer that there is not.
    """
    said = forms_said(forms, model)
    known = {"version": 2} if model.framework == "keras" and model.version.startswith("2") else {}

    def formed(r: LayerRecord) -> LayerRecord:
        certain = {**known, **values_said(values, r.name)} if known or values else NOTHING
        return identified(r, registry, model.framework, said.get(r.name, ""), guessing=guessing, known=certain)

    layers = tuple(formed(r) for r in model.layers)
    plain = taken_apart(replace(model, layers=layers), model.layers, registry)
    found = unformed_aside(plain)
    return found if found is plain else replace(found, layers=tuple(r if r.form else formed(r) for r in found.layers))


def keyed_of(
    store: Store, framework: str = "", known: Registry | None = None, values: Mapping[str, Any] = NOTHING
) -> Keyed:
    """A file of named tensors: names of this framework, else of the one that its certificate or format tells.

    Args:
        values: the user's: `{"layers.stacked": 1}` is which axis counts layers that are kept as one.

    Raises:
        UsageError: the file is a recording; stacked layers that cannot be taken apart so.
    """
    if RECORDING in store.metadata:
        raise UsageError(
            f"{store.path.name} is a recording of one run",
            why="it holds what the layers handed on, and no weights",
            do="compare it with `layoutx validate`",
        )
    if store.format == "pt2" and framework in ("", "torch"):
        from layoutx.model.torch_keyed import keyed_file

        return aside(keyed_file(store, lambda name: _keys(name, known or builtin())), known or builtin())
    found = aside(keyed_store(store, framework_of(store, framework)), known or builtin())
    return unstacked(said_apart(found, values), known or builtin(), values)


def template_of(
    like: Any, to: str, registry: Registry, forms: Mapping[str, str] = NOTHING, values: Mapping[str, Any] = NOTHING
) -> Keyed | ModelRecord:
    """The target of a conversion.

    Args:
        like: a path, "package.module:callable" (imported and called: the one place that runs code), a
            live torch module or a live Keras model.
        forms: layer of the template -> form, decided by the user. values: as for `keyed_of`.
    """
    like = built(like)
    if isinstance(like, (str, Path)):
        store = open_store(like)
        if says_itself(store):
            return dense_apart(model_of(store, registry, forms), values)
        if store.format == "pt2":
            return keyed_of(store, to, registry)
        return unstacked(said_apart(aside(keyed_store(store, to), registry), values), registry, values)
    return live_model(like, registry, forms, to if is_tree(like) else "", values=values)


@alone()
def live_model(
    model: Any,
    registry: Registry,
    forms: Mapping[str, str] = NOTHING,
    framework: str = "",
    inputs: Any = None,
    values: Mapping[str, Any] = NOTHING,
) -> Keyed | ModelRecord:
    """A live torch module or torch.export program, Keras or ONNX model, or tree of jax, mlx or paddle.

    Args:
        forms: the user's, for layers of a Keras model.
        framework: whose names a bare mapping holds.
        inputs: arrays that the model is run on, in any axis order: they tell the shapes that a module of jax meets.
        values: as for `keyed_of`.

    Raises:
        UsageError: none of them.
    """
    from layoutx.model.keras_live import is_keras, live_records

    no_class(model)
    if framework:
        check_framework(framework, registry)
    if is_keras(model):
        _said_of(model, "keras", framework)
        records = live_records(model, lambda name: name in registry.forms)
        return dense_apart(with_forms(records, registry, forms), values)
    if hasattr(model, "state_dict") and hasattr(model, "named_modules") and not is_tree(model):
        _said_of(model, "torch", framework)
        return said_apart(aside(keyed_module(model, lambda name: _keys(name, registry)), registry), values)
    from layoutx.model.torch_keyed import is_export, keyed_export

    if is_export(model):
        return aside(keyed_export(model, lambda name: _keys(name, registry)), registry)
    if is_tree(model):
        found = tree_keyed(model, lambda name: _keys(_own(name, registry), registry), framework, inputs)
        modules = {path: replace(m, form=_own(m.form, registry)) for path, m in found.modules.items()}
        found = said_apart(aside(replace(found, modules=modules), registry), values)
        return unstacked(found, registry, values)
    if is_onnx(model):
        return model_of(onnx_store(model), registry, forms)
    raise UsageError(
        f"a {type(model).__name__} is neither a torch module nor a Keras model",
        why="nor a torch.export program, flax variables or (module, variables), haiku parameters or (transformed, "
        "params), a module of nnx, equinox, mlx or paddle",
        do="of flax' TrainState give (module, {'params': state.params, 'batch_stats': state.batch_stats})"
        if hasattr(model, "apply_fn")
        else "give a model of this layer: x = keras.Input(SHAPE); keras.Model(x, layer(x))"
        if hasattr(model, "get_weights")
        else "",
    )


def _said_of(model: Any, own: str, said: str) -> None:
    if said not in ("", own):
        raise UsageError(f"a {type(model).__name__} is a {own} model, not one of {said}", do="leave the framework out")


def live_source(
    model: Any,
    registry: Registry,
    forms: Mapping[str, str],
    values: Mapping[str, Any] = NOTHING,
    framework: str = "",
    plain: Callable[[Keyed], Keyed] = lambda keyed: keyed,
) -> ModelRecord:
    """The layers of a live model, with what its modules tell of themselves.

    Args:
        forms, values, framework, plain: as for `model_of`.
    """
    found = live_model(model, registry, framework=framework, values=values)
    if isinstance(found, Keyed):
        found = plain(found)
        found = told(state_records(found, registry, values, forms), found, registry)
    return with_values(with_forms(found, registry, forms, values=values), registry, values)


def _own(form: str, registry: Registry) -> str:
    """The form of a class that is another one's by another name: linen's SelfAttention."""
    framework, _, name = form.partition(".")
    return f"{framework}.{registry.framework(framework).classes.get(name, name)}" if form else form


def _keys(form: str, registry: Registry) -> Collection[str] | None:
    return registry.forms[form].config if form in registry.forms else None
