"""The sessions of a bench: which model, which files, which contenders, in an order that keeps few files at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benching import clusters
from benching import contenders as who
from benching.contenders import Contender
from benching.kinds import KINDS
from benching.made import Files, made, zipped
from benching.rounds import Session, Tell, session

ROOM = 3.5  # times the model: source, reference, output, and a little


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run of the bench was asked for."""

    folder: Path
    sizes: tuple[int, ...]  # bytes, ascending
    kinds: tuple[str, ...]
    runs: int
    tensors: int
    without: frozenset[str]  # names of contenders
    dask: bool
    tell: Tell

    @property
    def middle(self) -> int:
        """The size of the kinds that are not the headline."""
        return self.sizes[(len(self.sizes) - 1) // 2]

    def sessions(self) -> Iterator[tuple[str, Session]]:
        """Every session under its key: head, head .keras, head back, dense SIZE, KIND, KIND back, small, dask."""
        if "dense" in self.kinds:
            yield from self._head()
            for size in self.sizes[:-1]:
                with self._files("dense", size) as files:
                    hands = [who.by_hand(files, who.NUMPY)]
                    yield f"dense {size}", self._forward(files, f"dense {_mb(size)}", hands)
        for kind in self.kinds:
            if kind not in ("dense", "small"):
                yield from self._kind(kind)
        if "small" in self.kinds:
            with self._files("small", self.tensors) as files:
                hands = [who.by_hand(files, name) for name in (who.NUMPY, who.NUMPY_TORCH)]
                yield "small", self._forward(files, f"{self.tensors} small tensors", hands)
        if self.dask:
            yield from self._dask()

    def _head(self) -> Iterator[tuple[str, Session]]:
        """Everything about the largest file: all contenders, from `.keras` too, and back."""
        size = self.sizes[-1]
        with self._files("dense", size) as files:
            hands = [who.by_hand(files, name) for name in (who.NUMPY, who.NUMPY_TORCH, who.TORCH)]
            yield "head", self._forward(files, f"dense {_mb(size)} .weights.h5", hands)
            zipped(files)
            os.sync()
            contenders = [who.copying(), who.by_hand(files, who.KERAS), *who.ours(files)]
            title = f"dense {_mb(size)} .keras"
            yield "head .keras", self._run(title, files.keras, contenders, files)
            yield "head back", self._back(files, f"dense {_mb(size)} back", [who.by_hand(files, who.BACK)])

    def _kind(self, kind: str) -> Iterator[tuple[str, Session]]:
        with self._files(kind, self.middle) as files:
            title = f"{kind} {_mb(self.middle)}"
            hands = [who.by_hand(files, name) for name in (who.NUMPY, who.TORCH)]
            yield kind, self._forward(files, title, hands)
            zipped(files)
            os.sync()
            yield f"{kind} back", self._back(files, f"{title} back", [])

    def _forward(self, files: Files, title: str, hands: list[Contender]) -> Session:
        jobs = (1, 2) if files.model.name == "dense" else ()
        contenders = [*hands, who.copying(), *who.ours(files, jobs=jobs, bytes_too=bool(jobs))]
        return self._run(title, files.weights, contenders, files)

    def _back(self, files: Files, title: str, hands: list[Contender]) -> Session:
        """From the torch file that the script wrote to the Keras weights, which have to be those it was made of."""
        contenders = [*hands, who.copying(".weights.h5"), *who.ours(files, back=True)]
        reference = files.folder / "reference.safetensors"
        return self._session(title, reference, contenders, files, files.keras)

    def _run(self, title: str, source: Path, contenders: list[Contender], files: Files) -> Session:
        return self._session(title, source, contenders, files, files.folder / "reference.safetensors")

    def _session(self, title: str, source: Path, those: list[Contender], files: Files, reference: Path) -> Session:
        kept = [one for one in those if one.name not in self.without]
        return session(title, source, kept, files.folder, self.runs, reference, self.tell)

    def _dask(self) -> Iterator[tuple[str, Session]]:
        """One process against a cluster of one and of two workers, all writing shards."""
        if why := clusters.why_not(who.options()):
            self.tell(f"Dask is left out: {why}")
            return
        root = who.HERE.parent.parent
        with self._files("dense", self.middle) as files:
            shards = ["--max-shard-size", f"{self.middle // 8000}KB", "--verify", "none"]
            plain = who.with_options(files, who.SHARDS, shards)
            runs: dict[str, Session] = {}
            for workers in (1, 2):
                with clusters.cluster(files.folder, workers, root) as cluster:
                    name = who.DASK[workers]
                    dask = who.with_options(files, name, [*shards, "--dask", cluster.address])
                    dask = replace(dask, helpers=cluster.workers)
                    contenders = [who.by_hand(files, who.NUMPY), who.copying(), plain, dask]
                    title = f"dense {_mb(self.middle)} on Dask, {workers} worker{'s' * (workers > 1)}"
                    runs[f"dask {workers}"] = self._run(title, files.weights, contenders, files)
            yield from runs.items()

    @contextmanager
    def _files(self, kind: str, size: int) -> Iterator[Files]:
        """The files of a model in a folder of their own, which goes with them."""
        model = KINDS[kind](size)
        free = shutil.disk_usage(self.folder).free
        if free < ROOM * model.nbytes:
            raise SystemExit(f"{kind} {_mb(model.nbytes)} needs {ROOM} times its size free in {self.folder}")
        folder = self.folder / kind
        folder.mkdir()
        try:
            self.tell(f"{kind}: {len(model.stored)} tensors, {_mb(model.nbytes)} are made")
            files = made(replace(model, name=kind), folder)
            os.sync()
            yield files
        finally:
            shutil.rmtree(folder)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.3g} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.2g} GB"
