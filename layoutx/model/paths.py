"""Module paths under which tensors have a form's names: one module, consecutive ones, or such as feed each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from layoutx.model.bare import PATH
from layoutx.model.keyed import Keyed, prefixes
from layoutx.model.order import keeps_order
from layoutx.model.projections import in_words
from layoutx.spec.schema import Form


def places(
    form: Form, names: Sequence[str], keyed: Keyed, among: Iterable[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Module paths under which all the names exist; a composite form may also lie in consecutive modules.

    Args:
        among: the only tensors that the first name can be.
    """
    dotted = {name: name.replace("/", ".") for name in names}  # jax's forms spell paths inside a layer with "/"
    first = dotted[names[0]]
    for full in keyed.tensors if among is None else among:
        if first == PATH:
            if among is not None:  # else no name speaks for it
                yield full, {PATH: full}
        elif full == first or full.endswith(f".{first}"):
            prefix = full[: -len(first)].rstrip(".")
            found = {name: f"{prefix}.{short}" if prefix else short for name, short in dotted.items()}
            if all(name in keyed.tensors for name in found.values()):
                yield prefix, found
    if form.modules:
        yield from _consecutive(form, names, keyed)
    if form.by_class:
        for path, module in keyed.modules.items():
            if module.form == form.name and {module.names.get(name) for name in names} <= keyed.tensors.keys():
                yield path, {name: module.names[name] for name in names}


def _consecutive(form: Form, names: Sequence[str], keyed: Keyed) -> Iterator[tuple[str, dict[str, str]]]:
    slots = list(form.modules)
    own = {slot: [n.removeprefix(f"{slot}.") for n in names if n.startswith(f"{slot}.")] for slot in slots}
    paths = prefixes(keyed.tensors)
    direct: dict[str, set[str]] = {path: set() for path in paths}
    for name in keyed.tensors:
        path, _, last = name.rpartition(".")
        direct[path].add(last)
    runs = [paths[at : at + len(slots)] for at in range(len(paths) - len(slots) + 1)]
    runs += [run for run in _chains(keyed, len(slots)) if run not in runs and direct.keys() >= set(run)]
    for run in (spoken for one in runs if (spoken := in_words(one, slots, keeps_order(keyed)))):
        if any(_run_of_rows(keyed, path) for path in run):  # what its class does was looked at when it was whole
            continue
        if all(direct[path] == set(own[slot]) for path, slot in zip(run, slots, strict=True)):
            yield (
                run[0],
                {
                    f"{slot}.{last}": f"{path}.{last}" if path else last
                    for path, slot in zip(run, slots, strict=True)
                    for last in own[slot]
                },
            )


def _run_of_rows(keyed: Keyed, path: str) -> bool:
    """Whether a layer is a part of one that is several."""
    part = keyed.tensors[f"{path}.weight"].part if f"{path}.weight" in keyed.tensors else None
    return part is not None and part.stop is not None


def _chains(keyed: Keyed, count: int) -> Iterator[list[str]]:
    """Modules that feed each other and nobody else, wherever they are defined: lists of depthwise and of pointwise."""
    wires = keyed.wires() if keyed.wires is not None else {}
    before = {path: {way.maker for way in found if way.maker} for path, found in wires.items()}
    after: dict[str, list[str]] = {}
    for path, found in before.items():
        for other in found:
            after.setdefault(other, []).append(path)
    for path in before:
        run = [path]
        while len(run) < count and len(after.get(run[-1], ())) == 1 and before[after[run[-1]][0]] == {run[-1]}:
            run.append(after[run[-1]][0])
        if len(run) == count and len(set(run)) == count:
            yield run
