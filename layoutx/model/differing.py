"""Settings that two layers are known to have otherwise before anything is run, in the words of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layoutx.model.settings import by_setting, reading_of, shown, unpadded
from layoutx.spec.bound import BoundForm

TRAINING = ("momentum", "padding_idx", "mask_zero")  # what a run of these numbers does not show


def differing(source: BoundForm, target: BoundForm, outside: bool = True) -> list[str]:
    """`eps=0.001; the target has 1e-05`: options that the target's class has, with another value than the source's.

    What the class has no option for may stand elsewhere in the model, as an activation does.

    Args:
        outside: name the padding too, which a layer of its own may do instead.
    """
    lines = []
    for name, line in by_setting(source, target):
        there = reading_of(target, name)
        if name in TRAINING or there is None or (name == "padding" and not outside):
            continue
        has = target.config.get(there.config)
        known = "the target has" in line or "default is" in line
        lines.append(line if known else f"{line}; the target has {there.config}={shown(has)}")
    return [*lines, *(_padded_there(source, target) if outside else ())]


def _padded_there(source: BoundForm, target: BoundForm) -> list[str]:
    """Padding that only the target's layer asks for: the source may do it before the layer, or not at all."""
    there = reading_of(target, "padding")
    if "padding" not in source.settings or there is None or not unpadded(source.settings["padding"]):
        return []
    has = target.config.get(there.config)
    if unpadded(has) or has is None or isinstance(has, str):
        return []
    own = shown(source.settings["padding"])
    return [f"padding={own}, behind whatever is padded before it; the target has {there.config}={shown(has)}"]


def together(pairs: Iterable[tuple[str, BoundForm, BoundForm]], first: str = "") -> Mapping[str, list[str]]:
    """Line -> the layers that it is true of; the padding only where the layer `first` pads otherwise just so."""
    several = list(pairs)
    own = {line for name, source, target in several if name == first for line in differing(source, target)}
    found: dict[str, list[str]] = {line: [] for line in own}
    for name, source, target in several:
        plain = differing(source, target, outside=False)
        for line in differing(source, target):
            if line in own or line in plain:
                found.setdefault(line, []).append(name)
    return found
