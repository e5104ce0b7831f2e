"""What an ONNX layer is called: as its weights say in torch's words, else as its node's scope says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from layoutx.files.store import Tensor

# `features.5.weight`: the parameter names of torch's layers that have an ONNX operator
_TORCH = re.compile(r"^(?P<stem>.+)\.(weight|bias|running_mean|running_var|\w+_[ih]h_l\d+(_reverse)?)$")
_KERAS = re.compile(r"^(?P<stem>.+)/(kernel|bias|gamma|beta|moving_mean|moving_variance|embeddings|recurrent_kernel)\b")
MADE = re.compile(r"^(onnx::|_v_|val_)")  # names that torch's exporters make for folded constants
SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'")


def name_of(
    nodes: Sequence[Any], tensors: Mapping[str, Tensor], position: int, taken: Collection[str], prefix: str = ""
) -> str:
    """The name of a layer of one or several nodes, one that no other layer has.

    torch keeps `fc1.weight` as an initializer's name, unless it folds it; the node is then "/net/net.0/Conv". tf2onnx
    and keras2onnx call the node `model/dense/MatMul` or `dense`, numbered nodes (`Conv_3`) say nothing. Where another
    layer has the name already (tied weights), the next best is taken. `prefix` says in whose body the node lies.
    """
    node = nodes[0]
    names = [tensor.name for tensor in tensors.values()]
    said = [scope_of_all(nodes), _stem(names, _KERAS).rpartition("/")[2]]
    own = [name for name in said if name] or [str(node.name).strip("/") or f"{node.op_type.lower()}_{position}"]
    found = [*filter(None, [_stem(names, _TORCH)]), *(prefix + name for name in own)]
    return next((name for name in found if name not in taken), "") or unique(found[0], taken)


def _stem(names: Iterable[str], pattern: re.Pattern[str]) -> str:
    for name in names:
        match = None if MADE.match(name) else pattern.match(name)
        if match:
            return match["stem"]
    return ""


def own_layer(names: Iterable[str], around: str) -> bool:
    """Whether a weight is called as that of a layer of its own within a module: `attn.qkv.weight` in `attn`."""
    return _stem(names, _TORCH).startswith(f"{around}.")


def scope(node: Any) -> str:
    """The module that a node was written for, as is told beside it, or as its own name says."""
    beside = told(node)
    return scope_of(node.name, node.op_type) if beside is None else beside


def scope_of_all(nodes: Sequence[Any]) -> str:
    """The module that several nodes were written for: `ln` of "model/ln/moments/mean" and "model/ln/add_1"."""
    first = scope(nodes[0])
    paths = [str(node.name).split("/") for node in nodes if node.name]
    if len(paths) < 2 or told(nodes[0]) is not None or not all(paths[0][0] and path[0] for path in paths):
        return first
    shared = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    return shared[-1].replace(":", "_") if shared else first


def told(node: Any) -> str | None:
    """The module's path that torch's new exporter writes beside a node, "" for the outermost; None where there is none.

    torch 2.13 torch/onnx/_internal/exporter/_core.py: the path of each module from the outermost on, then the operator.
    """
    for entry in getattr(node, "metadata_props", ()):
        if entry.key == SCOPES:
            return "".join(_QUOTED.findall(entry.value)[-2:-1])
    return None


def scope_of(name: str, op: str) -> str:
    """`fc` of "/fc/Gemm", `net.0` of "/net/net.0/Conv", `dense` of "model/dense/MatMul"; "" where it says nothing."""
    number = re.compile(rf"^{re.escape(op)}_{{0,2}}\d*$", re.IGNORECASE)
    parts = [part for part in name.split(";")[0].split("/") if part]
    if parts and number.match(parts[-1]):
        parts.pop()
    if not parts:
        return ""
    if not name.startswith("/"):
        while len(parts) > 1 and parts[-1] in ("Tensordot", "Conv2D", "BiasAdd", "MatMul", "Conv1D", "ExpandDims"):
            parts.pop()
        return parts[-1].replace(":", "_")
    path = parts[0]
    for before, part in pairwise(parts):  # a Sequential's child repeats the path of its parent: features/features.0
        path = path.removesuffix(before) + part if part.startswith(before + ".") else f"{path}.{part}"
    return path


def unique(name: str, taken: Collection[str]) -> str:
    """The name, or the name with the first number that makes it one of its own."""
    found, n = name, 1
    while found in taken:
        found, n = f"{name}_{n}", n + 1
    return found
