"""Which layer of one model is which of another: proposed with a reason and a confidence each, written as a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.open import open_store
from layoutx.frozen import frozen
from layoutx.job.jobs import options_of
from layoutx.job.joined import Joined, Joint
from layoutx.job.parted import paired_apart
from layoutx.job.seen import with_run
from layoutx.model.callables import built
from layoutx.model.config import config_of
from layoutx.model.in_parts import computed
from layoutx.model.keyed import Keyed
from layoutx.model.load import is_keras_file, keyed_of, live_model, model_of, says_itself
from layoutx.model.mapfile import MapFile
from layoutx.model.mapwrite import Entry, write_map
from layoutx.model.record import ModelRecord
from layoutx.model.said import stacks_said
from layoutx.model.stacked import check_stacked
from layoutx.model.tree import name_of
from layoutx.progress import Progress
from layoutx.show.alike_text import exchangeable
from layoutx.show.progress import reported
from layoutx.spec.registry import Registry, registry


@frozen
class Match:
    """The proposed pairing of two models.

    Attributes:
        joint: every layer of both, paired, open, lost or left out.
        source, target: what the two models are called.
        frameworks: of the two models.
    """

    joint: Joint
    source: str
    target: str
    frameworks: tuple[str, str]
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every layer of both has its counterpart."""
        return not (self.joint.open or self.joint.lost or self.joint.unused)

    @property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Layers that could be exchanged with each other: only habits of naming and order tell them apart."""
        return exchangeable((pair.source.name, pair.alike) for pair in self.joint.pairs)

    def entries(self) -> list[Entry]:
        """What a mapping file says of each layer."""
        found = [Entry(p.source.name, place_of(p), f"{p.confidence:.2f} {p.reason}") for p in self.joint.pairs]
        found += [Entry(n, "", "ambiguous: choose one", own) for n, own in self.joint.open.items()]
        lost = {**self.joint.lost, **{n: f"folded into {into}" for n, into in self.joint.folded.items()}}
        return found + [Entry(n, "", f"no counterpart: {why}"[:100]) for n, why in lost.items()]

    def save(self, path: str | PathLike[str]) -> None:
        """Write a mapping file; one that is there keeps every line, and gets the pairs that it lacks.

        Raises:
            LayoutxError: the file cannot be written, or the one that is there is no mapping file.
        """
        write_map(path, self.source, self.target, self.entries())

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "source": self.source,
            "target": self.target,
            "frameworks": list(self.frameworks),
            "pairs": [
                {
                    "source": p.source.name,
                    "target": place_of(p),
                    "kind": p.source.bound.kind.name,
                    "forms": [p.source.bound.form.name, p.target.bound.form.name],
                    "confidence": p.confidence,
                    "reason": p.reason,
                    "problem": None if p.problem is None else p.problem.what,
                }
                for p in self.joint.pairs
            ],
            "alike": [list(names) for names in self.alike],
            "open": {name: list(own) for name, own in self.joint.open.items()},
            "lost": dict(self.joint.lost),
            "unused": dict(self.joint.unused),
            "spare": dict(self.joint.spare),
            "skipped": dict(self.joint.skipped),
            "leftover": dict(self.joint.leftover),
            "folded": dict(self.joint.folded),
            "seconds": self.seconds,
        }

    def text(self, width: int = 99, color: bool = False) -> str:
        """The pairing for a terminal, at most `width` columns."""
        from layoutx.show.match_text import match_text

        return match_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def place_of(pair: Joined) -> str:
    """The counterpart as a mapping file spells it: `features.6`, or `rnn/layer_1` of a stacked module."""
    each, name = pair.target.bound.form.each, pair.target.name
    inner = f"{each}_{pair.instance[each]}" if each in pair.instance else ""
    return f"{name}/{inner}" if inner and not name.endswith(f"/{inner}") else name


@reported
def match(
    source: Any,
    target: Any,
    *,
    map: str | PathLike[str] | MapFile | None = None,
    pairs: Mapping[str, str] | None = None,
    forms: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    ignore_keys: Collection[str] = (),
    keep_order: bool | Sequence[str] = False,
    values: Mapping[str, Any] | None = None,
    specs: Sequence[str | PathLike[str]] = (),
    from_: str = "",
    to: str = "",
    config: Any = None,
    input_shape: Sequence[int] | None = None,
    progress: bool | Progress | None = None,
) -> Match:
    """Propose which layer of `source` is which of `target`; nothing is moved.

    Args:
        source, target: live models, files, or "package.module:callable", which is imported and called.
        map: a mapping file; what it says stands.
        pairs, forms, skip, only, ignore_keys, keep_order, values, specs: as for `convert`.
        from_, to: whose names bare files of named tensors hold, where they do not say.
        config, input_shape: of a Keras file of weights alone, or one that leaves it open, on either side.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Returns:
        The pairs, each with its reason and how sure it is (0 to 1), and what stays open; it prints, and `save` writes
        the mapping file that the `map` of other calls takes.

    Raises:
        UsageError: options or a mapping file that name what is not there, all of it together.
    """
    options = options_of((), skip, only, forms, pairs, ignore_keys, keep_order, False, values, map)
    known = registry(specs)
    first, second = built(source), built(target)
    here = seen(first, known, options.forms, options.values, from_, config, input_shape)
    there = seen(second, known, {}, stacks_said(options.values), to, config, input_shape)
    check_said(config, input_shape, here, there)
    check_stacked(options.values, here, there)
    started = perf_counter()
    here, there = with_run(here, first, there), with_run(there, second, here)
    here, there = computed(here, options.skip), computed(there, options.skip)
    found = paired_apart(here, there, known, options)
    return Match(found, _called(source), _called(target), (here.framework, there.framework), perf_counter() - started)


def seen(
    given: Any,
    known: Registry,
    forms: Mapping[str, str],
    values: Mapping[str, Any],
    framework: str = "",
    config: Any = None,
    input_shape: Sequence[int] | None = None,
) -> Keyed | ModelRecord:
    """A file, a callable's name or a live model as what can be paired.

    Args:
        config, input_shape: of a Keras file that does not say them; of other models they say nothing.
    """
    given = built(given)
    if isinstance(given, (str, Path)):
        store = open_store(given)
        if says_itself(store):
            own = config_of(config) if is_keras_file(store) and store.config is None else None
            shape = input_shape if is_keras_file(store) and store.config is not None else None
            return model_of(store, known, forms, values=values, framework=framework, config=own, input_shape=shape)
        return keyed_of(store, framework, known, values)
    return live_model(given, known, forms if not hasattr(given, "named_modules") else {}, framework, values=values)


def check_said(config: Any, input_shape: Sequence[int] | None, *models: Keyed | ModelRecord) -> None:
    """Refuse a config or an input shape that says nothing about any of these models.

    Raises:
        UsageError: none of them is a Keras file that leaves it open.
    """
    files = [model.store.config for model in models if isinstance(model, ModelRecord) and is_keras_file(model.store)]
    if config is not None and all(own is not None for own in files):
        why = "a config describes a Keras file of weights alone"
        raise UsageError("no model here lacks a config", why=why, do="leave config out")
    if input_shape is not None and all(own is None for own in files):
        why = "it is for Keras files whose config leaves it open"
        raise UsageError("the input shape says nothing about these models", why=why, do="leave it out")


def _called(model: Any) -> str:
    if isinstance(model, str) and not Path(model).exists():
        return model
    return name_of(model)
