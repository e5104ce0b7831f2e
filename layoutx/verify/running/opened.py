"""From a live model, a file or a callable's name to what runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from layoutx.errors import UsageError
from layoutx.model.callables import call, no_class
from layoutx.model.keras_live import is_keras
from layoutx.model.tree import family, head
from layoutx.plan.plan import Array
from layoutx.progress import tell
from layoutx.verify.plain import is_torch
from layoutx.verify.recording import Recording


class Runner(Protocol):
    """A model that can be run, whole and layer by layer; the model itself stays as it is."""

    @property
    def framework(self) -> str:
        """Whose model it is: "keras", "torch", "onnx", ..."""

    @property
    def model(self) -> Any:
        """The model that was given."""

    def layers(self) -> Mapping[str, str]:
        """Layer name -> class name."""

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """Random inputs of the model's own shapes; () where it does not know them; `long`: along axes left open."""

    def record(self, inputs: Any, double: bool = True) -> Recording:
        """One run at inference: an array, a sequence of them, or a mapping by the inputs' names."""

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What one layer alone gives; `names`: the keyword of each input, "" for positional ones."""

    def repeat(self, inputs: Any) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]] | None:
        """Outputs in the model's own mode, twice, and at inference; None where that cannot be told."""


def opened(model: Any) -> Runner:
    """A runner of a live model, a file of a whole model, a recording, or `package.module:callable`.

    Raises:
        UsageError: weights alone, a file of another kind, a framework that is not installed.
        ModelError: the file holds a model that the framework does not load.
    """
    if isinstance(model, (str, Path)):
        tell(0, 0, f"opening {Path(model).name}")
    if isinstance(model, str) and not Path(model).exists() and ":" in model:
        model = call(model)
    if isinstance(model, (str, Path)):
        from layoutx.verify.running.from_file import from_file

        return from_file(Path(model))
    if isinstance(model, Recording):
        from layoutx.verify.running.recorded import Recorded

        return Recorded(model)
    return _live(model)


def _live(model: Any) -> Runner:
    no_class(model)
    homes = {c.__module__.split(".")[0] for c in type(model).__mro__}
    if is_keras(model):
        from layoutx.verify.running.keras_run import KerasRunner

        return KerasRunner(model)
    if family(head(model)):
        from layoutx.verify.running.tree_run import TreeRunner

        return TreeRunner(model)
    if is_torch(model):
        from layoutx.verify.running.torch_run import TorchRunner

        return TorchRunner(model)
    if "torch" in homes and hasattr(model, "graph_module"):
        from layoutx.verify.running.export_run import ExportRunner

        return ExportRunner(model)
    if "onnx" in homes and hasattr(model, "graph"):
        from layoutx.verify.running.onnx_run import OnnxRunner

        return OnnxRunner(model)
    what = "a mapping of weights" if isinstance(model, Mapping) else f"a {type(model).__name__}"
    raise UsageError(
        f"{what} cannot be run",
        why="running needs the model itself: weights do not say what is computed with them",
        do="give the live model, its file (.keras, .onnx, .pt2), or package.module:callable that builds it",
    )
