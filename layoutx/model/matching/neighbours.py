"""Whether a layer's neighbours are the counterparts of a place's: what lies around a place is looked up once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field

from layoutx.frozen import frozen
from layoutx.model.matching.wiring import PLAIN, Edges, Wires, agreement, of_place
from layoutx.model.places import Candidate

Around = tuple[Edges | None, Edges | None]  # what lies before a place, and after it; None where it says nothing
Agreement = tuple[float, float, bool]  # neighbours that are counterparts, those that are not, whether they come alike


@frozen
class Neighbours:
    """The wiring of both models.

    Attributes:
        steps: path of a stacked module -> the numbers of its layers.
        around: id of a candidate -> what lies around it, None where its wiring is not known.
        silent: modules of parameters that the wiring of `here` does not show (a learned scale behind a norm).
        options: keeps the candidates alive, so that no other one has such an id.
        heard: layer -> those of its neighbours that had a place when it was last asked for, and what they told.
    """

    here: Wires
    there: Wires
    options: Mapping[str, Sequence[Candidate]]
    steps: Mapping[str, Collection[int]]
    silent: Collection[str] = ()
    around: dict[int, Around | None] = field(default_factory=dict)
    heard: dict[str, tuple[frozenset[str], dict[int, Agreement]]] = field(default_factory=dict)

    def told(self, name: str, which: Sequence[int], met: Mapping[str, Collection[str]]) -> Mapping[int, Agreement]:
        """What a layer's neighbours tell of its candidates of these numbers, made out anew where one more has a place.

        A place, once given, stays: most layers' neighbours have none yet, or had theirs in the round before.
        """
        sides = (self.here.before.get(name), self.here.after.get(name))
        placed = frozenset(other for side in sides for other in side or () if other in met)
        before, found = self.heard.get(name, (None, {}))
        if before != placed or any(at not in found for at in which):
            found = {at: self.agreed(name, self.options[name][at], met) for at in which}
            self.heard[name] = placed, found
        return found

    def agreed(self, name: str, candidate: Candidate, met: Mapping[str, Collection[str]]) -> Agreement:
        """How many neighbours of both are counterparts, how many are not, and whether those that are come alike.

        Args:
            met: what the places of layers are known as, for the layers that have one.
        """
        if id(candidate) not in self.around:
            self.around[id(candidate)] = self._around(candidate)
        found = self.around[id(candidate)]
        if found is None:
            return 0, 0, False
        return agreement((self.here.before.get(name), self.here.after.get(name)), found, met)

    def _around(self, candidate: Candidate) -> Around | None:
        paths = [path for path in paths_of(candidate) if path in self.there.before]
        if not paths:
            return None
        before, after = of_place(self.there, paths)
        for at in candidate.instance.values() if len(candidate.instance) == 1 else ():
            # layers of one stacked module run one after another; the module's neighbours are those of its ends
            steps = self.steps[candidate.prefix]
            before = {_step(candidate, at - 1): PLAIN} if at - 1 in steps else before
            after = {_step(candidate, at + 1): PLAIN} if at + 1 in steps else after
        return self._told(before), self._told(after)

    def _told(self, side: Edges) -> Edges | None:
        return None if any(path in self.silent for path in side) else side


def neighbours_of(here: Wires, there: Wires, options: Mapping[str, Sequence[Candidate]]) -> Neighbours:
    """The wiring of both models, for layers with these candidates."""
    steps: dict[str, set[int]] = {}
    for candidate in (c for own in options.values() for c in own):
        steps.setdefault(candidate.prefix, set()).update(candidate.instance.values())
    shown: dict[bool, set[str]] = {True: set(), False: set()}
    for name, own in options.items():
        shown[name in here.before or name in here.after].update(path for c in own for path in paths_of(c))
    return Neighbours(here, there, options, steps, shown[False] - shown[True])


def _step(candidate: Candidate, at: int) -> str:
    return f"{candidate.prefix}/{at}"


def known_as(candidate: Candidate) -> tuple[str, ...]:
    """What the neighbours of a place call it: its modules, and its number in a stacked one."""
    return (*paths_of(candidate), *(_step(candidate, at) for at in candidate.instance.values()))


def paths_of(candidate: Candidate) -> tuple[str, ...]:
    """The module paths of a place: its own, and those that hold its tensors."""
    return tuple(dict.fromkeys((candidate.prefix, *(full.rpartition(".")[0] for full in candidate.names.values()))))
