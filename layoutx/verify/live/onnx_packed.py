"""The nodes of an attention with packed projections, as torch's exporter lays its weights out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.verify.live.arrays import Arrays

Node = tuple[str, list[str], list[str], dict[str, Any]]
PACKED = {
    "qkv": ("in_proj",) * 3,
    "kv": ("q_proj", "kv_proj", "kv_proj"),
    "none": ("q_proj", "k_proj", "v_proj"),
}
TURN = {"perm": [1, 0, 2]}


def packed_nodes(config: Mapping[str, Any], weights: Arrays) -> list[Node]:
    """From query, key and value to y: each projection multiplied whole and cut, so that its order shows.

    Args:
        config: num_heads, packed (qkv, kv or none), in_transB, out_transB, batch_first, with the defaults of the form.
    """
    slots = PACKED[config.get("packed", "qkv")]
    first = bool(config.get("batch_first", False))
    nodes: list[Node] = []
    for number, (role, slot) in enumerate(zip(("query", "key", "value"), slots, strict=True)):
        nodes += [] if first else [("Transpose", [role], [f"{role}_turned"], TURN)]
        kernel = ""
        if config.get("in_transB", 0):
            kernel = f"{role}_kernel"
            nodes.append(("Transpose", [f"{slot}.B"], [kernel], {"perm": [1, 0]}))
        nodes += _product(role if first else f"{role}_turned", slot, f"{role}_all", weights, kernel)
        own = [i for i, other in enumerate(slots) if other == slot]
        parts = [role if i == number else f"{role}_{i}" for i in own]
        cut = {"axis": -1, "num_outputs": len(own)}
        nodes.append(("Split", [f"{role}_all"], [f"{part}_heads" for part in parts], cut))
    heads = {"q_num_heads": config["num_heads"], "kv_num_heads": config["num_heads"]}
    nodes.append(("Attention", ["query_heads", "key_heads", "value_heads"], ["mixed"], heads))
    if config.get("out_transB", 1):
        nodes.append(("Transpose", ["out_proj.B"], ["out_turned"], {"perm": [1, 0]}))
    kernel = "out_turned" if config.get("out_transB", 1) else "out_proj.B"
    nodes += _product("mixed", "out_proj", "y" if first else "y_turned", weights, kernel)
    return nodes if first else [*nodes, ("Transpose", ["y_turned"], ["y"], TURN)]


def _product(source: str, slot: str, target: str, weights: Arrays, kernel: str = "") -> Sequence[Node]:
    bias = f"{slot}.bias"
    product = f"{target}_product" if bias in weights else target
    found: list[Node] = [("MatMul", [source, kernel or f"{slot}.B"], [product], {})]
    return [*found, ("Add", [product, bias], [target], {})] if bias in weights else found
