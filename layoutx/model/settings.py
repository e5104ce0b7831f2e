"""What does not live in weights but must travel: eps, momentum, padding, activation; said in the target's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layoutx.model.cropping import FILLED, alike, by_hand, by_numbers, cuts, ends
from layoutx.model.time_first import time_first
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Reading, choose, plain

SHAPES = ("axis", "heads", "groups", "shared_axes", "equation")  # told by the layer's sizes and its data order
# frameworks whose layers pad by name alone, spelled as layoutx does
NAMED: Mapping[str, tuple[str, ...]] = {"keras": ("valid", "same", "causal"), "tf1": ("valid", "same")}
NEUTRAL: tuple[Any, ...] = (None, False, "linear", "valid", "concat", 1, (), 0)
EPSILON = 2.0**-23  # of float32: what an eps of None is there (torch 2.13 RMSNorm)
CALLED = ("causal",)  # decided by each call of a layer, unless the layer itself always does it


def carry(source: BoundForm, target: BoundForm) -> list[str]:
    """Settings of the source that the target's own defaults (or its config) do not already have.

    One line a setting, in the target's words: `eps=0.001 (torch's default is 1e-05)`.
    """
    lines = [line for _, line in by_setting(source, target)] + time_first(source, target)
    return lines + [line for name in CALLED if (line := _called(name, source, target))]


def by_setting(source: BoundForm, target: BoundForm) -> Iterator[tuple[str, str]]:
    """The lines of `carry` with the setting that each is about; what a call of the layer decides is not among them."""
    for name, value in source.settings.items():
        if name in SHAPES or name in CALLED or (name == "output_padding" and source.settings.get("padding") == "same"):
            continue  # told by the sizes; or part of the rule for padding="same"
        value = EPSILON if name == "eps" and value is None else plain(value)
        if value is None or (name == "output_padding" and _zero(value)):
            continue  # what a zero means beside a default that is no number is told with the padding
        if name == "padding":
            yield from ((name, line) for line in _padding(value, source, target))
            continue
        there = reading_of(target, name)
        if there is None:
            if not _neutral(value) or name == "output_padding":
                about = source.kind.settings.get(name, "")
                reading = reading_of(source, name)
                key = reading.config if reading else name
                yield name, f"{key}={shown(value)}: {about}; {target.form.class_name} has no such option"
            continue
        wanted = spelled(value, there)
        current = plain(target.config.get(there.config))
        unsaid = current is None and (_neutral(value) or value == EPSILON)  # strides=None of flax is 1
        if single(wanted) != single(current) and not unsaid:
            yield name, _line(there, wanted, current, source, name, target)


def _called(name: str, source: BoundForm, target: BoundForm) -> str:
    """What one side always does and the other only where its call asks for it; "" where both are alike."""
    here, there = (bool(bound.settings.get(name)) for bound in (source, target))
    if here == there:
        return ""
    always, other = (source, target) if here else (target, source)
    how = other.form.calls.get(name)
    text = f"{always.form.name} is always {name} ({source.kind.settings[name]}); "
    if here:
        return text + (f"pass {how} when you call it" if how else f"{other.form.name} is not: mask its scores")
    with_it = f"is called with {how}" if how else "is so as well"
    return f"{text}the same function only where {other.form.name} {with_it}"


def reading_of(bound: BoundForm, setting: str) -> Reading | None:
    """The config key that holds a setting in this form; None where the form has no such option."""
    found = choose(bound.form.settings.get(setting, ()), bound.config)
    if found is not None and not isinstance(found, Reading):  # a special spelling: the key is that of the plain case
        found = next((c.value for c in bound.form.settings[setting] if isinstance(c.value, Reading)), None)
    return found if isinstance(found, Reading) else None


def _line(there: Reading, wanted: Any, current: Any, source: BoundForm, name: str, target: BoundForm) -> str:
    reading = reading_of(source, name)
    text = f"{there.config}={shown(wanted)}"
    if wanted == EPSILON and source.settings.get(name) is None:
        text += f" ({source.form.framework}'s None is the machine epsilon of float32)"
    if reading is not None and there.complement != reading.complement:
        text += f" ({source.form.framework} {reading.config}={shown(source.config.get(reading.config))})"
    if target.form.config.get(there.config) == current:
        return f"{text}; {target.form.framework}'s default is {shown(current)}"
    return f"{text}; the target has {shown(current)}"


def spelled(value: Any, reading: Reading) -> Any:
    """A canonical value as a framework writes it."""
    if reading.complement and isinstance(value, (int, float)):
        value = round(1.0 - value, 12)
    spelled: Mapping[Any, str] = {meaning: word for word, meaning in reading.values.items()}
    return spelled.get(value, value) if isinstance(value, (str, int, float)) else value


def _padding(value: Any, source: BoundForm, target: BoundForm) -> list[str]:
    """Padding by the target's own word where it has one; else what to do instead, by strides and kernel."""
    transposed = "transpose" in source.kind.name
    there = reading_of(target, "padding")
    current = there.values.get(_key(target, there), _key(target, there)) if there else _always(target)
    if transposed and (value == "valid" or _zero(value)):
        return _uncropped(value, source, target, there, current)
    if transposed and value == "same":
        return _cropped(source, target, there)
    if current == value or (unpadded(value) and unpadded(current)):
        return []
    if there is not None and _says(target, there, "valid" if unpadded(value) else value):
        wanted = spelled("valid" if unpadded(value) else value, there)
        return [_line(there, wanted, plain(target.config.get(there.config)), source, "padding", target)]
    if unpadded(value):
        return [f"padding={shown(value)}: {target.form.class_name} always pads"] if current == "same" else []
    if not isinstance(value, str):
        return [_numbers(value, target, there, transposed)]
    if value == "same" and not transposed and alike(*_window(source), current):
        return []
    return _by_hand(value, source, target)


def _key(target: BoundForm, there: Reading) -> Any:
    return plain(target.config.get(there.config))


def _always(target: BoundForm) -> Any:
    return next((case.value for case in target.form.settings.get("padding", ())), None)


def unpadded(value: Any) -> bool:
    """Whether a padding asks for nothing."""
    return value in (None, "valid") or _zero(value)


def _zero(value: Any) -> bool:
    """Whether numbers ask for no padding: 0, (0, 0), ((0, 0), (0, 0))."""
    return (value == 0 and not isinstance(value, bool)) or (
        isinstance(value, (tuple, list)) and all(_zero(v) for v in value)
    )


def _says(target: BoundForm, there: Reading, value: Any) -> bool:
    """Whether the target's config has a word for this padding."""
    if there.values:
        return value in there.values.values()
    words = NAMED.get(target.form.framework, ())
    return value in words and (value != "causal" or target.form.class_name == "Conv1D")


def _uncropped(value: Any, source: BoundForm, target: BoundForm, there: Reading | None, current: Any) -> list[str]:
    """No cropping of a transposed convolution: under a name it has n * stride positions where the stride is longer
    than the kernel, by a number (n - 1) * stride + kernel (layouts.md, part 3)."""
    lines = []
    if there is not None and not unpadded(current):
        wanted = spelled("valid", there) if _says(target, there, "valid") else 0
        lines.append(_line(there, wanted, plain(target.config.get(there.config)), source, "padding", target))
    kernel, strides, dilation = _window(source)
    longer = [s - (k - 1) * d - 1 for k, s, d in zip(kernel, strides, dilation, strict=True)]
    named = current == "valid" or (there is not None and not unpadded(current) and _says(target, there, "valid"))
    by_name = value == "valid" and source.settings.get("output_padding") is None
    option = reading_of(target, "output_padding")
    if max(longer, default=0) <= 0 or by_name == named:
        return lines
    rest = tuple(max(n, 0) for n in longer)
    if named and option is not None:
        return [*lines, f"{option.config}=0: else {target.form.class_name} appends {shown(rest)}"]
    if named:
        return [
            *lines,
            f"padding={shown(value)}: leave out the last {shown(rest)} of the output, which the source lacks",
        ]
    if option is not None:
        return [
            *lines,
            f"{option.config}={shown(rest)}: {FILLED}",
        ]
    return [*lines, f'padding="valid": append {shown(rest)} to the output, as the source does where strides are longer']


def _cropped(source: BoundForm, target: BoundForm, there: Reading | None) -> list[str]:
    """Keras' "same" of a transposed convolution in the target's words: its name, its numbers, or a crop by hand."""
    window, onnx = _window(source), "onnx" in (source.form.framework, target.form.framework)
    given = source.settings.get("output_padding")
    extra = None if given is None else _each(given, len(window[0]))
    cut, bare = cuts(*window, extra), cuts(*window)
    if source.form.framework == "onnx" and min(cut) < 0:
        return ['auto_pad="SAME_UPPER": engines differ where a stride is longer than the kernel; give the source pads']
    option = reading_of(target, "output_padding")
    own = option is not None and (target.form.framework == "keras" or target.form.by_class)  # part of their rule
    known = target.settings.get("padding") == "same"
    alike = (own or cut == bare) and (not onnx or min(cut) >= 0)
    if alike and (known or (there is not None and _says(target, there, "same"))):
        return _same(target, source, there, option if own else None)
    if target.form.framework == "onnx":
        return (['auto_pad="NOTSET", else pads are not read'] if known else []) + by_numbers(cut)
    front, end, more = ends(cut)
    if front != end or (any(more) and option is None):
        return [by_hand(cut, option.config if option else "", ready(target, "same", given))]
    filled = [f"{option.config}={shown(tuple(more))}: {FILLED}"] if option and any(more) else []
    current = target.settings.get("padding")
    there_already = not any(front) if unpadded(current) else single(current) == single(tuple(front))
    return ([] if there_already else [_numbers(tuple(front), target, there, True)]) + filled


def _same(target: BoundForm, source: BoundForm, there: Reading | None, option: Reading | None) -> list[str]:
    """The target's own word for it, and its output_padding where that belongs to its rule."""
    lines = []
    if there is not None and target.settings.get("padding") != "same":
        lines.append(_line(there, spelled("same", there), _key(target, there), source, "padding", target))
    wanted, current = (plain(bound.settings.get("output_padding")) for bound in (source, target))
    if option is not None and single(wanted) != single(current):
        lines.append(_line(option, wanted, current, source, "output_padding", target))
    return lines


def _numbers(value: Any, target: BoundForm, there: Reading | None, transposed: bool) -> str:
    """Padding by numbers, which some frameworks do not take."""
    only = there is None or any(key == there.config and type(words) is tuple for key, words, _ in target.form.require)
    if not only and target.form.framework not in NAMED and there is not None:
        return f"{there.config}={shown(value)}"
    what = "crop the output by them after it" if transposed else "pad the input by them before it"
    return f"padding={shown(value)}: {target.form.class_name} takes no numbers, {what}"


def _by_hand(value: str, source: BoundForm, target: BoundForm) -> list[str]:
    """Padding by a name that the target does not know, as what to do with the input or the output."""
    kernel, strides, dilation = _window(source)
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    torch = target.form.framework == "torch"
    if value == "causal":
        pad = f", F.pad(x, ({reach[0]}, 0)){ready(target, value)}" if torch else ""
        return [f'padding="causal": pad {reach[0]} on the left of time{pad}']
    if value != "same":
        return [f"padding={shown(value)}"]
    named = [case for case in target.form.settings.get("padding", ()) if case.value == value and len(case.when) == 1]
    if named:
        key, words = next(iter(named[0].when.items()))
        return [f"{key}={shown(words[0])}"]
    if all(s == 1 for s in strides) and torch:
        return [f'padding="same"{_same_pairs(reach)}']
    pads = [max(k + 1 - s, 0) for k, s in zip(reach, strides, strict=True)]
    pairs = " ".join(f"({p // 2}, {p - p // 2})" for p in pads)
    return [
        f'padding="same" at stride {shown(tuple(strides))} pads {pairs} where the input is a multiple of the stride: '
        f"{'use F.pad before it' + ready(target, value) if torch else 'pad the input so'}; "
        "padding=int would pad both ends alike"
    ]


def ready(target: BoundForm, padding: str, extra: Any = None) -> str:
    """` or layoutx.torch.Conv2dSame`: the module that pads so by itself, on the target's weights; "" for none."""
    forms = [form for form in target.kind.forms.values() if form.framework == target.form.framework and form.by_class]
    name = next((form.import_name for form in forms if form.rank == target.form.rank), "")
    more = "" if extra is None else f", output_padding={shown(plain(extra))}"
    words = f'(padding="{padding}"{more})' if padding != "same" or more else ""
    return f" or {name}{words}" if name else ""


def _window(source: BoundForm) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and dilation, each axis."""
    kernel = [source.sizes[axis] for axis in _spatial(source)]
    strides, dilation = (_each(source.settings.get(name), len(kernel)) for name in ("strides", "dilation"))
    return kernel, strides, dilation


def _same_pairs(reach: Sequence[int]) -> str:
    odd = [r for r in reach if r % 2]
    return "; the odd element goes to the end (torch's padding='same' does that too)" if odd else ""


def _spatial(bound: BoundForm) -> tuple[str, ...]:
    ranks = bound.kind.spread.values()
    return max((names for names in ranks if all(n in bound.sizes for n in names)), key=len, default=())


def _each(value: Any, count: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [1 if value is None else int(value)] * count


def single(value: Any) -> Any:
    """(2, 2) and 2 are one setting."""
    value = plain(value)
    return value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value


def _neutral(value: Any) -> bool:
    """Whether a setting asks for nothing; true is not the number one here."""
    return (isinstance(value, tuple) and all(v == 1 for v in value)) or any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in NEUTRAL
    )


def shown(value: Any) -> str:
    """A setting's value as a constructor call writes it."""
    return f'"{value}"' if isinstance(value, str) else str(single(value))
