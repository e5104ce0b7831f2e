"""A torch computation as a list of operations, read alike from a program, its file and a module that is traced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen

Size = int | str | None  # a number, a symbol, or not known
Stack = tuple[tuple[str, str], ...]  # module path and class with its package, outermost first


@frozen
class Ref:
    """A value by its name."""

    name: str


@frozen
class Op:
    """One operation.

    Attributes:
        name: what it is called, in small letters alone: "conv2d", "view", "batchnorm" (overloads are left out).
        args, kwargs: numbers, texts, lists and `Ref`s.
        outputs: the names of its values, in order.
        stack: the modules in whose forward it runs.
        whole: it stands for a whole module, the last of the stack, as torch.fx leaves them.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]
    stack: Stack = ()
    whole: bool = False

    def arg(self, at: int, *names: str, default: Any = None) -> Any:
        """An argument by its name or its place."""
        for name in names:
            if name in self.kwargs:
                return self.kwargs[name]
        return self.args[at] if 0 <= at < len(self.args) else default

    def refs(self) -> Iterator[Ref]:
        """Every value that it reads."""
        yield from _refs((self.args, tuple(self.kwargs.values())))

    def operands(self) -> Iterator[Ref]:
        """The values of its first argument, one that stands there twice as often."""
        yield from _refs(self.arg(0, "tensors"))


@frozen
class Program:
    """A computation.

    Attributes:
        weights: value name -> the name in the state dict.
        inputs: names of the model's own inputs.
        shapes: value name -> its sizes, where they are known.
        outputs: names of what it gives.
        tried: it was seen in a run on inputs that were made up, whose axes may stand in another order.
    """

    ops: tuple[Op, ...]
    weights: Mapping[str, str]
    inputs: tuple[str, ...]
    shapes: Mapping[str, tuple[Size, ...]] = NOTHING
    outputs: tuple[str, ...] = ()
    tried: bool = False


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _refs(one)


def base(target: str) -> str:
    """`torch.ops.aten.max_pool2d_.default`, the function max_pool2d and the class MaxPool2d are maxpool2d."""
    parts = target.split(".")
    at = parts.index("aten") + 1 if "aten" in parts[:-1] else len(parts) - 1
    return parts[at].replace("_", "").lower()


def path_of(text: str) -> str:
    """A module's path; torch.export marks further calls of it, `fc@1`."""
    return text.partition("@")[0]


def of_file(document: Mapping[str, Any]) -> Program:
    """The program of a `.pt2` file from its JSON (torch 2.13 torch/_export/serde/schema.py, version 8)."""
    module = document["graph_module"]
    graph = module["graph"]
    weights: dict[str, str] = {}
    inputs: list[str] = []
    for spec in module["signature"]["input_specs"]:
        (kind, said), *_ = spec.items()
        name = said.get("parameter_name") or said.get("buffer_name") or said.get("tensor_constant_name")
        if name:
            weights[said["arg"]["name"]] = name
        elif kind == "user_input" and "as_tensor" in said["arg"]:
            inputs.append(said["arg"]["as_tensor"]["name"])
    ops = []
    for node in graph["nodes"]:
        positional = [_json_value(one["arg"]) for one in node["inputs"] if one.get("kind", 1) == 1]
        named = {one["name"]: _json_value(one["arg"]) for one in node["inputs"]}
        outputs = tuple(ref.name for one in node["outputs"] for ref in _refs(_json_value(one)))
        stack = _json_stack(node.get("metadata", {}).get("nn_module_stack", ""))
        ops.append(Op(base(node["target"]), tuple(positional), named, outputs, stack))
    shapes = {name: tuple(map(_json_size, one["sizes"])) for name, one in graph["tensor_values"].items()}
    given = tuple(ref.name for one in graph.get("outputs", ()) for ref in _refs(_json_value(one)))
    return Program(tuple(ops), weights, tuple(inputs), shapes, given)


def _json_value(argument: Mapping[str, Any]) -> Any:
    kind: str = next(iter(argument), "as_none")
    value: Any = argument.get(kind)
    if kind in ("as_tensor", "as_optional_tensor") and isinstance(value, Mapping):
        return Ref(value["name"]) if "name" in value else _json_value(value)
    if kind in ("as_tensors", "as_optional_tensors"):
        return [_json_value({"as_tensor": one}) for one in value]
    if kind == "as_sym_int":
        return Ref(value["as_name"]) if "as_name" in value else value.get("as_int")
    if kind == "as_sym_ints":
        return [_json_value({"as_sym_int": one}) for one in value]
    return None if kind == "as_none" else value


def _json_size(size: Mapping[str, Any]) -> Size:
    return size["as_int"] if "as_int" in size else str(size.get("as_expr", {}).get("expr_str", "")) or None


def _json_stack(text: str) -> Stack:
    found = [part.rsplit(",", 2) for part in text.split(";") if part.count(",") > 1]
    return tuple((path_of(path), kind) for _, path, kind in found if not path.startswith("_empty_nn_module"))


def of_export(program: Any) -> Program:
    """A live `torch.export.ExportedProgram`."""
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights |= getattr(signature, "inputs_to_lifted_tensor_constants", {})
    shapes: dict[str, tuple[Size, ...]] = {}
    for node in program.graph.nodes:
        if hasattr(node.meta.get("val"), "shape"):
            shapes[node.name] = tuple(n if type(n) is int else str(n) for n in node.meta["val"].shape)
    inputs = tuple(name for name in signature.user_inputs if isinstance(name, str))
    given = tuple(name for name in signature.user_outputs if isinstance(name, str))
    return Program(tuple(_ops(program.graph.nodes)), weights, inputs, shapes, given)


def _ops(nodes: Any) -> Iterator[Op]:
    """The nodes of a graph of torch.ops; what picks one output of another node is that output."""
    import operator

    for node in nodes:
        if node.op != "call_function" or (node.target is operator.getitem and hasattr(node.args[0], "name")):
            continue
        picks = {user.args[1]: user.name for user in node.users if user.target is operator.getitem}
        outputs = tuple(picks.get(at, f"{node.name}:{at}") for at in range(max(picks) + 1)) if picks else (node.name,)
        stack = tuple((path_of(p), _kind(k)) for p, k in (node.meta.get("nn_module_stack") or {}).values())
        kwargs = {key: value_of(one) for key, one in node.kwargs.items()}
        names = [a.name for a in getattr(getattr(node.target, "_schema", None), "arguments", ())]
        kwargs |= {name: value_of(one) for name, one in zip(names, node.args, strict=False)}
        target = str(node.target) if names else node.target.__name__
        yield Op(
            base(f"torch.ops.{target}" if names else target), tuple(map(value_of, node.args)), kwargs, outputs, stack
        )


def _kind(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def value_of(value: Any) -> Any:
    """An argument of a graph's node, with names for other nodes."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [value_of(one) for one in value]
    return Ref(value.name) if hasattr(value, "all_input_nodes") else value
