"""Random inputs for an ONNX graph of which nobody gave any, of the shapes that it declares."""

from __future__ import annotations

import numpy as np

from layoutx.files.onnx_file import dtype_of, structure
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array

SEED = 20261123
BATCH = 3  # where the first axis is open


def onnx_inputs(model: ModelRecord) -> dict[str, Array]:
    """Each input by its name, ids all zero; {} where the length of another axis than the first is left open."""
    graph = structure(model.store.path).graph
    stored = {proto.name for proto in graph.initializer}
    rng = np.random.default_rng(SEED)
    found: dict[str, Array] = {}
    for info in graph.input:
        kind = info.type.tensor_type
        dtype = dtype_of(kind.elem_type)
        if info.name in stored:
            continue
        sizes = [dim.dim_value or (0 if at else BATCH) for at, dim in enumerate(kind.shape.dim)]
        if dtype is None or not all(sizes):
            return {}
        whole = dtype.kind in "iub"
        found[info.name] = np.zeros(sizes, dtype) if whole else rng.normal(size=sizes).astype(dtype)
    return found
