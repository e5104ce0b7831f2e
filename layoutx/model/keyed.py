"""A model known by its tensors' dotted names: a state dict, a tree, or a live module with its classes and configs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from functools import cache
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, ModelError, raise_all
from layoutx.files.notes import skipped_of, tied_names
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.model.record import LayerRecord, ModelRecord, Piece, Refinement, Way
from layoutx.model.spelling import cleaned
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form

BESIDE = "kept by an attention beside its weights (a mask): it stays as it is"


@frozen
class Module:
    """What is known of one module of a keyed model: its form ("torch.LSTM") and its config, where it is live.

    Of a model with a config also what its axes are made of, and why they could not be followed. `names`: the form's
    names of its tensors -> their full names, where the module calls them as it likes (an attention in a class of one's
    own).
    `parts`: path inside the module -> the path of the weights of that part, where they lie outside of it.
    """

    form: str = ""
    class_name: str = ""
    config: Mapping[str, Any] = NOTHING
    refine: Mapping[str, Refinement] = NOTHING
    note: str = ""
    pieces: Mapping[str, tuple[Piece, ...]] = field(default=NOTHING, compare=False)
    names: Mapping[str, str] = NOTHING
    parts: Mapping[str, str] = NOTHING


@frozen
class Keyed:
    """A model as names.

    Attributes:
        framework: "torch", "flax", "paddle", ...
        tensors: full name with dots -> tensor, in the model's own order; tied ones too. The tensor has the file's name.
        modules: module path -> what is known of it; empty for a bare state dict.
        tied: full name -> the first name of the same tensor.
        leftover: the file's name of a tensor that is no weight -> why.
        beside: likewise of one that an attention keeps beside its weights, and that stays as it is (its mask), or that
            nobody trained (counted positions).
        kept: those of `beside` by their full names.
        wires: gives module path -> the modules that feed it and how, where that can be told; not called before
            somebody wants to know.
        axes: gives module path -> a record with what the axes of its weights are made of, likewise.
        told: gives module path -> config values that a run of the model on numbers tells, likewise: the first row that
            is read of a table of positions.
        split: full name of a tensor that held a layer at each index of an axis -> the names of these layers' tensors.
        scanned: gives full name -> (axis, size, which loop) of what the model's program scans over, likewise.
        flow: gives module path -> its axes and what feeds it, of a model whose layers have names of their own now.
        noted: the file's name of a tensor -> which of the layers of its certificate it belongs to, and their form.
        dealt: gives the model's program, and path of each layer that is several in one -> which outputs are whose; or
            None, where no program is known.
        refused: why the model did not run on inputs that were made up for it, filled when its wires are asked for.
    """

    framework: str
    tensors: Mapping[str, Tensor]
    modules: Mapping[str, Module] = NOTHING
    tied: Mapping[str, str] = NOTHING
    store: Store | None = None
    leftover: Mapping[str, str] = NOTHING
    beside: Mapping[str, str] = NOTHING
    kept: Mapping[str, Tensor] = NOTHING
    wires: Callable[[], Mapping[str, tuple[Way, ...]]] | None = field(default=None, compare=False, repr=False)
    axes: Callable[[], Mapping[str, LayerRecord]] | None = field(default=None, compare=False, repr=False)
    told: Callable[[], Mapping[str, Mapping[str, Any]]] | None = field(default=None, compare=False, repr=False)
    split: Mapping[str, tuple[str, ...]] = NOTHING
    scanned: Callable[[], Mapping[str, tuple[int, int, int]]] | None = field(default=None, compare=False, repr=False)
    flow: Callable[[Keyed], Mapping[str, LayerRecord]] | None = field(default=None, compare=False, repr=False)
    noted: Mapping[str, tuple[int, str]] = field(default=NOTHING, compare=False, repr=False)
    dealt: Callable[[], tuple[Any, Mapping[str, Any]] | None] | None = field(default=None, compare=False, repr=False)
    refused: Sequence[str] = field(default=(), compare=False, repr=False)

    def distinct(self) -> Keyed:
        """The model with each tensor once, under its first name: what has to be written, and what has to be used.

        A module that shares one tensor and owns another (a bias of its own) stays whole.
        """
        own = {name.rpartition(".")[0] for name in self.tensors if name not in self.tied}
        again = {name for name in self.tied if name.rpartition(".")[0] not in own}
        return replace(self, tensors={n: t for n, t in self.tensors.items() if n not in again})

    def inside(self, path: str) -> bool:
        """Whether a path that is no module lies in a layer whose form takes it in: one way of a Bidirectional."""
        while self.modules and path:
            path = path.rpartition(".")[0]
            if (outer := self.modules.get(path)) is not None:
                return bool(path and outer.form)
        return False

    def under(self, prefix: str) -> dict[str, str]:
        """Names below a module path -> full names; the whole model for ""."""
        start = f"{prefix}." if prefix else ""
        return {name[len(start) :]: name for name in self.tensors if name.startswith(start)}


def forms_for(kind: str, keyed: Keyed, registry: Registry) -> tuple[Form, ...]:
    """The forms of a kind that its layers may have in a keyed model; some only where a module is of that class."""
    there = {module.form for module in keyed.modules.values()}
    forms = registry.forms_of(kind, keyed.framework, by_class=True)
    return tuple(form for form in forms if not form.by_class or form.name in there)


def prefixes(names: Mapping[str, Any]) -> list[str]:
    """All module paths that own at least one tensor directly, in order of first appearance."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def keyed_store(store: Store, framework: str = "torch") -> Keyed:
    """A file of named tensors as a keyed model: names without collections, what is no weight left out."""
    found = cleaned(framework, store.tensors)
    tensors = {short: store.tensors[name] for short, name in found.names.items()}
    return Keyed(
        framework,
        tensors,
        tied=tied_names(store.metadata),
        store=store,
        leftover={**found.leftover, **skipped_of(store.metadata)},
    )


def keyed_module(module: Any, known: Callable[[str], Collection[str] | None]) -> Keyed:
    """A live torch module: names, classes and configs; nothing is copied.

    Args:
        module: a `torch.nn.Module`.
        known: form name -> the config keys that its spec reads, with defaults; None for no such form.

    Raises:
        ModelError: tensors that do not hold plain numbers (sparse, quantized), or parameters without a shape.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    problems: list[LayoutxError] = []
    for name, value in module.state_dict(keep_vars=True).items():
        if not hasattr(value, "copy_"):
            continue
        try:
            tensors[name] = torch_tensor(name, value)
        except ModelError as error:
            problems.append(error)
            continue
        if value.numel() and not value.is_meta:  # tensors without memory are at the same place, and not the same
            key = (value.data_ptr(), tuple(value.shape), tuple(value.stride()))
            first = seen.setdefault(key, name)
            if first != name:
                tied[name] = first
    raise_all(problems, "the module does not hold plain numbers everywhere")
    modules = {}
    for path, child in module.named_modules():
        kind = type(child)
        if kind.__module__ == "torch.nn.utils.parametrize" and kind.__name__.startswith("Parametrized"):
            kind = kind.__bases__[0]  # torch makes a class ParametrizedLinear for each module with a parametrization
        form = _form_of(kind)
        keys = known(form) if form else None
        config = {key: getattr(child, key) for key in keys or () if hasattr(child, key)}
        config = {key: _plain(False if _left_out(child, key) else value) for key, value in config.items()}
        modules[path] = Module(form if keys is not None else "", kind.__name__, config)
    from layoutx.model.torch_own import own_classes

    modules = own_classes(module, modules)

    @cache
    def flow() -> Mapping[str, LayerRecord]:
        from layoutx.model.torch_flow import followed
        from layoutx.model.torch_trace import traced

        program = traced(module)
        return followed(program, {name: tensor.shape for name, tensor in tensors.items()}) if program else {}

    beside = {f"{path}." if path else "": set(found.names.values()) for path, found in modules.items() if found.names}
    held = {name for name in tensors for start, own in beside.items() if name.startswith(start) and name not in own}
    kept = {name: tensors[name] for name in sorted(held)}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in kept}
    return wired(Keyed("torch", tensors, modules, tied, beside=dict.fromkeys(kept, BESIDE), kept=kept), flow)


def wired(keyed: Keyed, flow: Callable[[], Mapping[str, LayerRecord]]) -> Keyed:
    """The model with the wiring and the axes that its program tells, once somebody asks for them."""

    @cache
    def axes() -> Mapping[str, LayerRecord]:
        from layoutx.model.torch_flow import sure

        return sure(flow())

    return replace(keyed, wires=lambda: {path: found.ways for path, found in flow().items()}, axes=axes)


def _form_of(kind: type) -> str:
    """The form's name of a module's class; "" of a class that is neither torch's own nor of layoutx.torch."""
    if kind.__module__.startswith("layoutx.torch."):
        return f"torch.layoutx.{kind.__name__}"
    return f"torch.{kind.__name__}" if kind.__module__.startswith("torch.nn.") else ""


def keyed_view(model: ModelRecord) -> Keyed:
    """A model with a config as names, `<layer>.<slot>`, with every layer's form, config, followed axes and wiring.

    For pairing with another model that has a config of its own.
    """
    tensors, first, tied = {}, dict[str, str](), {}
    modules: dict[str, Module] = {}
    for record in model.layers:
        path = record.name.replace("/", ".")
        modules[path] = Module(
            record.form, record.class_name, record.config, record.refine, record.note, pieces=record.pieces
        )
        for slot, tensor in record.tensors.items():
            full = f"{path}.{slot.replace('/', '.')}"
            tensors[full] = tensor
            kept = first.setdefault(tensor.name, full)
            if kept != full:
                tied[full] = kept

    def wires() -> Mapping[str, tuple[Way, ...]]:
        from layoutx.model.matching.wiring import ways_of

        return {n.replace("/", "."): tuple(map(_dotted, own)) for n, own in ways_of(model).items()}

    return Keyed(model.framework, tensors, modules, tied, model.store, wires=wires)


def _dotted(way: Way) -> Way:
    return replace(way, maker=way.maker.replace("/", "."))


def _left_out(module: Any, key: str) -> bool:
    """Whether a config key is the name of a parameter that the module was built without: `bias` of bias=False."""
    return key in module._parameters and module._parameters[key] is None


def _plain(value: Any) -> Any:
    """`bias` is a parameter on most modules and a flag on recurrent ones: what counts is whether it is there."""
    if hasattr(value, "data_ptr"):
        return True
    return list(value) if isinstance(value, tuple) else value


def torch_tensor(name: str, value: Any) -> Tensor:
    """A live torch tensor as a lazy one; read without a copy where it lies on the CPU row by row.

    Raises:
        ModelError: it holds no plain numbers, or has no shape yet; on reading: it has no values.
    """
    from layoutx.files.torch_file import array_of, dtype_of, need_torch

    torch = need_torch()
    if torch.nn.parameter.is_lazy(value):
        why, do = "a lazy module knows its shapes only after a first call", "call the module on an input first"
        raise ModelError(f"{name} has no shape yet", why=why, do=do)
    settled = value.detach()
    dtype = dtype_of(torch, settled.dtype)
    if dtype is None or settled.layout != torch.strided or settled.is_quantized:
        raise ModelError(f"{name} does not hold plain numbers", where=f"{settled.dtype}, {settled.layout}")

    def read() -> Any:
        if settled.is_meta:
            raise ModelError(f"{name} has no values", why="it is on the meta device", do="load the module's weights")
        return array_of(torch, settled.cpu(), dtype)

    return Tensor(name, dtype, tuple(settled.shape), read)
