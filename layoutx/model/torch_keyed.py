"""A torch.export program as names: its weights, the classes and options of the modules that it was exported from."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from layoutx.files.pt2_file import TIED, program_json
from layoutx.files.store import Store, Tensor
from layoutx.model.keyed import Keyed, Module, torch_tensor, wired
from layoutx.model.torch_dealt import dealt
from layoutx.model.torch_flow import followed
from layoutx.model.torch_program import Op, Program, Ref, of_export, of_file

Known = Callable[[str], Collection[str] | None]
# operation -> its arguments that are options of the module, with their places where torch names none
# (torch 2.13 aten/src/ATen/native/native_functions.yaml)
OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), ("stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        ("convtranspose1d", "convtranspose2d", "convtranspose3d", "convolution"),
        ("stride", "padding", "output_padding", "groups", "dilation"),
    ),
    **dict.fromkeys(
        ("batchnorm", "instancenorm", "cudnnbatchnorm", "nativebatchnormlegitnotraining"), ("eps", "momentum")
    ),
    **dict.fromkeys(("layernorm", "nativelayernorm", "rmsnorm"), ("normalized_shape", "eps")),
    "groupnorm": ("num_groups", "eps"),
    "nativegroupnorm": ("group", "eps"),
    "embedding": ("padding_idx",),
    **dict.fromkeys(("lstm", "gru", "rnntanh", "rnnrelu"), ("num_layers", "bidirectional", "batch_first")),
}
PRODUCTS = ("scaleddotproductattention", "bmm", "baddbmm")  # the heads of an attention show in their operands


def keyed_file(store: Store, known: Known) -> Keyed:
    """The program of a `.pt2` file."""
    return _keyed(
        of_file(program_json(store.path)), store.tensors, json.loads(store.metadata.get(TIED, "{}")), known, store
    )


def keyed_export(program: Any, known: Known) -> Keyed:
    """A live `torch.export.ExportedProgram`; nothing is copied.

    Raises:
        ModelError: tensors that do not hold plain numbers.
    """
    persistent = {**program.state_dict}
    tensors = {name: torch_tensor(name, value) for name, value in persistent.items()}
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in persistent.items():
        first = seen.setdefault((value.data_ptr(), tuple(value.shape), tuple(value.stride())), name)
        if first != name and value.numel():
            tied[name] = first
    return _keyed(of_export(program), tensors, tied, known, None)


def is_export(model: Any) -> bool:
    """Whether something is a torch.export program."""
    return hasattr(model, "graph_module") and hasattr(model, "graph_signature") and hasattr(model, "state_dict")


def _keyed(
    program: Program, tensors: Mapping[str, Tensor], tied: Mapping[str, str], known: Known, store: Store | None
) -> Keyed:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}

    keyed = Keyed("torch", tensors, modules_of(program, shapes, known), tied, store)
    keyed = replace(keyed, dealt=cache(lambda: (program, dealt(program))))
    return wired(keyed, cache(lambda: followed(program, shapes)))


def modules_of(program: Program, shapes: Mapping[str, tuple[int, ...]], known: Known) -> dict[str, Module]:
    """Path -> class and options of every module in whose forward an operation runs.

    The options that the graph does not show (they change nothing of what it computes) are left out.
    """
    ops: dict[str, list[Op]] = {}
    classes: dict[str, str] = {}
    for op in program.ops:
        for path, kind in op.stack:
            classes.setdefault(path, kind)
            ops.setdefault(path, []).append(op)
    return {path: _module(path, kind, ops[path], shapes, known) for path, kind in classes.items()}


def _module(path: str, kind: str, ops: list[Op], shapes: Mapping[str, tuple[int, ...]], known: Known) -> Module:
    name = kind.rpartition(".")[2]
    torchs, own = kind.startswith("torch.nn."), kind.startswith("layoutx.torch.")
    form = f"torch.{name}" if torchs else f"torch.layoutx.{name}" if own else ""
    keys = known(form) if form else None
    if keys is None:
        return Module("", name)
    found: dict[str, Any] = {}
    for op in ops:
        for key in OPTIONS.get(op.name, ()):
            value = op.kwargs.get(key)
            found.setdefault("num_groups" if key == "group" else key, value if value is not None else _default(key))
    found |= _padded(ops, found)
    if name == "MultiheadAttention":
        found |= _attention(path, ops, shapes)
    if name == "RNN":
        found["nonlinearity"] = "relu" if any(op.name == "rnnrelu" for op in ops) else "tanh"
    return Module(form, name, {key: value for key, value in found.items() if key in keys and value is not None})


def _default(key: str) -> Any:
    """What an option is that the file leaves out: the schema's default, which is the module's."""
    if key in ("stride", "dilation", "groups", "num_groups"):
        return 1
    return {"padding": 0, "output_padding": 0, "padding_idx": None}.get(key)


def _padded(ops: list[Op], found: Mapping[str, Any]) -> dict[str, Any]:
    """A module that pads by other things than zeros does so before its operation (torch/nn/modules/conv.py)."""
    modes = [op for op in ops if op.name == "pad" and op.kwargs.get("mode") not in (None, "constant")]
    if not modes or "stride" not in found:
        return {}
    pads = [n for n in modes[0].kwargs.get("pad", []) if isinstance(n, int)]
    even = pads[0::2] == pads[1::2]
    return {"padding_mode": modes[0].kwargs["mode"], "padding": pads[0::2][::-1] if even else "same"}


def _attention(path: str, ops: list[Op], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The number of heads: the width of the model over the width of the queries that are multiplied.

    A module whose batch comes first turns it behind time before all else (torch 2.13 torch/nn/modules/activation.py).
    """
    turned = ops[0].name == "transpose" and {ops[0].kwargs.get("dim0"), ops[0].kwargs.get("dim1")} == {0, 1}
    found: dict[str, Any] = {"batch_first": turned}
    width = shapes.get(f"{path}.out_proj.weight" if path else "out_proj.weight", (0,))[0]
    for op in ops:
        at = 1 if op.name == "baddbmm" else 0
        query = op.args[at] if op.name in PRODUCTS and len(op.args) > at else None
        size = _last(query, ops)
        if size:
            return {**found, "embed_dim": width, "num_heads": width // size}
        if op.name == "nativemultiheadattention":
            return {"embed_dim": width, "num_heads": op.kwargs.get("num_head")}
    return found


def _last(query: Any, ops: list[Op]) -> int:
    """The size of a value's last dimension, from the view that made it into heads."""
    made = {name: op for op in ops for name in op.outputs}
    name = query.name if isinstance(query, Ref) else ""
    while name in made:
        op = made[name]
        size = op.kwargs.get("size") if op.name in ("view", "reshape") else None
        if isinstance(size, (list, tuple)) and isinstance(size[-1], int):
            return size[-1]
        name = next((ref.name for ref in op.refs()), "")
    return 0
