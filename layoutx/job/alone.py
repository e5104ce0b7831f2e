"""Which layer alone reads which, by a model's own wiring, with nothing between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.model.ways import linked


@frozen
class Wiring:
    """Stored tensor -> its layer, and layer -> the one that it alone reads, just as it comes."""

    owner: Mapping[str, str]
    alone: Mapping[str, str]

    def layers(self, tensors: Iterable[str]) -> set[str]:
        """What the wiring calls the layers of these stored tensors."""
        return {self.owner[name] for name in tensors if name in self.owner}


def wiring_of(model: Keyed | ModelRecord) -> Wiring | None:
    """Who alone reads whom; None where a model does not tell who feeds whom."""
    if isinstance(model, Keyed):
        if model.wires is None or model.axes is None or not linked(model.wires()):
            return None
        records = list(model.axes().values())
        owner = {tensor.name: full.rpartition(".")[0] for full, tensor in model.tensors.items()}
    else:
        records = list(model.layers)
        owner = {tensor.name: record.name for record in records for tensor in record.tensors.values()}
        if not any(record.inputs for record in records):
            return None
    return Wiring(owner, {record.name: record.alone for record in records if record.alone})


def wiring_of_either(source: Keyed | ModelRecord, target: Keyed | ModelRecord) -> tuple[int, Wiring] | None:
    """0 and the source's wiring; 1 and the target's, where the source is names and numbers; None where both are."""
    both = enumerate(wiring_of(model) for model in (source, target))
    return next(((at, wires) for at, wires in both if wires is not None), None)
