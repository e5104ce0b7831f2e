"""What does not live in weights but must travel: eps, momentum, padding, activation; said in the target's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Reading, choose

SHAPES = ("axis", "heads", "groups", "shared_axes", "equation")  # told by the layer's sizes and its data order
NEUTRAL: tuple[Any, ...] = (None, False, "linear", "valid", "concat", 1, (), 0)


def carry(source: BoundForm, target: BoundForm) -> list[str]:
    """Settings of the source that the target's own defaults (or its config) do not already have.

    One line a setting, in the target's words: `eps=0.001 (torch's default is 1e-05)`.
    """
    lines = []
    for name, value in source.settings.items():
        if name in SHAPES or (name == "output_padding" and source.settings.get("padding") == "same"):
            continue  # told by the sizes; or part of the rule for padding="same"
        value = _plain(value)
        if value is None:
            continue
        if name == "padding":
            lines += _padding(value, source, target)
            continue
        there = reading_of(target, name)
        if there is None:
            if not _neutral(value):
                about = source.kind.settings.get(name, "")
                reading = reading_of(source, name)
                key = reading.config if reading else name
                lines.append(f"{key}={_show(value)}: {about}; {target.form.class_name} has no such option")
            continue
        wanted = _spelled(value, there)
        current = _plain(target.config.get(there.config))
        if _expanded(wanted) != _expanded(current):
            lines.append(_line(there, wanted, current, source, name, target))
    return lines


def reading_of(bound: BoundForm, setting: str) -> Reading | None:
    """The config key that holds a setting in this form; None where the form has no such option."""
    found = choose(bound.form.settings.get(setting, ()), bound.config)
    if found is not None and not isinstance(found, Reading):  # a special spelling: the key is that of the plain case
        found = next((c.value for c in bound.form.settings[setting] if isinstance(c.value, Reading)), None)
    return found if isinstance(found, Reading) else None


def _line(there: Reading, wanted: Any, current: Any, source: BoundForm, name: str, target: BoundForm) -> str:
    reading = reading_of(source, name)
    text = f"{there.config}={_show(wanted)}"
    if reading is not None and there.complement != reading.complement:
        text += f" ({source.form.framework} {reading.config}={_show(source.config.get(reading.config))})"
    if target.form.config.get(there.config) == current:
        return f"{text}; {target.form.framework}'s default is {_show(current)}"
    return f"{text}; the target has {_show(current)}"


def _spelled(value: Any, reading: Reading) -> Any:
    """A canonical value as a framework writes it."""
    if reading.complement and isinstance(value, (int, float)):
        value = round(1.0 - value, 12)
    spelled: Mapping[Any, str] = {meaning: word for word, meaning in reading.values.items()}
    return spelled.get(value, value) if isinstance(value, (str, int, float)) else value


def _padding(value: Any, source: BoundForm, target: BoundForm) -> list[str]:
    """Padding by name depends on strides and kernel; only the symmetric part can be an option of torch."""
    if target.form.framework == source.form.framework or _neutral(value):
        return []
    kernel = [source.sizes[axis] for axis in _spatial(source)]
    strides = _each(source.settings.get("strides"), len(kernel))
    dilation = _each(source.settings.get("dilation"), len(kernel))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if value == "causal":
        return [f'padding="causal": pad {reach[0]} on the left of time, F.pad(x, ({reach[0]}, 0))']
    if value != "same":
        return [f"padding={_show(value)}"]
    if "transpose" in source.kind.name:
        return [_same_transposed(kernel, strides, source.settings.get("output_padding"))]
    if all(s == 1 for s in strides):
        return [f'padding="same"{_same_pairs(reach)}']
    pads = [max(k + 1 - s, 0) for k, s in zip(reach, strides, strict=True)]
    pairs = " ".join(f"({p // 2}, {p - p // 2})" for p in pads)
    return [
        f'padding="same" at stride {_show(tuple(strides))} pads {pairs} where the input is a multiple of the stride: '
        "use F.pad before it; padding=int would pad both ends alike"
    ]


def _same_transposed(kernel: Sequence[int], strides: Sequence[int], given: Any) -> str:
    """Keras' "same" of a transposed convolution as a crop of torch's output without padding (layouts.md, part 3)."""
    if given is None:
        crops = [max(k - s, 0) // 2 for k, s in zip(kernel, strides, strict=True)]
        length = "input length × stride"
    else:
        extra = _each(given, len(kernel))
        crops = [max(2 * (k // 2) - p, 0) // 2 for k, p in zip(kernel, extra, strict=True)]
        lost = " ".join(str(k - 2 * (k // 2) + p) for k, p in zip(kernel, extra, strict=True))
        length = f"(input length - 1) × stride + {lost}"
    start = " ".join(map(str, crops))
    return f'padding="same": run without padding, then crop to {length}, starting at {start}; padding=int would differ'


def _same_pairs(reach: Sequence[int]) -> str:
    odd = [r for r in reach if r % 2]
    return "; the odd element goes to the end (torch's padding='same' does that too)" if odd else ""


def _spatial(bound: BoundForm) -> tuple[str, ...]:
    ranks = bound.kind.spread.values()
    return max((names for names in ranks if all(n in bound.sizes for n in names)), key=len, default=())


def _each(value: Any, count: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value or 1)] * count


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _expanded(value: Any) -> Any:
    """(2, 2) and 2 are one setting."""
    return value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value


def _neutral(value: Any) -> bool:
    """Whether a setting asks for nothing; true is not the number one here."""
    return _ones(value) or any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in NEUTRAL
    )


def _ones(value: Any) -> bool:
    return isinstance(value, tuple) and all(v == 1 for v in value)


def _show(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(_expanded(_plain(value)))
