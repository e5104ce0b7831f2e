"""A ReversibleEmbedding with tie_weights=False holds two tables: the second one is a Dense without bias."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from layoutx.model.record import LayerRecord

FORM, SECOND = "keras.ReversibleEmbedding", "reverse_embeddings"


def untied(records: Iterable[LayerRecord]) -> list[LayerRecord]:
    """The records with such a layer as two: `NAME`, a table of its own, and at the end `NAME/reverse`, what follows it.

    Which call reads which table is not followed: the second one's wiring is unknown.
    """
    found, more = list[LayerRecord](), list[LayerRecord]()
    for record in records:
        other = [slot for slot in record.tensors if slot.rpartition("/")[2] == SECOND]
        if record.form != FORM or record.config.get("tie_weights", True) or len(other) != 1 or len(record.tensors) != 2:
            found.append(record)
            continue
        second = record.tensors[other[0]]
        first = next(tensor for slot, tensor in record.tensors.items() if slot not in other)
        found.append(replace(record, config={**record.config, "tie_weights": True}, tensors={"embeddings": first}))
        version = record.config.get("version", 3)
        config = {"units": second.shape[-1], "use_bias": False, "activation": "linear", "version": version}
        note = f"{SECOND} of {record.name}, which reverse=True multiplies by"
        more.append(
            LayerRecord(f"{record.name}/reverse", "Dense", "keras.Dense", config, {"kernel": second}, note=note)
        )
    return [*found, *more]
