"""Parameters that no layer holds (self.pos = nn.Parameter(...)): which they are, and what they may be.

A table of rows, as positions and tokens are, or one factor for each channel. Shapes say what is possible, names what is
likely: a form that stands for its own path has no other name that could speak for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from layoutx.files.store import Tensor
from layoutx.model.graph import VARIABLE
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord
from layoutx.spec.registry import Registry

PATH = ""  # how a form calls a tensor whose name is the path itself
TABLE, SCALE = "embedding", "layer_scale"
TABLES: Mapping[str, str] = {
    "torch": "torch.Parameter",
    "flax": "flax.Param",
    "nnx": "nnx.Param",
    "keras": "keras.PositionEmbedding",
    "tf1": "tf1.Variable",
}
SCALES: Mapping[str, str] = {
    "torch": "torch.LayerScale",
    "flax": "flax.LayerScale",
    "nnx": "nnx.LayerScale",
    "keras": "keras.LayerScale",
}
SLOTS = {"keras.PositionEmbedding": "embeddings", "keras.LayerScale": "gamma"}
# words by which people call tables that are added to what goes through: ViT, BERT, GPT-2, perceivers
WORDS = re.compile(
    r"pos(?![a-z])|posit|pos_?(emb|enc)|embed|token|query|queries|latent|(?<![a-z])(?:emb|w[tp]e)(?![a-z])",
    re.IGNORECASE,
)
# and what they call factors on a branch: ConvNeXt, CaiT, BEiT, DINO
FACTORS = re.compile(
    r"layer_?scale|(?<![a-z])(?:gamma|lambda)(?:_?\d+)?(?![a-z])|(?<![a-z0-9])ls_?\d+(?![a-z0-9])", re.IGNORECASE
)
# a norm's factors, which are no layer of their own, and what is added or measured
OTHERS = re.compile(
    r"norm|(?<![a-z])(?:bn|ln|gn|rms|bias|beta|shift|offset|mean|var|std|temperature)_?\d*(?![a-z])", re.IGNORECASE
)
_PART = re.compile(r"[./]")
SAYS = {
    TABLE: "a parameter of its own, called as a table of rows is",
    SCALE: "a parameter of its own, called as the factors of channels are",
}
MOST_AXES = 3  # of the places of a map


def bare_names(keyed: Keyed, registry: Registry) -> Mapping[str, str]:
    """The names of tensors that are no part of any layer that layoutx knows -> the kind that their shape allows.

    A name that some form of the framework uses (`weight`) is no bare one, and neither is a tensor of a live module
    whose class has a form. Factors are called so, or nothing.
    """
    if keyed.framework not in TABLES:
        return {}
    used = registry.last_names().get(keyed.framework, frozenset())
    return {
        name: kind
        for name, tensor in keyed.tensors.items()
        if name.rpartition(".")[2] not in used and (kind := _kind(name, tensor, keyed)) and not _of_a_layer(name, keyed)
    }


def is_table(tensor: Tensor) -> bool:
    """Whether a tensor may be a table: (rows, width), or (1, rows, width) as it is added to a batch."""
    shape = tensor.shape
    return tensor.dtype.kind not in "iub" and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))


def is_row(tensor: Tensor) -> bool:
    """Whether a tensor may be a table of one row, stored as a vector: what is laid before a sequence."""
    return tensor.dtype.kind not in "iub" and len(tensor.shape) == 1 and tensor.size > 1


def is_scale(tensor: Tensor) -> bool:
    """Whether a tensor may hold a factor for each channel: one axis, ones around it as maps or sequences need them."""
    return tensor.dtype.kind not in "iub" and next(_ones(tensor.shape), None) is not None


def called_table(*names: str) -> bool:
    """Whether one of the names is that of a table of positions or tokens."""
    return any(WORDS.search(name) for name in names)


def called_row(*names: str) -> bool:
    """Whether a vector is called as a table is, and not as what is added to channels."""
    return called_table(*names) and not any(OTHERS.search(_end(name)) for name in names)


def called_scale(*names: str) -> bool:
    """Whether one of the names is that of a layer scale, and none that of a norm or of a summand."""
    return any(FACTORS.search(_end(name)) for name in names) and not any(OTHERS.search(_end(name)) for name in names)


def may_be_scale(name: str) -> bool:
    """Whether a name is that of a layer scale, or says nothing against it."""
    return called_scale(name) or not (called_table(name) or OTHERS.search(_end(name)))


def ones_around(shape: tuple[int, ...]) -> dict[str, Any]:
    """What stands around the channels, as the forms of a layer scale spell it; `shape` is one that `is_scale` takes.

    `leading`: a one for the batch. `rank`: how many for the places of a map. `last`: before the channels, not behind.
    """
    return next(_ones(shape))


def _ones(shape: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Each way to read the shape; of ones alone there are several."""
    for at, size in enumerate(shape):
        behind = len(shape) - 1 - at
        fits = at <= 1 + MOST_AXES if not behind else at <= 1 and behind <= MOST_AXES
        if size and fits and all(n == 1 for n in shape[:at] + shape[at + 1 :]):
            yield {"leading": at > 0, "last": not behind and at > 1, "rank": behind or max(at - 1, 0)}


def _end(name: str) -> str:
    """The last two parts of a path: what a tensor is called, and what holds it."""
    return ".".join(_PART.split(name)[-2:])


def _kind(name: str, tensor: Tensor, keyed: Keyed) -> str:
    """What a bare tensor may be: "" for nothing that there is a form for."""
    if is_scale(tensor) and called_scale(name):
        return "" if _shifted(name, keyed) else SCALE
    if is_table(tensor) or (is_row(tensor) and called_row(name)):
        return TABLE
    return SCALE if is_scale(tensor) and may_be_scale(name) else ""


def _shifted(name: str, keyed: Keyed) -> bool:
    """Whether a summand stands beside a factor: the two of a norm."""
    path, dot, last = name.rpartition(".")
    return "gamma" in last and f"{path}{dot}{last.replace('gamma', 'beta')}" in keyed.tensors


def _of_a_layer(name: str, keyed: Keyed) -> bool:
    module = keyed.modules.get(name.rpartition(".")[0])
    return module is not None and bool(module.form)


def _spread(record: LayerRecord, kind: str) -> bool:
    """Whether a weight beside a layer's own layers is made to be spread over a batch, (1, rows, width), however called.

    Nothing but a table is stored so; torch's are told by their shape too.
    """
    ((short, tensor),) = record.tensors.items()
    plain = record.class_name == VARIABLE and len(tensor.shape) == 3 and is_table(tensor)
    return plain and kind == TABLE and not OTHERS.search(short) and not called_scale(record.name, short)


def alone(record: LayerRecord, framework: str, said: str = "") -> LayerRecord:
    """The record of one bare parameter as a table or as factors: where it is called so, or where the user says so.

    Args:
        said: the form that the user gave; "" where names have to tell.
    """
    forms = {SCALES.get(framework, ""): SCALE, TABLES.get(framework, ""): TABLE}
    if len(record.tensors) != 1 or framework not in TABLES or said not in ("", *forms):
        return record
    ((short, tensor),) = record.tensors.items()
    names = (record.form, record.name, record.class_name, short)
    for form, kind in forms.items():
        fits, called = (is_scale, called_scale) if kind == SCALE else (is_table, called_table)
        if kind == TABLE and is_row(tensor):
            fits, called = is_row, called_row
        wanted = said == form if said else (called(*names) or _spread(record, kind)) and record.form in ("", form)
        if not wanted or not fits(tensor):
            continue
        shape = tensor.shape
        config = ones_around(shape) if kind == SCALE else {"leading": len(shape) == 3, "row": len(shape) == 1}
        note = "the form was given by --form" if said else SAYS[kind]
        tensors = {SLOTS.get(form, PATH): tensor}
        class_name = record.class_name or form.partition(".")[2]
        return replace(record, class_name=class_name, form=form, config=config, tensors=tensors, note=note)
    return record
