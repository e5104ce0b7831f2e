"""Linear layers that are several in one (qkv, gate and up): which of their outputs are whose, as a program deals them.

The outputs are numbered, and every operation that only moves numbers is carried out on these. Outputs that an
operation computes with together belong together; what is never read beside others is a layer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from layoutx.files.dtypes import Array
from layoutx.model.share import Share
from layoutx.model.torch_flow import OVER
from layoutx.model.torch_layers import LINEAR
from layoutx.model.torch_program import Op, Program

MOST = 1 << 23  # numbers of a layer's outputs that are followed
MOST_PARTS = 16
MOVES = {
    name.replace("_", ""): name
    for name in (
        *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "alias"),
        *("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "select", "narrow", "expand"),
        *("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "broadcast_to", "repeat_interleave"),
    )
} | {"mt": "adjoint", "slice": "slice", "getitem": "__getitem__"}
POINTWISE = frozenset(("mul", "add", "sub", "div", "truediv", "rsub", "neg", "float", "double", "to", "typeas"))
JOINED = ("cat", "concat", "concatenate", "stack")
ASKED = ("size", "getattr", "dim", "numel", "shape", "symsize")
PRODUCTS = ("matmul", "bmm", "baddbmm")
ATTENTION = "scaleddotproductattention"
CURVES = frozenset(("silu", "gelu", "sigmoid", "tanh", "relu", "mish", "elu", "softplus", "hardswish", "erf"))
QUERY, KEY, VALUE, GATE, UP = "query", "key", "value", "gate", "up"


@dataclass
class Dealing:
    """What is known so far: of each value the outputs in it, or the one that it was computed of alone."""

    program: Program
    rows: dict[str, tuple[str, Array]] = field(default_factory=dict)
    stained: dict[str, tuple[str, int]] = field(default_factory=dict)
    leader: dict[str, Array] = field(default_factory=dict)  # path -> of each output one that it belongs to
    read: dict[str, Array] = field(default_factory=dict)  # path -> of each output whether anything is made of it
    roles: dict[tuple[str, int], str] = field(default_factory=dict)

    def unite(self, path: str, rows: Array) -> int:
        """The outputs belong together; gives their leader."""
        leader = self.leader[path]
        self.read[path][rows] = True
        found = np.unique(leader[rows])
        leader[np.isin(leader, found)] = found[0]
        return int(found[0])

    def part(self, name: str) -> tuple[str, int] | None:
        """The outputs that a value is made of alone, by one of them."""
        if name in self.rows:
            path, rows = self.rows[name]
            return (path, self.unite(path, np.unique(rows))) if rows.size else None
        return self.stained.get(name)


def dealt(program: Program) -> dict[str, tuple[Share, ...]]:
    """Path of each linear layer whose outputs go apart -> who gets which, the first outputs first."""
    found = dealing(program)
    shares = {path: _shares(found, path, leader) for path, leader in found.leader.items()}
    return {path: own for path, own in shares.items() if len(own) > 1}


def dealing(program: Program) -> Dealing:
    """Where the outputs of every linear layer are, operation by operation."""
    found = Dealing(program)
    owners = owners_of(program)
    for op in program.ops:
        path, shape = path_of(op, owners), program.shapes.get(op.outputs[0], ())
        if path:
            _read(found, op)
        sizes = [n for n in shape if isinstance(n, int)]
        if path and shape and len(sizes) == len(shape) and prod(sizes) <= MOST:
            found.leader.setdefault(path, np.arange(sizes[-1]))
            found.read.setdefault(path, np.zeros(sizes[-1], bool))
            if len(found.leader[path]) == sizes[-1]:
                found.rows[op.outputs[0]] = path, np.broadcast_to(np.arange(sizes[-1]), sizes)
        elif op.name not in ASKED and not _moved(found, op) and not _biased(found, op, owners):
            _read(found, op)
    for name in program.outputs:
        found.part(name)
    return found


def owners_of(program: Program) -> dict[str, str]:
    """Value -> the weight that it is, turned over or not."""
    found = dict(program.weights)
    for op in program.ops:
        refs = _names(op)
        if op.name in OVER and len(refs) == 1 and refs[0] in found:
            found[op.outputs[0]] = found[refs[0]]
    return found


def path_of(op: Op, owners: Mapping[str, str]) -> str:
    """The linear layer that an operation is; "" of any other."""
    if op.name not in (*LINEAR, "matmul"):
        return ""
    if op.whole:
        return op.stack[-1][0]
    own = [owners[ref.name] for ref in op.refs() if ref.name in owners]
    return next((name.rpartition(".")[0] for name in own if name.endswith(".weight")), "")


def _biased(found: Dealing, op: Op, owners: Mapping[str, str]) -> bool:
    """Whether a layer's own bias is added, after which its outputs are where they were."""
    names = _names(op)
    path, rows = next((found.rows[name] for name in names if name in found.rows), ("", None))
    if op.name != "add" or rows is None or len(names) != 2 or f"{path}.bias" not in map(owners.get, names):
        return False
    found.rows[op.outputs[0]] = path, rows
    return True


def _moved(found: Dealing, op: Op) -> bool:
    """Whether an operation only moves outputs, or what one layer's were made into; notes where they are then."""
    names = _names(op)
    tool = MOVES.get(op.name, "")
    if not tool or not names or (names[0] not in found.rows and names[0] not in found.stained):
        return False
    if names[0] in found.stained:
        found.stained.update(dict.fromkeys(op.outputs, found.stained[names[0]]))
        return True
    path, rows = found.rows[names[0]]
    made = _carried_out(tool, rows, op) if len(names) == 1 else None
    if made is None or [one.shape for one in made] != [found.program.shapes.get(name) for name in op.outputs]:
        return False
    found.rows.update({name: (path, one) for name, one in zip(op.outputs, made, strict=True)})
    return True


def _names(op: Op) -> list[str]:
    """The values that an operation reads; a program of torch.export tells its arguments by place and by name."""
    return list(dict.fromkeys(ref.name for ref in op.refs()))


def _carried_out(tool: str, rows: Array, op: Op) -> list[Array] | None:
    """What an operation makes of these numbers, or each of its outputs; None where it cannot be told."""
    import torch

    args = [tuple(one) if tool == "__getitem__" and isinstance(one, list) else one for one in op.args[1:]]
    kwargs = {} if op.args and op.kwargs.keys() & {"self", "input"} else op.kwargs  # told by place and by name
    numbers = torch.from_numpy(np.ascontiguousarray(rows))
    call = torch.ops.aten.slice.Tensor if tool == "slice" else getattr(torch.Tensor, tool)
    try:
        made = call(numbers, *args, **kwargs)
    except Exception:  # sizes that are not known, or values of the model's own
        return None
    return [one.numpy() for one in (made if isinstance(made, (list, tuple)) else [made])]


def _read(found: Dealing, op: Op) -> None:
    """An operation that computes: each of its operands is read together."""
    names = _names(op)
    parts = [found.part(name) for name in names]
    own = list(dict.fromkeys(part for part in parts if part is not None))
    if not own:
        return
    _note_roles(found, op, parts)
    if op.name in JOINED and len({path for path, _ in own}) == 1:
        path = own[0][0]
        own = [(path, found.unite(path, np.array([row for _, row in own])))]
    if len(own) == 1 and (op.name in POINTWISE or op.name in JOINED):
        found.stained.update(dict.fromkeys(op.outputs, own[0]))


def _note_roles(found: Dealing, op: Op, parts: Sequence[tuple[str, int] | None]) -> None:
    """What the operands of an attention are, and which factor goes through an activation."""
    said: Sequence[str] = ()
    if op.name == ATTENTION:
        said = (QUERY, KEY, VALUE)
    elif op.name in PRODUCTS:
        parts = parts[1:] if op.name == "baddbmm" else parts
        said = (QUERY, KEY) if parts and parts[0] is not None else ("", VALUE)
    elif op.name in CURVES:
        said = (GATE,)
    for part, role in zip(parts, said, strict=False):
        if part is not None and role:
            found.roles.setdefault(part, role)


def _shares(found: Dealing, path: str, leader: Array) -> tuple[Share, ...]:
    """The outputs that belong together, as runs; () where they are none."""
    first, at = np.unique(leader, return_inverse=True)
    if not 2 <= len(first) <= MOST_PARTS or not found.read[path].all():
        return ()
    members = [np.flatnonzero(at == n) for n in range(len(first))]
    runs = [_run(rows, len(leader)) for rows in members]
    if any(run is None for run in runs):
        return ()
    roles = _named(path, [_role(found, path, leader, rows) for rows in members])
    return tuple(Share(name, *run) for name, run in zip(roles, runs, strict=True) if run is not None)


def _role(found: Dealing, path: str, leader: Array, rows: Array) -> str:
    own = {role for (where, row), role in found.roles.items() if where == path and leader[row] == leader[rows[0]]}
    return own.pop() if len(own) == 1 else ""


def _named(path: str, roles: list[str]) -> list[str]:
    """Names of the parts: what they are for, where each is for something else; else their numbers."""
    if sorted(roles) == ["", GATE]:
        roles = [role or UP for role in roles]
    whole = len({*roles}) == len(roles) and "" not in roles and not (GATE in roles and UP not in roles)
    return roles if whole else [str(at) for at in range(len(roles))]


def _run(rows: Array, size: int) -> tuple[int, int, int] | None:
    """Groups, start and stop of outputs that are the same run of every group; None of others."""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    groups = len(breaks) + 1
    if size % groups or len(rows) % groups:
        return None
    start, many = int(rows[0]), len(rows) // groups
    share = Share("", groups, start, start + many)
    fits = share.stop <= size // groups and np.array_equal(share.of(size), rows)
    return (groups, start, start + many) if fits else None
