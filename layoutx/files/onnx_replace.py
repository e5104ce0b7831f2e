"""Values that an ONNX graph computes from stored tensors become stored tensors; what nothing reads any more goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from layoutx.files.onnx_file import STRING, bodies, label, need_onnx, structure, tensors_in
from layoutx.files.store import Store, Tensor


def replaced(template: Store, names: Collection[str]) -> Any:
    """The template's ModelProto without numbers, where each of these names is an initializer.

    A name that no initializer and no Constant has is a value that nodes compute: its readers then read the initializer.
    Other readers of what it was made of keep that; what only served to compute it is left out.
    """
    model = structure(template.path)
    stored = {name for name, _ in tensors_in(model.graph)}
    wanted = {name: template.tensors[name] for name in names if name not in stored and name in template.tensors}
    if not wanted:
        return model
    read = _read(model.graph)
    for prefix, graph in list(_graphs(model.graph)):
        _cut(graph, prefix, wanted, model.ir_version)
    _swept(model, read)
    return model


def names_of(template: Store, names: Collection[str]) -> tuple[str, ...]:
    """The tensors of a copy of the template in which these names are stored."""
    return tuple(n for n, proto in tensors_in(replaced(template, names).graph) if proto.data_type != STRING)


def _graphs(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A graph and its bodies, each with the prefix of its tensors' names."""
    yield prefix, graph
    for i, node in enumerate(graph.node):
        for attribute in node.attribute:
            for body in bodies(attribute):
                yield from _graphs(body, f"{prefix}{label(node, i)}/{attribute.name}/")


def _cut(graph: Any, prefix: str, wanted: Mapping[str, Tensor], version: int) -> None:
    helper = need_onnx().helper
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    for node in graph.node:
        for i, value in enumerate(node.output):
            tensor = wanted.get(prefix + value) if value else None
            if tensor is None:
                continue
            unused = f"{value}_computed"
            while unused in taken:
                unused += "_"
            taken.add(unused)
            node.output[i] = unused
            kind = helper.np_dtype_to_tensor_dtype(tensor.dtype)
            graph.initializer.append(need_onnx().TensorProto(name=value, data_type=kind, dims=tensor.shape))
            if version < 4 and not prefix:  # every initializer is an input too
                graph.input.append(helper.make_tensor_value_info(value, kind, tensor.shape))


def _read(graph: Any) -> Counter[str]:
    """How often each name is read, anywhere in the model."""
    found: Counter[str] = Counter()
    for _, one in _graphs(graph):
        found.update(name for node in one.node for name in node.input)
        found.update(output.name for output in one.output)
    return found


def _swept(model: Any, before: Counter[str]) -> None:
    """Takes away nodes and tensors that were read before and are not now, until there are none."""
    while True:
        now = _read(model.graph)
        gone = 0
        for _, graph in list(_graphs(model.graph)):
            for node in list(graph.node):
                alive = [name for name in node.output if name and now[name]]
                served = any(before[name] or name.rstrip("_").endswith("_computed") for name in node.output)
                if not alive and served:
                    graph.node.remove(node)
                    gone += 1
            for proto in list(graph.initializer):
                if before[proto.name] and not now[proto.name]:
                    graph.initializer.remove(proto)
                    for info in [info for info in graph.input if info.name == proto.name]:
                        graph.input.remove(info)
                    gone += 1
        if not gone:
            return
