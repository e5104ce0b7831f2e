"""What a transfer did: each copied layer with its proof, each number that the target kept, each that was not taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.plan.steps import Exactness
from layoutx.show.report_lines import LayerLine
from layoutx.version import VERSION


@frozen
class Copied:
    """One layer that was copied.

    Attributes:
        source, layer: the model that it comes from, and its name there; place: its name in the target.
        keys: the source's tensors that were used.
        line: how each tensor of the target was made, how exactly, and how it was proved.
    """

    source: str
    layer: str
    place: str
    keys: tuple[str, ...]
    line: LayerLine


@frozen
class Transfer:
    """The result of a transfer; `print(found)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        sources, frameworks: of each source. target, framework: of the target.
        copied: in the sources' order.
        kept: target tensor that keeps its own numbers -> why.
        dropped: tensor of the target's file that the new file leaves out (training state of the old weights) -> why.
        untaken: source -> tensor that nothing takes -> why.
        tied: target tensor -> the one that it shares its numbers with, which was copied.
        output: the file; "" where a live model was changed in place. certified: whether that file says so itself.
    """

    sources: tuple[str, ...]
    frameworks: tuple[str, ...]
    target: str
    framework: str
    copied: tuple[Copied, ...]
    kept: Mapping[str, str] = NOTHING
    untaken: Mapping[str, Mapping[str, str]] = NOTHING
    tied: Mapping[str, str] = NOTHING
    dropped: Mapping[str, str] = NOTHING
    output: str = ""
    certified: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """The target's tensors that were written, tied ones too."""
        own = (tensor.key for one in self.copied for tensor in one.line.tensors)
        return tuple(dict.fromkeys((*own, *self.tied)))

    @property
    def largest(self) -> float | None:
        """The largest difference of any copied layer's outputs; None where nothing was computed."""
        found = [one.line.proof.largest for one in self.copied if one.line.proof.largest is not None]
        return max(found, default=None)

    def certificate(self, extra: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
        """What the output says about itself; the same transfer gives the same text."""
        names = {str(kind): kind for kind in Exactness}
        worst = max((names[one.line.exactness] for one in self.copied), default=Exactness.MOVES)
        return {
            "layoutx": VERSION,
            "source": {
                "file": ", ".join(self.sources), "framework": ", ".join(dict.fromkeys(self.frameworks)), **extra,
            },
            "transfer": {"target": self.target, "framework": self.framework, "kept": len(self.kept)},
            "layers": [
                {"name": one.place, "from": [one.source, one.layer], "source": one.line.source,
                 "target": one.line.target, "exactness": one.line.exactness}
                for one in self.copied
            ],
            "overall": {"exactness": str(worst), "round_trip": "", "largest": self.largest},
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.show.transfer_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The transfer for a terminal, at most `width` columns."""
        from layoutx.show.transfer_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()
