"""A live torch module as a program: traced symbolically, modules of torch left whole; nothing is computed."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from layoutx.model.alone import alone
from layoutx.model.torch_program import Op, Program, base, value_of

# attributes of torch's own modules without weights, as their functions call them
SAID = (
    *("start_dim", "end_dim", "dim", "unflattened_size", "output_size", "kernel_size", "stride", "batch_first"),
    *("normalized_shape", "num_layers", "bidirectional", "upscale_factor", "downscale_factor"),
)

WHOLE = ("MultiheadAttention",)  # a layer in itself, though its output projection is a module


@alone()
def traced(module: Any) -> Program | None:
    """What a module computes; None where it cannot be traced (its forward asks for values of a tensor).

    torch.fx runs `forward` on proxies (torch 2.13 torch/fx/_symbolic_trace.py Tracer.trace): sizes are not known.
    """
    try:
        nodes = list(_tracer().trace(module).nodes)
    except Exception:  # any code of the user's may run here
        return None
    modules = dict(module.named_modules())
    weights = {node.name: node.target for node in nodes if node.op == "get_attr"}
    inputs = tuple(node.name for node in nodes if node.op == "placeholder")
    ops = [_op(node, modules) for node in nodes if node.op.startswith("call_")]
    given = tuple(one.name for node in nodes if node.op == "output" for one in node.all_input_nodes)
    return Program(tuple(ops), weights, inputs, outputs=given)


def _tracer() -> Any:
    """A tracer that lets through what other threads run: torch.fx puts itself before the modules of all of them."""
    import torch.fx

    own = get_ident()

    class Tracer(torch.fx.Tracer):  # type: ignore[misc]  # torch is not typed here
        def call_module(self, m: Any, forward: Any, args: Any, kwargs: Any) -> Any:
            return super().call_module(m, forward, args, kwargs) if get_ident() == own else forward(*args, **kwargs)

        def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
            return super().getattr(attr, attr_val, parameter_proxy_cache) if get_ident() == own else attr_val

    return Tracer()


def unopened(program: Program, module: Any) -> bool:
    """Whether a traced program has one operation for a module of torch's own that holds layers."""
    modules = dict(module.named_modules())
    return any(holds(modules[op.stack[0][0]]) for op in program.ops if op.whole and op.stack)


def holds(module: Any) -> bool:
    """Whether a module is made of layers that stand for themselves, as a TransformerEncoder is."""
    layer = type(module).__name__ in WHOLE
    return not layer and any(True for one in module.children() for _ in one.parameters())


def _op(node: Any, modules: dict[str, Any]) -> Op:
    args = tuple(map(value_of, node.args))
    kwargs = {key: value_of(one) for key, one in node.kwargs.items()}
    if node.op != "call_module":
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return Op(base(name), args, kwargs, (node.name,))
    child = modules[node.target]
    kind = type(child)
    said = {key: getattr(child, key) for key in SAID if hasattr(child, key)}
    stack = ((str(node.target), f"{kind.__module__}.{kind.__qualname__}"),)
    return Op(base(kind.__name__), args, {**kwargs, **said}, (node.name,), stack, whole=True)
