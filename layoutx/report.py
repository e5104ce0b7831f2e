"""What a conversion says when it is done: every layer, how exact, how proved, and every key accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob
from layoutx.job.recognised import WayBack
from layoutx.job.run import Moved
from layoutx.model.bare import SAID
from layoutx.plan.run import Result
from layoutx.plan.steps import Exactness
from layoutx.show.alike_text import exchangeable
from layoutx.show.report_lines import LayerLine
from layoutx.show.report_many import Lines
from layoutx.verify.outcome import EndToEnd, Proof
from layoutx.version import VERSION
from layoutx.words import listed

# names and numbers, no configs
BARE_FORMATS = ("safetensors", "torch", "npz", "msgpack", "orbax", "dcp", "paddle", "pickle")
LIVE_FORMATS = ("tree", "live")
FULL = 512  # layers that a certificate says everything of
GUESSED = "form from "  # how the note of a layer begins whose form was told by names and shapes


@frozen
class Report:
    """The result of a conversion; `print(report)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        source: file, format, framework, version, tensors, bytes of what was read.
        target: the framework; output: the file, "" where none was written.
        layers: in model order. weightless: layers without tensors, name -> class.
        remarks: layer without weights -> what the target must do in its place.
        skipped: layer -> why it was left out. leftover: source tensor -> why no layer owns it.
        kept: how many tensors of the source are there under their own names, where nothing else was asked for.
        rounded: of these, the name of each that became a narrower dtype -> what it lost.
        tensors_used, tensors_total: of the source, without the leftover ones. keys_written, keys_total: of the target.
        unwritten: those of the target that no layer gives, and that keep what the target held.
        nbytes, shards: of the tensors that are written, or would be, and in how many files; 0 where nobody counted.
        there: how many of the shards an earlier, stopped run had finished; None where nobody asked.
        exactness: of the whole. seconds: how long it took; None where nobody measured.
        end_to_end: how the outputs of the two models compare; None where files were converted.
        certified: whether the output is a file that holds the certificate. sha256: of that file, where asked for.
        again: the output held this very conversion before. back: what of the original came back, where the source was
            made from a file of the target's framework.
        model: the live model that `port` gave the weights to.
        groups: layers that could be exchanged with each other, as the pairing left them, see `alike`.
        guessed: layers whose rows are in an order that is only supposed, as the planning left them, see `supposed`.
    """

    source: Mapping[str, Any]
    target: str
    output: str
    layers: Sequence[LayerLine]
    weightless: Mapping[str, str] = NOTHING
    remarks: Mapping[str, str] = NOTHING
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    tied: Mapping[str, str] = NOTHING
    kept: int = 0
    rounded: Mapping[str, str] = NOTHING
    tensors_used: int = 0
    tensors_total: int = 0
    keys_written: int = 0
    keys_total: int = 0
    unwritten: tuple[str, ...] = ()
    nbytes: int = 0
    shards: int = 1
    there: int | None = field(default=None, compare=False)
    exactness: str = "moves"
    seconds: float | None = field(default=None, compare=False)
    end_to_end: EndToEnd | None = None
    certified: bool = True
    sha256: str = ""
    again: bool = field(default=False, compare=False)
    back: WayBack | None = None
    model: Any = field(default=None, compare=False, repr=False)
    groups: Sequence[Sequence[str]] = ()
    guessed: Sequence[str] = ()

    @property
    def alike(self) -> Sequence[Sequence[str]]:
        """Layers that could be exchanged with each other, group by group; none where something has told them apart.

        They fit each other's places, and habits of naming and order alone speak for these. A run of both models tells
        (unless the inputs were put in another order to make them agree: exchanged layers would need the one, these the
        other), and so do the original's numbers, where they are all where they were.
        """
        return () if self._told else self.groups

    @property
    def supposed(self) -> Sequence[str]:
        """Layers whose rows are in the usual order because nothing tells it; none where something has told."""
        return () if self._told else self.guessed

    @property
    def _told(self) -> bool:
        end = self.end_to_end
        ran = end is not None and bool(end.agrees) and not end.mixed and not end.only
        again = self.back is not None and self.back.named and self.back.same == self.back.many
        return ran or again

    @property
    def largest(self) -> float | None:
        """The largest difference of any layer's outputs; None where nothing was computed."""
        return max((proof.largest for _, proof in self.proofs() if proof.largest is not None), default=None)

    @property
    def round_trip(self) -> str:
        """ "bit-exact" where every layer's way back is; else which are not."""
        found: dict[str, list[str]] = {}
        for name, proof in self.proofs():
            if not proof.round_trip.startswith("bit-exact"):
                found.setdefault(proof.round_trip, []).append(name)
        if self.rounded:
            found.setdefault("not reversible: rounded", []).extend(self.rounded)
        return "; ".join(f"{listed(names, 3)}: {why}" for why, names in found.items()) or "bit-exact"

    def proofs(self) -> Iterator[tuple[str, Proof]]:
        """Each layer's name and what was shown of it."""
        if isinstance(self.layers, Lines):
            return self.layers.proofs()
        return ((line.name, line.proof) for line in self.layers)

    def certificate(self, extra: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
        """What the output says about itself; the same conversion gives the same certificate.

        Of more than FULL layers it has each one's name, forms and exactness only: it lies in the output's header.

        Args:
            extra: more about the source: its sha256.
        """
        return {
            "layoutx": VERSION,
            "source": {**{k: self.source.get(k, "") for k in ("file", "framework", "version", "format")}, **extra},
            "target": self.target,
            "layers": self._certified(),
            **({"kept": self.kept} if self.kept else {}),
            "skipped": dict(self.skipped),
            **({"alike": [list(names) for names in self.alike]} if self.alike else {}),
            **({"supposed": list(self.supposed)} if self.supposed else {}),
            "overall": {"exactness": self.exactness, "round_trip": self.round_trip, "largest": self.largest},
        }

    def _certified(self) -> list[dict[str, Any]]:
        if isinstance(self.layers, Lines) and len(self.layers) > FULL:
            return list(self.layers.briefs())
        return [_certified(layer) for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.show.report_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The report for a terminal, at most `width` columns."""
        from layoutx.show.report_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def report_of(
    job: Job,
    moved: Moved,
    *,
    source: Mapping[str, Any],
    output: str,
    target: str,
    lines: Sequence[LayerLine] | None = None,
) -> Report:
    """The report of a job that was carried out.

    Args:
        source: what is known of the source: file, format, framework, version, tensors, bytes.
        output: the file, "" where none is written.
        target: the framework.
        lines: of the layers, where they were made before.
    """
    bare = source.get("format") in BARE_FORMATS
    unsaid = (GUESSED, SAID) if source.get("format") in LIVE_FORMATS and job.source != "keras" else (GUESSED,)
    if lines is None:
        lines = Lines(job, moved, lambda layer: not (bare or layer.record.note.startswith(unsaid)))
    used = {tensor.name for tensor in job.read()}
    made = {*moved.arrays, *moved.written}
    written = {*made, *(name for name, kept in job.tied.items() if kept in made)}
    worst = max((r.exactness(x.plan) for x, r in _results(job, moved)), default=Exactness.MOVES)
    computed = any(tensor.rounded for tensor in job.kept.values())
    worst = Exactness.ROUNDS if moved.rounded or computed else worst
    return Report(
        source=dict(source),
        target=target,
        output=output,
        layers=lines,
        weightless={r.name: r.class_name for r in job.weightless},
        remarks={r.name: r.note for r in job.weightless if r.note.startswith(f"{r.class_name}: ")},
        skipped=dict(job.skipped),
        leftover=dict(job.leftover),
        tied=dict(job.tied),
        kept=len(job.kept),
        rounded=dict(moved.rounded),
        tensors_used=len(used),
        tensors_total=max(int(source.get("tensors", 0)) - len(job.leftover), len(used)),
        keys_written=len(written),
        keys_total=len({*job.order, *job.tied, *job.unwritten}),
        unwritten=job.unwritten,
        nbytes=moved.nbytes,
        shards=moved.shards,
        exactness=str(worst),
        groups=exchangeable((layer.record.name, layer.alike) for layer in job.layers),
        guessed=tuple(layer.record.name for layer in job.layers if layer.supposed),
    )


def _results(job: Job, moved: Moved) -> list[tuple[LayerJob, Result]]:
    return [(x, moved.results[x.record.name]) for x in job.layers if x.record.name in moved.results]


def _certified(layer: LayerLine) -> dict[str, Any]:
    proof = layer.proof
    sums = {t.key: t.text for t in layer.tensors if t.exactness == str(Exactness.ROUNDS) and t.added}
    forward = {"method": proof.method, "largest": proof.largest, "scale": proof.scale, "dtype": proof.dtype}
    return {
        "name": layer.name,
        "source": layer.source,
        "target": layer.target,
        "spec": layer.digest,
        "exactness": layer.exactness,
        "tensors": {t.key: t.exactness for t in layer.tensors},
        **({"sums": sums} if sums else {}),
        "round_trip": proof.round_trip,
        "forward": forward if proof.method else {"note": proof.note},
        "witness": dict(layer.witness),
        "settings": list(layer.settings),
    }
