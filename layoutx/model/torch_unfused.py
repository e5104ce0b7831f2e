"""A torch program with several linear layers in the place of one: as if the model held its queries and keys apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.files.dtypes import Array
from layoutx.model.share import Share
from layoutx.model.torch_dealt import Dealing, dealing, owners_of, path_of
from layoutx.model.torch_flow import OVER
from layoutx.model.torch_program import Op, Program, Ref


def taken_apart(program: Program, chosen: Mapping[str, Sequence[Share]]) -> Program:
    """The program with several layers, `PATH.query`, in the place of one; what dealt its outputs out is left away."""
    found = dealing(program)
    weights, ops, owners = dict(program.weights), list[Op](), owners_of(program)
    names = {name for name, (path, _) in found.rows.items() if path in chosen}
    for op in program.ops:
        path = path_of(op, owners)
        if path in chosen and op.outputs[0] in names:
            ops += [one for share in chosen[path] for one in _layer(op, path, share, weights, owners)]
        elif not names & set(op.outputs):
            ops.append(op)
        for name in names & set(op.outputs) if path not in chosen else ():
            ops += _entering(found, op, name, chosen, owners)
    return replace(program, ops=tuple(ops), weights=weights)


def _layer(op: Op, path: str, share: Share, weights: dict[str, str], owners: Mapping[str, str]) -> Iterator[Op]:
    """One of the layers, in the place of the operation that was all of them."""
    turned = []

    def own(value: Any) -> Any:
        if not isinstance(value, Ref) or not owners.get(value.name, "").startswith(f"{path}."):
            return value
        last = owners[value.name].removeprefix(f"{path}.")
        name = f"{value.name}:{share.name}"
        weights[f"{name}:{last}" if value.name not in weights else name] = f"{share.at(path)}.{last}"
        if value.name not in weights:
            turned.append(Op(OVER[0], (Ref(f"{name}:{last}"),), {}, (name,)))
        return Ref(name)

    args, kwargs = tuple(map(own, op.args)), {key: own(value) for key, value in op.kwargs.items()}
    stack = (*op.stack[:-1], (share.at(path), op.stack[-1][1])) if op.stack and op.whole else op.stack
    yield from turned
    yield replace(op, args=args, kwargs=kwargs, stack=stack, outputs=(f"{path}:{share.name}:{op.outputs[0]}",))


def _entering(
    found: Dealing, op: Op, name: str, chosen: Mapping[str, Sequence[Share]], owners: Mapping[str, str]
) -> list[Op]:
    """A value that holds outputs of one layer alone, made of that layer's; itself where it was made of such a value."""
    path, rows = found.rows[name]
    share = _whose(rows, path, found, chosen)
    if share is None:
        return []
    before = next(ref.name for ref in op.refs())
    if _whose(found.rows[before][1], path, found, chosen) is not None:
        return [replace(op, outputs=(name,))] if len(op.outputs) == 1 else []
    first = before
    while (maker := _maker(found.program, first)) is not None and path_of(maker, owners) != path:
        first = next(ref.name for ref in maker.refs())
    lead = len(found.program.shapes.get(first, ())) - 1
    plain = rows.shape[:lead] == found.rows[first][1].shape[:lead]
    plain = plain and np.array_equal(rows[(0,) * lead].reshape(-1), share.of(len(found.leader[path])))
    made = Ref(f"{path}:{share.name}:{first}")
    return [Op("reshape" if plain else "dealt", (made, list(rows.shape)), {}, (name,))]


def _maker(program: Program, name: str) -> Op | None:
    return next((op for op in program.ops if name in op.outputs), None)


def _whose(rows: Array, path: str, found: Dealing, chosen: Mapping[str, Sequence[Share]]) -> Share | None:
    """The layer whose outputs these all are."""
    size, held = len(found.leader[path]), np.unique(rows)
    return next((share for share in chosen[path] if np.isin(held, share.of(size)).all()), None)
