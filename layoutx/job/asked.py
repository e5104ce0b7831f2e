"""What a call of `convert` may not ask for, refused before any work."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError, raise_all
from layoutx.files.blob import files_of
from layoutx.files.store import Store
from layoutx.job.jobs import Options
from layoutx.model.keyed import Keyed
from layoutx.model.load import check_framework
from layoutx.model.parametrized import refusal, sites
from layoutx.model.record import ModelRecord
from layoutx.spec.registry import Registry


def check_target(target: Keyed | ModelRecord | None, to: str) -> None:
    """Refuse a template of another framework, and a live Keras model where a file's structure is needed."""
    if isinstance(target, ModelRecord) and target.framework.startswith("keras") and to != "keras":
        raise UsageError(
            f"the target of a conversion to {to} is not a Keras model",
            do="give the Keras model as --config if the source lacks it; --like names the target",
        )
    if isinstance(target, ModelRecord) and target.framework == "onnx" != to:
        raise UsageError(f"the target is an onnx model, the conversion one to {to}")
    if isinstance(target, ModelRecord) and not target.store.path.is_file():
        raise UsageError(
            "a Keras file is written in the structure of a Keras file, not of a live model",
            do='save the model first, model.save("template.keras"), or use lx.port(source, model)',
        )
    if isinstance(target, Keyed) and target.framework != to:
        raise UsageError(f"the target is a {target.framework} model, the conversion one to {to}")
    if isinstance(target, Keyed):
        problems = [refusal(replace(site, compute=None)) for site in sites(target)]
        raise_all(problems, "the target stores weights in parts")


def check_ending(output: Any, to: str) -> None:
    """Refuse the ending of a file that another framework alone reads: it is written in a model of that framework."""
    path = Path(output)
    for endings, owner, what in (((".keras", ".h5", ".hdf5"), "keras", "a Keras file"), ((".onnx",), "onnx", "ONNX")):
        if path.name.endswith(endings) and not to.startswith(owner):
            raise UsageError(
                f"the output {path.name} would be {what}, and the conversion is one to {to}",
                where=str(path),
                do=f"say --to {owner}, or choose another ending: .safetensors, .npz, .pt, ...",
            )


def check_types(output: Any, to: Any) -> None:
    """Refuse live models where names are meant."""
    what, meant = ("to", to) if not isinstance(to, str) else ("output", output)
    if not isinstance(meant, (str, PathLike)) and meant is not None:
        raise UsageError(
            f"{what} is a {type(meant).__name__}, where a name is meant",
            why="to= names the framework, the output is a file",
            do="give a live target as like=, or write into it in place with lx.port(source, model)",
        )


def check_call(to: str, from_: str, options: Options, known: Registry) -> None:
    """Refuse frameworks and forms that there are not."""
    check_framework(to, known)
    if from_:
        check_framework(from_, known)
    for form in options.forms.values():
        known.form(form)


def not_itself(source: Store, output: Path, sharded: bool) -> None:
    """Refuse to write over the source, or over a file of it: its shards, the data of an ONNX model.

    Args:
        sharded: the output may be written in shards, as many as will be needed.
    """
    final = Path(os.path.realpath(output))
    names = re.compile(re.escape(final.stem) + r"(-\d{5,}-of-\d{5,})?" + re.escape(final.suffix) + r"(\.index\.json)?")
    for path, _ in files_of(source):
        own = Path(os.path.realpath(path))
        if own == final or (sharded and own.parent == final.parent and names.fullmatch(own.name)):
            what = "the source itself" if path == source.path else f"a file of the source itself, {path.name}"
            raise UsageError(f"the output is {what}", where=str(output), do="give another name with -o")
