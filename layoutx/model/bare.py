"""Parameters that no layer holds (self.pos = nn.Parameter(...)): which they are, and what they may be.

A table of rows, as positions and tokens are, one factor for each channel, or any other number or vector. Shapes say
what is possible, names what is likely: a form that stands for its own path has no other name that could speak for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from layoutx.files.store import Tensor
from layoutx.model.graph import VARIABLE
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord
from layoutx.spec.registry import Registry

PATH = ""  # how a form calls a tensor whose name is the path itself
SAID = "the form was given by --form"
NUMBER = "a parameter of its own, moved as it is: what is made of it the model's own code says"
FACTOR = "a parameter of its own, called as the factors of channels are"
ROWS = "a parameter of its own, called as a table of rows is"
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
NUMBERS: Mapping[str, str] = {
    "torch": "torch.Number",
    "flax": "flax.Number",
    "nnx": "nnx.Number",
    "keras": "keras.Number",
}
MATRICES: Mapping[str, str] = {
    "torch": "torch.Matrices",
    "flax": "flax.Matrices",
    "nnx": "nnx.Matrices",
    "keras": "keras.Matrices",
}
ONE: Mapping[str, str] = {"torch": "torch.Matrix", "flax": "flax.Matrix", "nnx": "nnx.Matrix"}
SLOTS = {
    "keras.PositionEmbedding": "embeddings",
    "keras.LayerScale": "gamma",
    "keras.Number": "number",
    "keras.Matrices": "matrix",
}
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
# the vectors of a norm under whatever names, which move with it or not at all
NORMS = re.compile(r"norm|(?<![a-z])(?:bn|ln|gn|rms|mean|var|std)_?\d*(?![a-z])", re.IGNORECASE)
_PART = re.compile(r"[./]")
MOST_AXES = 3  # of the places of a map
MOST_ONES = 4  # around a number
MOST_DIMS = 4  # of matrices side by side


def bare_names(keyed: Keyed, registry: Registry) -> Mapping[str, tuple[str, ...]]:
    """The names of tensors that are no part of any layer that layoutx knows -> the forms that their shape allows.

    A name that some form of the framework uses (`weight`) is no bare one but for a plain number, and neither is a
    tensor of a live module whose class has a form. Factors are called so.
    """
    if keyed.framework not in TABLES:
        return {}
    used = registry.last_names().get(keyed.framework, frozenset())
    return {
        name: forms
        for name, tensor in keyed.tensors.items()
        if not _of_a_layer(name, keyed) and (forms := _forms(name, tensor, keyed, used))
    }


def stands_alone(name: str, forms: tuple[str, ...]) -> bool:
    """Whether a tensor is a layer of its own, from its name and the forms that it may have: a matrix has to be told."""
    return called_table(name) or not set(forms) <= {*TABLES.values(), *MATRICES.values(), *ONE.values()}


def is_number(tensor: Tensor) -> bool:
    """Whether a tensor holds one number, whatever it is spread over."""
    return tensor.dtype.kind not in "iub" and tensor.size == 1 and len(tensor.shape) <= MOST_ONES


def is_table(tensor: Tensor) -> bool:
    """Whether a tensor may be a table: (rows, width), or (1, rows, width) as it is added to a batch."""
    shape = tensor.shape
    return tensor.dtype.kind not in "iub" and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))


def are_matrices(tensor: Tensor) -> bool:
    """Whether a tensor may hold matrices that something is multiplied with: one, or several side by side."""
    return tensor.dtype.kind not in "iub" and 2 <= len(tensor.shape) <= MOST_DIMS and tensor.size > 1


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


def may_be_number(*names: str) -> bool:
    """Whether nothing says that a vector is a table's row or part of a norm."""
    return not called_table(*names) and not any(NORMS.search(_end(name)) for name in names)


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


def _forms(name: str, tensor: Tensor, keyed: Keyed, used: Collection[str]) -> tuple[str, ...]:
    """What a bare tensor may be: () for nothing that there is a form for.

    Matrices, and vectors beside them, may be called as layers call theirs where a class of the user's own holds them.
    """
    own, holder = keyed.framework, name.rpartition(".")[0]
    plain = not tensor.shape or name.rpartition(".")[2] not in used or _lone_bias(name, keyed, used)
    many = are_matrices(tensor) and not (called_table(name) and is_table(tensor))
    if not plain and holder not in keyed.modules:
        return ()
    if not plain and not many:
        others = (keyed.tensors.get(f"{holder}.{other}") for other in used) if is_scale(tensor) else ()
        return (NUMBERS.get(own, ""),) * (own in NUMBERS and any(one and are_matrices(one) for one in others))
    one = many and len(tensor.shape) == 2
    return (
        *(_few(name, tensor, keyed) if plain else ()),
        *(MATRICES.get(own, ""),) * (many and own in MATRICES),
        *(ONE.get(own, ""),) * (one and own in ONE),
    )


def _few(name: str, tensor: Tensor, keyed: Keyed) -> tuple[str, ...]:
    """The same, of a number, a vector or a table."""
    own = keyed.framework
    if is_number(tensor):
        return (NUMBERS[own],) if own in NUMBERS else ()
    if is_scale(tensor) and called_scale(name) and not _shifted(name, keyed):
        return (SCALES[own],) if own in SCALES else ()
    rows = is_table(tensor) or (is_row(tensor) and called_row(name))
    loose = is_scale(tensor) and own in NUMBERS and may_be_number(name)
    together = len(tensor.shape) == 1 and _shifted(name, keyed)  # a norm of the user's own
    return (TABLES[own],) * rows + (NUMBERS.get(own, ""),) * (loose and not together)


def _shifted(name: str, keyed: Keyed) -> bool:
    """Whether a summand stands beside a factor: the two of a norm."""
    path, dot, last = name.rpartition(".")
    other = last.replace("gamma", "beta") if "gamma" in last else last.replace("beta", "gamma")
    return other != last and f"{path}{dot}{other}" in keyed.tensors


def _lone_bias(name: str, keyed: Keyed, used: Collection[str]) -> bool:
    """Whether a bias stands beside no weights of its own: no layer is made of that alone."""
    path, dot, last = name.rpartition(".")
    if last != "bias":
        return False
    return not any(f"{path}{dot}{other}" in keyed.tensors for other in used if other != last)


def _of_a_layer(name: str, keyed: Keyed) -> bool:
    module = keyed.modules.get(name.rpartition(".")[0])
    return module is not None and bool(module.form)


def _spread(record: LayerRecord) -> bool:
    """Whether a weight beside a layer's own layers is made to be spread over a batch, (1, rows, width), however called.

    Nothing but a table is stored so; torch's are told by their shape too.
    """
    ((short, tensor),) = record.tensors.items()
    plain = record.class_name == VARIABLE and len(tensor.shape) == 3 and is_table(tensor)
    return plain and not OTHERS.search(short) and not called_scale(record.name, short)


def alone(record: LayerRecord, framework: str, said: str = "", own: bool = True) -> LayerRecord:
    """The record of one bare parameter as what it is: a number, or where it is called so, or where the user says so.

    Args:
        said: the form that the user gave; "" where names have to tell.
        own: the class is none of the framework's, so that a vector in it is no part of anything else.
    """
    if len(record.tensors) != 1 or framework not in TABLES:
        return record
    ((short, tensor),) = record.tensors.items()
    names = (record.form, record.name, record.class_name, short)
    row = is_row(tensor)
    number, loose = is_number(tensor), is_scale(tensor) and framework == "keras" and may_be_number(*names)
    called = called_row(*names) if row else called_table(*names)
    ways = (  # form, whether the shape fits, whether something speaks for it, and what
        (NUMBERS.get(framework, ""), number, own and not record.form, NUMBER),
        (SCALES.get(framework, ""), is_scale(tensor), called_scale(*names), FACTOR),
        (TABLES[framework], (row and called) or is_table(tensor), called or _spread(record), ROWS),
        (NUMBERS.get(framework, ""), is_scale(tensor), own and loose and not record.form, NUMBER),
        (MATRICES.get(framework, ""), are_matrices(tensor), False, NUMBER),
    )
    for form, fits, speaks, why in ways:
        wanted = said == form if said else speaks and record.form in ("", form)
        if form and wanted and fits:
            note = SAID if said else why
            class_name = record.class_name or form.partition(".")[2]
            tensors = {SLOTS.get(form, PATH): tensor}
            config = _shape(form, tensor)
            return replace(record, class_name=class_name, form=form, config=config, tensors=tensors, note=note)
    return record


def _shape(form: str, tensor: Tensor) -> dict[str, Any]:
    """What the form's config says of a tensor's dimensions of length one."""
    shape = tensor.shape
    if form in TABLES.values():
        return {"leading": len(shape) == 3, "row": len(shape) == 1}
    if form in MATRICES.values():
        return {"rank": len(shape)}
    if form in NUMBERS.values() and tensor.size == 1:
        return {"scalar": True, "rank": len(shape)}
    return ones_around(shape)
