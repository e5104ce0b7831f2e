"""Parameters that no layer holds (self.pos = nn.Parameter(...)): which they are, and when they are a table of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from layoutx.files.store import Tensor
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord
from layoutx.spec.registry import Registry

PATH = ""  # how a form calls a tensor whose name is the path itself
FORMS: Mapping[str, str] = {
    "torch": "torch.Parameter",
    "flax": "flax.Param",
    "nnx": "nnx.Param",
    "keras": "keras.PositionEmbedding",
}
# words by which people call tables that are added to what goes through: ViT, BERT, perceivers
WORDS = re.compile(r"pos(?![a-z])|posit|pos_?(emb|enc)|embed|token|query|queries|latent", re.IGNORECASE)
SAYS = "a parameter of its own, called as a table of rows is"


def bare_names(keyed: Keyed, registry: Registry) -> list[str]:
    """The names of tensors that are no part of any layer that layoutx knows, whose shape is that of a table.

    A name that some form of the framework uses (`weight`) is no bare one, and neither is a tensor of a live module
    whose class has a form.
    """
    if keyed.framework not in FORMS:
        return []
    used = registry.last_names().get(keyed.framework, frozenset())
    return [
        name
        for name, tensor in keyed.tensors.items()
        if name.rpartition(".")[2] not in used and is_table(tensor) and not _of_a_layer(name, keyed)
    ]


def is_table(tensor: Tensor) -> bool:
    """Whether a tensor may be a table: (rows, width), or (1, rows, width) as it is added to a batch."""
    shape = tensor.shape
    return tensor.dtype.kind not in "iub" and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))


def called_table(*names: str) -> bool:
    """Whether one of the names is that of a table of positions or tokens."""
    return any(WORDS.search(name) for name in names)


def _of_a_layer(name: str, keyed: Keyed) -> bool:
    module = keyed.modules.get(name.rpartition(".")[0])
    return module is not None and bool(module.form)


def tabled(record: LayerRecord, framework: str, said: str = "") -> LayerRecord:
    """The record of one bare parameter as a table: where it is called as one, or where the user says so.

    Args:
        said: the form that the user gave; "" where names have to tell.
    """
    form = FORMS.get(framework, "")
    if not form or said not in ("", form) or len(record.tensors) != 1 or (record.form not in ("", form) and not said):
        return record
    ((short, tensor),) = record.tensors.items()
    names = (record.form, record.name, record.class_name, short)
    if not is_table(tensor) or not (said or called_table(*names)):
        return record
    slot = "embeddings" if framework == "keras" else PATH
    config = {"leading": len(tensor.shape) == 3}
    note = SAYS if not said else "the form was given by --form"
    class_name = record.class_name or form.partition(".")[2]
    return replace(record, class_name=class_name, form=form, config=config, tensors={slot: tensor}, note=note)
