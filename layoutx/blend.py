"""The soft update: target <- tau * source + (1 - tau) * target, in place, between any two frameworks; joined once."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, MatchError, UsageError, raise_all
from layoutx.files.steady import state_at
from layoutx.job.accounts import kept, missing
from layoutx.job.jobs import options_of
from layoutx.job.mixing import Mix, TorchMixes, in_torch, mix_of, mixed
from layoutx.job.named import is_state
from layoutx.job.part import Part, part
from layoutx.job.slots import Slot, slots_of, writable
from layoutx.match import seen
from layoutx.model.keras_live import is_keras
from layoutx.plan.steps import Copy
from layoutx.spec.registry import registry

STATES = ("blend", "copy", "keep")
ELSEWHERE = "blend live torch modules and Keras models; for jax, jax.tree.map blends two trees of one structure"
Watched = tuple[Mapping[str, Any], str, Any]


def blend(target: Any, source: Any, tau: float, **options: Any) -> Blender:
    """Move a target's weights by the share `tau` towards a source's: the soft update of reinforcement learning.

    The two are joined at the first call; further calls with the same two models and options only compute.

    Args:
        target: a live torch module or Keras model; changed in place.
        source: a live torch module or Keras model of the same layers, in the same or the other framework.
        tau: 0 changes nothing; 1 copies bit for bit.
        options: those of `blender`.

    Returns:
        The blender that did it: what was blended, copied and kept.

    Raises:
        UsageError: no such models, or tau is not between 0 and 1.
        LayoutxError: layers without a counterpart, other shapes; nothing was changed.
    """
    options = {name: list(one) if isinstance(one, Iterator) else one for name, one in options.items()}
    key = _told(options)
    try:
        known = _CACHE.setdefault(target, {})
    except TypeError:  # no model can be held so, and no mapping
        writable(target, "blend", ELSEWHERE)
        raise
    held = known.get((id(source), key))
    if held is None or held[0]() is not source or held[1].stale:
        known.clear()
        held = (weakref.ref(source), blender(target, source, **options))
        known[id(source), key] = held
    held[1](tau)
    return held[1]


def _told(options: Mapping[str, Any]) -> str:
    """What was said, and the state of the mapping file that was named: edited since, it pairs otherwise."""
    named = options.get("map")
    return repr((sorted(options.items()), named and state_at(Path(named))))


_Held = tuple["weakref.ref[Any]", "Blender"]
_CACHE: weakref.WeakKeyDictionary[Any, dict[tuple[int, str], _Held]] = weakref.WeakKeyDictionary()


def blender(
    target: Any,
    source: Any,
    *,
    state: str = "blend",
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    pairs: Mapping[str, str] | None = None,
    map: str | PathLike[str] | None = None,
    forms: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    allow: Iterable[str] = (),
    keep_order: bool | Sequence[str] = False,
    specs: Sequence[str | PathLike[str]] = (),
) -> Blender:
    """Join two live models once; the result is called with tau at every step.

    Args:
        target, source: as for `blend`.
        state: what happens to running statistics: "blend"; "copy" the source's; "keep" the target's. Counters
            are whole numbers: copied, unless "keep".
        skip, only: layers of either side that stay as they are, or that alone are blended.
        pairs, map, forms, values, allow, keep_order, specs: as for `port`.

    Raises:
        UsageError: no live models. LayoutxError: layers without a counterpart, shapes that differ; all together.
    """
    if state not in STATES:
        raise UsageError(f"state={state!r} is not known", do=f"choose one of {', '.join(STATES)}")
    for model in (target, source):
        writable(model, "blend", ELSEWHERE)
    options = options_of(allow, skip, only, forms, pairs, (), keep_order, False, values, map)
    known = registry(specs)
    there, here = seen(target, known, {}, {}), seen(source, known, options.forms, options.values)
    found = part("the source", here, there, known, options)
    problems = [*found.problems, *missing([found], (), there, options), *_lost(found)]
    raise_all(problems, "the two models cannot be blended")
    own = kept([found], (), there, options)
    made = _Made(slots_of(target), slots_of(source), state)
    for pair in found.chosen:
        made.add(pair)
    return Blender(made.mixes, {**own, **made.kept}, dict(found.untaken), options.allow, _watched(target, source))


def _lost(found: Part) -> list[LayoutxError]:
    """Layers of the source that have no place: between a network and its slow copy that is a mistake."""
    names = {*found.joint.lost, *found.joint.open}
    why = {
        tensor: reason for tensor, reason in found.untaken.items() if reason not in ("left out by skip", "not in only")
    }
    gone = [tensor for tensor in why if tensor not in found.joint.leftover]
    if not gone or not names:
        return []
    return [
        MatchError(
            f"{len(gone)} tensors of the source have no place in the target",
            where=", ".join(gone[:8]) + (", ..." if len(gone) > 8 else ""),
            why=why[gone[0]],
            do=f"leave them out: skip=[{next(iter(names))!r}]; or pair them: pairs={{layer: place}}",
        )
    ]


class _Made:
    """The mixes of all pairs, and the tensors of theirs that stay."""

    def __init__(self, there: Mapping[str, Slot], here: Mapping[str, Slot], state: str) -> None:
        self.there, self.here, self.state = there, here, state
        self.mixes: list[Mix] = []
        self.kept: dict[str, str] = {}

    def add(self, pair: Any) -> None:
        """The tensors of one pair."""
        sources = {slot: self.here[tensor.name] for slot, tensor in pair.source.tensors.items()}
        for tensor in pair.plan.target.tensors:
            name = pair.target.tensors[tensor.name].name
            target = self.there[name]
            state = is_state(pair.plan.target, tensor)
            counts = target.dtype.kind in "iub"
            mix = mix_of(pair.plan, tensor.name, name, target, sources, counts or (state and self.state == "copy"))
            if state and self.state == "keep":
                self.kept[name] = 'state, and state="keep"'
            elif counts and not any(isinstance(step, Copy) for step in mix.steps):
                self.kept[name] = "a counter that the source does not have"
            else:
                self.mixes.append(mix)


class Blender:
    """Two models, joined; `blender(tau)` blends them. It holds their variables, not the models.

    Attributes:
        mixes: what happens to each tensor of the target.
        kept: target tensor that stays as it is -> why. untaken: source tensor that is not used -> why.
    """

    def __init__(
        self, mixes: Sequence[Mix], kept: Mapping[str, str], untaken: Mapping[str, str], allow: frozenset[str],
        watched: Sequence[Watched],
    ) -> None:  # fmt: skip
        self.mixes, self.kept, self.untaken = tuple(mixes), kept, untaken
        self._allow, self._watched = allow, tuple(watched)
        fast = [mix for mix in mixes if in_torch(mix)]
        own = {id(mix) for mix in fast}
        self._fast = TorchMixes(fast)
        self._slow = tuple(mix for mix in mixes if id(mix) not in own)

    @property
    def blended(self) -> dict[str, tuple[str, ...]]:
        """Target tensor that moves by tau -> the tensors of the source's layer, as its form calls them."""
        return {mix.name: tuple(mix.sources) for mix in self.mixes if not mix.copies}

    @property
    def copied(self) -> dict[str, tuple[str, ...]]:
        """Target tensor that takes the source's values whatever tau is -> the same."""
        return {mix.name: tuple(mix.sources) for mix in self.mixes if mix.copies}

    @property
    def stale(self) -> bool:
        """Whether a module or a parameter of either model was put in another's place since."""
        return any(held.get(name) is not one for held, name, one in self._watched)

    def __call__(self, tau: float) -> None:
        """Blend: target <- tau * source + (1 - tau) * target.

        Raises:
            UsageError: tau is not between 0 and 1; a model has other parameters by now.
        """
        if not 0.0 <= tau <= 1.0:
            raise UsageError(f"tau is {tau!r}", why="it is the share of the source: from 0 (nothing) to 1 (a copy)")
        if self.stale:
            raise UsageError("a model has other parameters than when the blender was made", do="make another blender")
        if tau == 0.0:
            return
        if self._fast.mixes:
            self._fast(float(tau))
        for mix in self._slow:
            mixed(mix, float(tau), self._allow)

    def to_dict(self) -> dict[str, Any]:
        """The account of every key, as JSON."""
        return {
            "blended": {name: list(own) for name, own in self.blended.items()},
            "copied": {name: list(own) for name, own in self.copied.items()},
            "kept": dict(self.kept),
            "untaken": dict(self.untaken),
        }

    def text(self, width: int = 99, color: bool = False) -> str:
        """The account of every key, for a terminal."""
        from layoutx.show.transfer_text import blend_text

        return blend_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def _watched(*models: Any) -> tuple[Watched, ...]:
    """Where torch modules hold their modules and parameters: what is replaced there is no longer what was joined."""
    found: list[Watched] = []
    for model in models:
        if is_keras(model):
            continue
        for module in model.modules():
            for held in (module._modules, module._parameters, module._buffers):
                found += [(held, name, one) for name, one in held.items()]
    return tuple(found)
