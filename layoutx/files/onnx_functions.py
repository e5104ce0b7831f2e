"""How large a graph becomes when its functions are written out: functions of functions can make billions of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.limits import within
from layoutx.files.names import shown

Key = tuple[str, str]


def check_functions(model: Any, path: Path) -> None:
    """Refuse a model whose functions call themselves, or would be written out to more nodes than the limit.

    Raises:
        FileError: it is a bomb.
    """
    if not model.functions:
        return
    calls: dict[Key, list[Key]] = {}
    for function in model.functions:  # several of one name (overloads) are taken together
        calls.setdefault((function.domain, function.name), []).extend(_called(function.node))
    sizes: dict[Key, int] = {}
    for key in calls:
        _measure(key, calls, sizes, path)
    within("FIELDS", sum(sizes.get(key, 1) for key in _called(model.graph.node)), path, "the graph, written out,")


def _called(nodes: Any) -> list[Key]:
    """What nodes call, those of their bodies too."""
    found: list[Key] = []
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            found.append((node.domain, node.op_type))
            for attribute in node.attribute:
                waiting += [attribute.g.node] if attribute.HasField("g") else [g.node for g in attribute.graphs]
    return found


def _measure(key: Key, calls: dict[Key, list[Key]], sizes: dict[Key, int], path: Path) -> None:
    """Fill in how many nodes a function becomes, and all that it calls."""
    under_way: dict[Key, None] = {}
    waiting = [key]
    while waiting:
        one = waiting[-1]
        inner = [name for name in dict.fromkeys(calls[one]) if name in calls and name not in sizes]
        if one in sizes:
            waiting.pop()
        elif any(name in under_way or name == one for name in inner):
            raise FileError(f"{path.name}: the function {shown(one[1])} calls itself", where=str(path))
        elif inner:
            under_way[one] = None
            within("DEPTH", len(under_way), path, "a function in a function")
            waiting += inner[:1]
        else:
            sizes[one] = 1 + sum(sizes.get(name, 1) for name in calls[one])
            under_way.pop(one, None)
            waiting.pop()
