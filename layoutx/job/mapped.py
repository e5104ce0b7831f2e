"""A mapping file held against the two models that it is for: every name that neither has, with its line."""

from __future__ import annotations

from layoutx.errors import raise_all
from layoutx.job.jobs import Options
from layoutx.model.keyed import Keyed
from layoutx.model.mapfile import missing
from layoutx.model.record import ModelRecord


def check_map(options: Options, source: Keyed | ModelRecord, target: Keyed | ModelRecord) -> None:
    """Refuse a mapping file that names what is not there; it may have been written for the other direction.

    Raises:
        UsageError: all names that are missing, together.
    """
    if options.map is None:
        return
    here, there = names_of(source), names_of(target)
    problems = missing(options.map, here, there)
    if problems and missing(options.map, there, here):
        raise_all(problems, f"{options.map.path.name} names layers that the models do not have")


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
