"""One run of one model with every layer's inputs and outputs, kept for a comparison in another process or place."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.atomic import check_place, not_over
from layoutx.model.tree import head
from layoutx.progress import Progress, tell
from layoutx.show.progress import reported
from layoutx.verify.recording import Recording
from layoutx.verify.running import opened
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.recorded import named, write_recording
from layoutx.version import VERSION


@reported
def record(
    model: Any,
    inputs: Any = None,
    *,
    path: str | PathLike[str] | None = None,
    double: bool = True,
    progress: bool | Progress | None = None,
) -> Recording:
    """Run a model at inference and keep what went into every layer and what came out.

    Args:
        model: a live model, a file of a whole model (.keras, .h5, .onnx, .pt2, SavedModel folder), or
            "package.module:callable".
        inputs: one array, a list, a mapping by input name, or a .npy, .npz or .safetensors file; None: random ones of
            the model's own shapes, where it knows them.
        path: where to write the recording as safetensors.
        double: compute in float64 where the model can; the recording's note says why not.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Returns:
        The recording, which `validate` and `diagnose` take in the place of a model.

    Raises:
        UsageError: weights alone, inputs that do not fit, no inputs for a model that does not know its shapes, or an
            output that is the model's or the inputs' own file, or does not end in .safetensors.
        ModelError: the model cannot be loaded or copied. FileError: a damaged file.
    """
    if path is not None:
        _check(Path(path), (model, inputs))
    runner = opened(model)
    given = inputs_of(inputs) if inputs is not None else runner.inputs()
    if isinstance(given, tuple) and not given:
        raise UsageError(
            f"a {runner.framework} model does not know the shapes of its inputs",
            where=_called(model),
            do="give inputs: arrays, or a .npy, .npz or .safetensors file (--inputs)",
        )
    tell(0, 0, f"running {_called(model)} ({runner.framework})")
    found = named(runner.record(given, double), model=_called(model), layoutx=VERSION)
    if path is not None:
        write_recording(found, Path(path))
    return found


def _check(path: Path, read: tuple[Any, ...]) -> None:
    not_over(path, read)
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path.name or path} is no name of a recording",
            where=str(path),
            why="a recording is a safetensors file, and is read as one",
            do="end it with .safetensors",
        )
    check_place(path)


def _called(model: Any) -> str:
    """The model's name as its recording tells it: the file or callable, else its class."""
    if isinstance(model, (str, Path)):
        return Path(model).name
    return str(getattr(model, "name", "") or type(head(model)).__name__)
