"""Numbers that nobody trained and that a model keeps beside its weights: counted positions, masks, frequencies, waves.

What they hold tells them, whatever they are called and whether they were registered as a buffer or as a weight: a model
that makes them anew when it is called has no place for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt, prod

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.files.dtypes import Array
from layoutx.files.store import Tensor
from layoutx.model.bare import called_table, is_table
from layoutx.model.keyed import Keyed
from layoutx.model.record import UNTRAINED, ModelRecord
from layoutx.spec.registry import Registry

MOST = 1 << 24  # numbers that are looked at: the mask of 4096 positions
LEAST = 4  # frequencies, or positions of a wave: of fewer, trained numbers might be some by chance
FAR = -1e4  # what is added to a score that is left out, or less
NEAR = 1e-2  # of waves, whose angles were rounded before, and of steps between frequencies


def aside(keyed: Keyed, registry: Registry) -> Keyed:
    """The model without counts, masks and frequencies under names that no form uses; `beside` says what they are.

    Waves stay: the other model may hold them as a table of positions.
    """
    used = registry.last_names().get(keyed.framework, frozenset())
    free = [n for n, t in keyed.tensors.items() if n.rpartition(".")[2] not in used or t.shape[:-2] == (1, 1)]
    known = {name: why for name in free if (why := constant(keyed.tensors[name], waves=False))}
    if not known:
        return keyed
    rest = {name: tensor for name, tensor in keyed.tensors.items() if name not in known}
    kept = {**keyed.kept, **{name: keyed.tensors[name] for name in known}}
    said = {keyed.tensors[name].name: f"{why}: {UNTRAINED}" for name, why in known.items()}
    tied = {name: first for name, first in keyed.tied.items() if name not in known}
    return replace(keyed, tensors=rest, kept=kept, tied=tied, beside={**keyed.beside, **said})


def unformed_aside(model: ModelRecord) -> ModelRecord:
    """The model whose layers without a form keep what may be trained; `leftover` says what the rest is."""
    said: dict[str, str] = {}
    layers = []
    for record in model.layers:
        own = untrained(record.tensors) if record.tensors and not record.form else {}
        said |= {record.tensors[short].name: why for short, why in own.items()}
        rest = {short: tensor for short, tensor in record.tensors.items() if short not in own}
        layers.append(replace(record, tensors=rest) if own else record)
    return replace(model, layers=tuple(layers), leftover={**model.leftover, **said}) if said else model


def untrained(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Those among tensors that nobody trained, or that add nothing -> what they are, in words."""
    found = {name: constant(tensor) or _nothing(tensor) for name, tensor in tensors.items()}
    return {name: f"{why}: {UNTRAINED}" for name, why in found.items() if why}


def all_constant(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer holds nothing that was trained."""
    return bool(tensors) and len(untrained(tensors)) == len(tensors)


def one_row(tensor: Tensor) -> bool:
    """Whether a tensor is a table of a single row, which is a constant of the model: token types of RoBERTa."""
    return len(tensor.shape) == 2 and tensor.shape[0] == 1 and is_table(tensor) and called_table(tensor.name)


def _nothing(tensor: Tensor) -> str:
    data = _numbers(tensor) if one_row(tensor) else None
    return "one row of zeros" if data is not None and not data.any() else ""


def _numbers(tensor: Tensor) -> Array | None:
    """None where they cannot be read (quantised weights): whoever moves the tensor says so."""
    try:
        return tensor.read()
    except LayoutxError:
        return None


def constant(tensor: Tensor, waves: bool = True) -> str:
    """What a tensor holds that nobody trains, in words; "" where it may be anything.

    Args:
        waves: a table of sines and cosines counts too.
    """
    shape = tuple(size for size in tensor.shape if size > 1)
    whole = tensor.dtype.kind in "iub"
    tall = len(shape) == 2 and not waves and shape[0] != shape[1]
    if tensor.dtype.kind not in "iubfV" or not 0 < tensor.size <= MOST or (not whole and (len(shape) > 2 or tall)):
        return ""
    numbers = _numbers(tensor)
    if numbers is None:
        return ""
    data = numbers.reshape(shape)
    data = data.astype(np.float32) if data.dtype.kind == "V" else data  # bfloat16 and its like
    looks = [_scalar] if not shape else [_counted, _mask] if whole else [_frequencies, _mask] + [_waves] * waves
    return next((why for look in looks if (why := look(data))), "")


def _scalar(data: Array) -> str:
    return "what a mask adds" if prod(data.shape) == 1 and data.dtype.kind == "f" and data <= FAR else ""


def _counted(data: Array) -> str:
    flat = data.ravel()
    if data.dtype.kind == "b" or data.dtype.itemsize < 4:
        return ""
    if (flat == flat[0]).all():
        return f"{flat[0]} everywhere"
    if np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
        return "positions, counted"
    side = isqrt(isqrt(flat.size))
    if side > 1 and side**4 == flat.size and np.array_equal(flat, _distances(side)):
        return "places in a table of distances"
    return ""


def _distances(side: int) -> Array:
    """Of each two places in a square window where the table of their distance has its row: Swin, BEiT."""
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None, :] + side - 1
    found: Array = (apart[0] * (2 * side - 1) + apart[1]).ravel()
    return found


def _mask(data: Array) -> str:
    """Which positions see which, by their distance alone: from two diagonals on, an identity may be a weight."""
    if data.ndim != 2 or data.shape[0] != data.shape[1]:
        return ""
    size = len(data)
    diagonals = np.concatenate([data[::-1, 0], data[0, 1:]])  # by column minus row, from 1 - size on
    values = np.unique(diagonals).astype(np.float64)
    if len(values) != 2 or not all(value in (0, 1) or value <= FAR for value in values):
        return ""
    if min(int((diagonals == value).sum()) for value in values) < 2:
        return ""
    same = all(np.array_equal(row, diagonals[size - 1 - at : 2 * size - 1 - at]) for at, row in enumerate(data))
    return "a mask of earlier and later positions" if same else ""


def _frequencies(data: Array) -> str:
    """1, 1/r, 1/r², ...: the frequencies of rotary positions."""
    if data.ndim != 1 or len(data) < LEAST or data[0] != 1 or not (data > 0).all():
        return ""
    steps = np.diff(np.log(data.astype(np.float64)))
    alike = steps[0] < 0 and np.allclose(steps, steps.mean(), rtol=NEAR, atol=0)
    return "frequencies of positions" if alike else ""


def _waves(data: Array) -> str:
    """Row t holds sin(w t) and cos(w t), in any order of columns in which the pairs keep theirs."""
    if data.ndim != 2 or len(data) < LEAST or not np.isin(data[0], (0, 1)).all():
        return ""
    sines = data[:, data[0] == 0].astype(np.float64)
    cosines = data[:, data[0] == 1].astype(np.float64)
    if not sines.size or sines.shape != cosines.shape or np.abs(data).max() > 1 + NEAR:
        return ""
    angle = np.arctan2(sines[1], cosines[1])
    made = np.sin(np.arange(len(data))[:, None] * angle)
    right = np.allclose(sines**2 + cosines**2, 1, atol=NEAR) and np.allclose(sines, made, atol=NEAR)
    return "sines and cosines of positions" if right else ""
