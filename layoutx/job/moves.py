"""A job as the moves of its output: every tensor with its dtype and shape, before a number is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError, raise_all
from layoutx.files.dtypes import DType
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, Options
from layoutx.job.narrowed import no_consent
from layoutx.job.unwritten import lent_by
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.move.cast import dtype_after
from layoutx.move.moves import Move, Recipes, kept, moves_of


@frozen
class Moves:
    """What an output is made of.

    Attributes:
        tensors: one move for each tensor of the output, in its order.
        again: further moves of tensors that two layers share: they must give the same numbers.
        owner: output name -> (layer, target form's tensor); none for what a template lends.
        narrowed: output name -> (dtype, narrower dtype).
    """

    tensors: tuple[Move, ...]
    again: tuple[Move, ...]
    owner: Mapping[str, tuple[str, str]]
    narrowed: Mapping[str, tuple[str, str]]


def moves_for(job: Job, target: Keyed | ModelRecord | None, options: Options, dtype: DType | None = None) -> Moves:
    """The moves of a job.

    Args:
        target: the template, which lends the tensors that no layer gives, and a Keras one its dtypes.
        dtype: what floating tensors become, where the user asked for it.

    Raises:
        LayoutxError: sources without a common dtype, narrower dtypes of a template without consent, tensors of a
            template that nothing gives; all together.
    """
    recipes = Recipes()
    found, again, owner = _of_layers(job, recipes)
    found |= {name: kept(name, tensor) for name, tensor in job.kept.items()}
    wanted = {name: tensor.dtype for name, tensor in _lent(target).items()} if isinstance(target, ModelRecord) else {}
    narrowed: dict[str, tuple[str, str]] = {}
    for name, move in found.items():
        goal = dtype_after(move.dtype, dtype) if dtype is not None else wanted.get(name, move.dtype)
        if goal != move.dtype:
            if not np.can_cast(move.dtype, goal, "safe"):
                narrowed[name] = (str(move.dtype), str(goal))
            found[name] = recipes.cast(move, goal)
    if narrowed and dtype is None and "rounds" not in options.allow:
        raise no_consent(narrowed, "template")
    again = [recipes.cast(move, found[move.name].dtype) for move in again]
    for tied, first in job.tied.items():
        if first in found and tied not in found:
            found[tied] = replace(found[first], name=tied)
        elif first in found and tied in found:
            again.append(replace(found[tied], name=first))
    ordered = _ordered(found, job, target, recipes, dtype)
    return Moves(tuple(ordered), tuple(again), owner, narrowed)


def _of_layers(job: Job, recipes: Recipes) -> tuple[dict[str, Move], list[Move], dict[str, tuple[str, str]]]:
    """The first move of each output tensor, the others, and to which layer each tensor belongs."""
    found: dict[str, Move] = {}
    again: list[Move] = []
    owner: dict[str, tuple[str, str]] = {}
    problems: list[LayoutxError] = []
    for layer in job.layers:
        try:
            moves = moves_of(layer.plan, layer.sources, layer.targets, recipes)
        except LayoutxError as error:
            problems.append(error.at(layer.record.place))
            continue
        for move in moves:
            if move.name in found:
                again.append(move)
            else:
                found[move.name] = move
                owner[move.name] = (layer.record.name, move.slot)
    raise_all(problems, f"{len(problems)} layers were not converted")
    return found, again, owner


def _ordered(
    found: dict[str, Move],
    job: Job,
    target: Keyed | ModelRecord | None,
    recipes: Recipes,
    dtype: DType | None,
) -> list[Move]:
    """All tensors of the output in the target's order, with what a template lends (a Keras one: seeds of dropout)."""
    if isinstance(target, Keyed):
        own = {tensor.name: tensor for tensor in (*target.tensors.values(), *target.kept.values())}
        lent = {name: _kept(name, tensor, dtype, recipes) for name, tensor in own.items() if name not in found}
        order = dict.fromkeys((*own, *job.order, *found))
        return [found.get(name) or lent[name] for name in order if name in found or name in lent]
    order = dict.fromkeys((*job.order, *found))
    moves = [found[name] for name in order if name in found]
    if isinstance(target, ModelRecord):
        from layoutx.files.keras_write import weights_of

        bare = (name for name in weights_of(target.store) if name not in found)
        moves += [kept(name, target.store.tensors[name]) for name in lent_by(target, bare, job)]
    return moves


def _kept(name: str, tensor: Tensor, dtype: DType | None, recipes: Recipes) -> Move:
    move = kept(name, tensor)
    return recipes.cast(move, dtype_after(move.dtype, dtype)) if dtype is not None else move


def _lent(target: ModelRecord) -> Mapping[str, Tensor]:
    store: Store = target.store
    return store.tensors
