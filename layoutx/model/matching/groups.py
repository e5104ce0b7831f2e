"""Layers that no place connects are looked at by themselves: groups, one for each shape as a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layoutx.model.places import Candidate


def together(options: Mapping[str, Sequence[Candidate]], rest: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """Layers in groups that have no place in common with each other."""
    leader: dict[str, str] = {}
    owner: dict[int, str] = {}  # id of a candidate -> a layer that has it

    def first(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    alike: dict[tuple[int, int], str] = {}  # ids of the places, and of which are left -> the first layer with these
    for name, own in rest.items():
        if alike.setdefault((id(options[name]), id(own)), name) != name:
            leader[first(f"here {alike[id(options[name]), id(own)]}")] = first(f"here {name}")
            continue
        for candidate in (options[name][at] for at in own):
            if owner.setdefault(id(candidate), name) != name:  # layers alike have the same candidates
                leader[first(f"here {owner[id(candidate)]}")] = first(f"here {name}")
                continue
            for full in candidate.names.values():
                leader[first(f"there {full}")] = first(f"here {name}")
    groups: dict[str, list[str]] = {}
    for name in rest:
        groups.setdefault(first(f"here {name}"), []).append(name)
    return list(groups.values())
