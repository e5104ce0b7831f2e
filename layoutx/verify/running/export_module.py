"""A torch.export program as a module that can be called: in batches of the size that it was exported with."""

from __future__ import annotations

from typing import Any

from layoutx.model.torch_keyed import is_export


def runnable(model: Any) -> Any:
    """A torch.export program as a torch module; anything else as it is."""
    return _module(model) if is_export(model) else model


def _module(program: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map

    graph, size = program.module(), _batch(program)

    class Called(torch.nn.Module):  # type: ignore[misc]
        """The graph is no child: exported modules refuse eval()."""

        def parameters(self, recurse: bool = True) -> Any:
            """Those of the program: its dtype and device."""
            return iter(program.state_dict.values())

        def forward(self, *inputs: Any) -> Any:
            """Batches of the one size that the program takes, the last one filled up."""
            count = len(inputs[0])
            if size in (0, count):
                return graph(*inputs)
            rows = [torch.arange(at, at + size) % count for at in range(0, count, size)]
            made = [graph(*(x[own] for x in inputs)) for own in rows]
            return tree_map(lambda *parts: torch.cat(parts)[:count], *made)

    return Called()


def _batch(program: Any) -> int:
    """The first dimension of every input, where the program fixes one; else 0."""
    names = {name for name in program.graph_signature.user_inputs if isinstance(name, str)}
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in names]
    first = {shape[0] for shape in shapes if len(shape)}
    fixed = first.pop() if len(first) == 1 else 0
    return fixed if type(fixed) is int else 0
