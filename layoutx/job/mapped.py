"""What the user says of pairs held against the two models: names that neither has, patterns written out."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from layoutx.errors import LayoutxError, MatchError, raise_all
from layoutx.job.jobs import Options, covers
from layoutx.model.keyed import Keyed
from layoutx.model.mapfile import missing
from layoutx.model.record import ModelRecord
from layoutx.model.said import pairs_said


def with_pairs(options: Options, source: Keyed | ModelRecord, target: Keyed | ModelRecord) -> Options:
    """The user's pairs layer by layer; a mapping file may have been written for the other direction.

    Raises:
        UsageError: all names of the mapping file that are missing, together; patterns that fit nothing.
    """
    patterns = any("*" in name for name in options.pairs)
    if options.map is None and not patterns:
        return options
    here, there = names_of(source), names_of(target)
    if options.map is not None:
        problems = missing(options.map, here, there)
        if problems and missing(options.map, there, here):
            raise_all(problems, f"{options.map.path.name} names layers that the models do not have")
    if not patterns:
        return options
    held = [names - _tensors_of(model) for names, model in ((here, source), (there, target))]
    return replace(options, pairs=pairs_said(options.pairs, _layers_of(source), _layers_of(target), *held))


def _tensors_of(model: Keyed | ModelRecord) -> Set[str]:
    return model.tensors.keys() if isinstance(model, Keyed) else frozenset()


def _layers_of(model: Keyed | ModelRecord) -> dict[str, None]:
    """The names of what has tensors of its own."""
    if isinstance(model, ModelRecord):
        return {record.name: None for record in model.layers if record.tensors}
    return dict.fromkeys(name.rpartition(".")[0] for name in model.tensors)


def check_open(options: Options) -> None:
    """Refuse a mapping file with lines that nobody has filled in: what they leave open is not for us to guess.

    Raises:
        MatchError: every such line.
    """
    if options.map is None:
        return
    told = {*options.pairs, *options.pairs.values()}
    problems: list[LayoutxError] = [
        MatchError(
            f"{name} is not filled in",
            where=f"{options.map.path.name}:{line}: {places}",
            do=f"take the # away and leave one of the places; or --pair {name}=PLACE, --skip {name}",
        )
        for name, (line, places) in options.map.open.items()
        if name not in told and not covers(options.skip, name)
    ]
    raise_all(problems, f"{options.map.path.name} has lines that are yet to be filled in")


def names_of(model: Keyed | ModelRecord) -> set[str]:
    """Everything of a model that a mapping file can name: layers, modules and all that holds them, tensors."""
    if isinstance(model, ModelRecord):
        return {spelled for record in model.layers for spelled in (record.name, record.name.replace("/", "."))}
    found = {*model.tensors, *model.modules}
    for name in model.tensors:
        while "." in name:
            name = name.rpartition(".")[0]
            found.add(name)
    return found
