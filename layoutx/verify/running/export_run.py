"""A torch.export program: its graph run node by node, nodes gathered under the module calls that they came from."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import getitem
from typing import Any

import numpy as np

from layoutx.model.alone import alone
from layoutx.plan.plan import Array
from layoutx.verify.recording import Recording
from layoutx.verify.running.events import Event, calls_of
from layoutx.verify.running.given import Inputs, layer_fails, no_layer, only_one, resolved, widest
from layoutx.verify.running.nested import Arguments, flattened
from layoutx.verify.running.torch_run import doubled
from layoutx.verify.running.torch_watch import calm, is_tensor, tensor, tensor_array
from layoutx.version import public

RECURRENT = re.compile(r"aten\.(lstm|gru|rnn_tanh|rnn_relu)\.")
INPLACE = re.compile(r"\w_\.")  # aten.relu_.default writes into its input


@dataclass(slots=True)
class Group:
    """The nodes of one call of one module.

    Attributes:
        inputs: nodes outside that these read (weights left out); outputs: of these, those that others read.
    """

    layer: str
    class_name: str
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


@dataclass
class ExportRunner:
    """Runs copies of an exported program; the program itself stays as it is."""

    model: Any
    framework: str = "torch"
    copies: dict[bool, Any] = field(default_factory=dict)

    def layers(self) -> Mapping[str, str]:
        """Module path -> class name, of the modules that the program was exported from."""
        return {group.layer: group.class_name for group in groups(self._graph(True))}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """The inputs that the program was exported with."""
        return tuple(tensor_array(t) for t in flattened(self.model.example_inputs or (), is_tensor))

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run, in float64 where the program can (`note` says why not).

        Raises:
            UsageError: the program does not run on these inputs.
        """
        return widest(lambda wide, note: self._recorded(inputs, wide, note), double)

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What the nodes of one module call give alone, in float64.

        Raises:
            UsageError: there is no module of this path. ModelError: its nodes do not run on these inputs.
        """
        name = resolved(name, self.layers())
        module = self._graph(True)
        found = [group for group in groups(module) if group.layer == name]
        if not found:
            raise no_layer(name, self.layers())
        group = next((g for g in found if len(g.inputs) == len(inputs)), found[0])
        try:
            values = {node: _as_tensor(a, True) for node, a in zip(group.inputs, inputs, strict=True)}
            with calm(True):
                for node in group.nodes:
                    _run(module, node, values)
            return tuple(tensor_array(t) for node in group.outputs for t in flattened(values[node], is_tensor))
        except Exception as error:
            raise layer_fails(name, error) from error

    def repeat(self, inputs: Inputs) -> None:
        """An exported program has the mode that it was exported in."""

    def _graph(self, double: bool) -> Any:
        if double not in self.copies:
            with alone(), warnings.catch_warnings():  # torch 2.13 warns of what its own trees do in a copy
                warnings.simplefilter("ignore", FutureWarning)
                module = copy.deepcopy(self.model.module())
            self.copies[double] = _wide(doubled(module)) if double else module
        return self.copies[double]

    def _recorded(self, inputs: Inputs, double: bool, note: str) -> Recording:
        import torch

        module = self._graph(double)
        args, kwargs = (), {}
        inputs = only_one(inputs, [node.name for node in module.graph.nodes if node.op == "placeholder"])
        if isinstance(inputs, Mapping):
            kwargs = {key: _as_tensor(value, double) for key, value in inputs.items()}
        else:
            args = tuple(_as_tensor(a, double) for a in (inputs if isinstance(inputs, (list, tuple)) else [inputs]))
        given = [*args, *kwargs.values()]
        flat = iter(module.graph.process_inputs(*args, **kwargs) if not kwargs else _flat(module, args, kwargs))
        values: dict[Any, Any] = {}
        kept: dict[Any, Any] = {}
        writes = any(INPLACE.search(str(node.target)) for node in module.graph.nodes)
        result: Any = None
        with calm(double):
            for node in module.graph.nodes:
                if node.op == "placeholder":
                    values[node] = next(flat)
                elif node.op == "output":
                    result = _filled(node.args[0], values, module)
                else:
                    _run(module, node, values)
                kept[node] = _kept(values.get(node), writes)
        seen: dict[int, Array] = {}

        def arrays(found: Any) -> tuple[Array, ...]:
            return tuple(seen.setdefault(id(t), tensor_array(t)) for t in flattened(found, is_tensor))

        events = []
        for group in groups(module):
            taken = tuple(a for node in group.inputs for a in arrays(kept[node]))
            gave = tuple(a for node in group.outputs for a in arrays(kept[node]))
            events.append(Event(group.layer, group.class_name, Arguments((), ("",) * len(taken)), taken, gave))
        outputs = arrays(result)
        dtype = next((a.dtype.name for a in outputs if a.dtype.kind == "f"), "float64" if double else "float32")
        whole = tuple(a for value in given for a in arrays(value))
        return Recording("torch", public(torch.__version__), dtype, whole, outputs, calls_of(events), {}, note)


def groups(module: Any) -> list[Group]:
    """The module calls of an exported graph, in the order in which they end; the whole graph last."""
    found: dict[str, Group] = {}
    for node in module.graph.nodes:
        if node.op not in ("call_function", "call_method"):
            continue
        for key, (path, class_name) in (node.meta.get("nn_module_stack") or {"": ("", "")}).items():
            kind = class_name if isinstance(class_name, str) else class_name.__name__
            found.setdefault(key, Group(path, kind.rpartition(".")[2])).nodes.append(node)
    for group in found.values():
        inside = set(group.nodes)
        reads = dict.fromkeys(n for node in group.nodes for n in node.all_input_nodes if n not in inside)
        group.inputs = [node for node in reads if node.op != "get_attr" and _is_value(node)]
        group.outputs = _whole([n for n in group.nodes if any(u not in inside for u in n.users) and _is_value(n)])
    place = {node: i for i, node in enumerate(module.graph.nodes)}
    kept = [group for group in found.values() if group.outputs]
    return sorted(kept, key=lambda group: (place[group.nodes[-1]], len(group.nodes)))


def _whole(outputs: list[Any]) -> list[Any]:
    """All that a recurrent layer gives (y, h, c), though the program reads its last state alone."""
    made = {node.args[0] for node in outputs if node.target is getitem}
    if len(made) != 1 or not all(node.target is getitem for node in outputs):
        return outputs
    return list(made) if RECURRENT.match(str(next(iter(made)).target)) else outputs


def _is_value(node: Any) -> bool:
    """Whether a node stands for a tensor, and not for the tuple that others pick from or for a check."""
    value = node.meta.get("val")
    return value is None or hasattr(value, "shape")


def _run(module: Any, node: Any, values: dict[Any, Any]) -> None:
    """Compute one node, in place where it says so."""
    if node.op == "call_module":  # `_guards_fn`: checks the shapes of the example
        return
    args, kwargs = _filled(node.args, values, module), _filled(node.kwargs, values, module)
    if node.op == "get_attr":
        values[node] = _attribute(module, node.target)
    elif node.op == "call_method":
        values[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
    else:
        values[node] = node.target(*args, **kwargs)


def _kept(value: Any, writes: bool) -> Any:
    """A value as it is now; a copy where a later node may write into it."""
    return value.clone() if writes and is_tensor(value) else value


def _filled(value: Any, values: Mapping[Any, Any], module: Any) -> Any:
    import torch.fx

    def of(node: Any) -> Any:
        return values[node] if node in values else _attribute(module, node.target)

    return torch.fx.node.map_arg(value, of)


def _attribute(module: Any, target: str) -> Any:
    found = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _wide(module: Any) -> Any:
    """The graph with float64 wherever it names float32: casts, new tensors, checks."""
    import torch
    from torch.utils import _pytree

    def change(value: Any) -> Any:
        return torch.float64 if value in (torch.float32, torch.float16, torch.bfloat16) else value

    def wide(value: Any) -> Any:
        return change(value) if isinstance(value, torch.dtype) else value

    for node in module.graph.nodes:
        if node.op == "call_function":
            node.args = _pytree.tree_map(wide, node.args)
            node.kwargs = _pytree.tree_map(wide, dict(node.kwargs))
    return module


def _flat(module: Any, args: Any, kwargs: Any) -> list[Any]:
    from torch.utils import _pytree

    found: list[Any] = _pytree.tree_flatten((args, kwargs))[0]
    return found


def _as_tensor(array: Any, double: bool) -> Any:
    import torch

    return tensor(np.asarray(array), torch.float64 if double else torch.float32, torch.device("cpu"))
