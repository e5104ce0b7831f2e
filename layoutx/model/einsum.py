"""EinsumDense (flax: Einsum) as a Dense: which letters of the kernel its equation makes `input`, and which `output`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutx.frozen import frozen
from layoutx.model.record import LayerRecord, Refinement

EINSUM = "einsum_str"  # what flax calls the equation of an Einsum


@frozen
class Einsum:
    """The letters of one equation, as leaf axis names (`in_c`, `out_d`).

    `input` in the order of the data that goes in, `output` in that of the data that comes out, `kernel` and
    `bias` in storage order; "1" in `bias` is a dimension of length one. `refusal` says why it is no Dense.
    """

    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()
    refusal: str = ""


def parse(equation: str, bias_axes: str | None = None) -> Einsum:
    """Reads `"abc,cde->abde"`, with or without `...` (keras 3.15.1 EinsumDense._analyze_einsum_string).

    A letter of kernel and data in that also comes out is a batch letter of the kernel: no Dense can do it.
    """
    left, arrow, out = equation.replace(" ", "").replace("...", "").partition("->")
    data, comma, kernel = left.partition(",")
    if not arrow or not comma or not (data + kernel + out).isalpha() or len(set(kernel)) < len(kernel):
        return Einsum(refusal=f'the equation "{equation}" is not of the form "ab,bc->ac"')
    batch = [x for x in kernel if x in data and x in out]
    if batch:
        return Einsum(refusal=f'letter "{batch[0]}" of "{equation}" is in both inputs and in the output')
    inputs = [x for x in data if x in kernel]
    outputs = [x for x in out if x in kernel]
    if not inputs or not outputs or set(inputs) | set(outputs) != set(kernel):
        return Einsum(refusal=f'the kernel of "{equation}" does not lead from an input axis to an output axis')
    if not out.endswith("".join(outputs)) or not data.endswith("".join(inputs)):
        return Einsum(refusal=f'"{equation}" does not work on the last axes of its data')
    bias = _bias(out, outputs, bias_axes or "")
    if bias is None:
        return Einsum(refusal=f'bias_axes "{bias_axes}" of "{equation}" name an axis that the kernel does not make')
    names = {**{x: _name("in", x) for x in inputs}, **{x: _name("out", x) for x in outputs}}
    return Einsum(
        tuple(names[x] for x in inputs),
        tuple(names[x] for x in outputs),
        tuple(names[x] for x in kernel),
        tuple(names.get(x, x) for x in bias),
    )


def _name(side: str, letter: str) -> str:
    return f"{side}_{letter}" if letter.islower() else f"{side}_{letter.lower()}_upper"


def _bias(out: str, outputs: list[str], bias_axes: str) -> list[str] | None:
    """The bias starts at its first axis of the output and has length one where an axis is not named."""
    if not bias_axes:
        return []
    if any(x not in outputs for x in bias_axes):
        return None
    first = min(out.index(x) for x in bias_axes)
    return [x if x in bias_axes else "1" for x in out[first:]]


def einsum_record(record: LayerRecord) -> LayerRecord:
    """The record with `kernel_dims`, `bias_dims` and the refinements of `input` and `output`; form "" where refused."""
    equation = str(record.config.get("equation") or record.config.get(EINSUM) or "")
    axes = record.config.get("bias_axes") if EINSUM not in record.config else _made(record, equation)
    parsed = parse(equation, str(axes) if axes else None)
    kernel = record.tensors.get("kernel")
    refusal = parsed.refusal
    if not refusal and (kernel is None or len(kernel.shape) != len(parsed.kernel)):
        refusal = f'the kernel does not have the {len(parsed.kernel)} dimensions of "{equation}"'
    if not refusal and axes and set(parsed.bias) - {"1"} != set(parsed.output):
        refusal = f'bias_axes "{axes}" of "{equation}" leave out an output axis'
    if refusal or kernel is None:
        return replace(record, form="", note="; ".join(n for n in (record.note, refusal) if n))
    sizes = dict(zip(parsed.kernel, kernel.shape, strict=True))
    words = {"kernel_dims": " ".join(parsed.kernel), "bias_dims": " ".join(parsed.bias), "use_bias": bool(axes)}
    config = {**record.config, **words}
    refine: Mapping[str, Refinement] = {
        side: _side(axes_, sizes, equation) for side, axes_ in (("input", parsed.input), ("output", parsed.output))
    }
    return replace(record, config=config, refine=refine)


def _made(record: LayerRecord, equation: str) -> str:
    """The axes of a bias in flax: all that the kernel makes, in the result's order (Einsum._get_bias_shape, 0.12.8)."""
    left, _, out = equation.replace(" ", "").partition("->")
    return "".join(x for x in out if x in left.partition(",")[2] and x.isalpha()) if "bias" in record.tensors else ""


def _side(axes: tuple[str, ...], sizes: Mapping[str, int], equation: str) -> Refinement:
    text = axes[0] if len(axes) == 1 else f"({' '.join(axes)})"
    return Refinement(text, text, {a: sizes[a] for a in axes}, f"einsum({equation})")
