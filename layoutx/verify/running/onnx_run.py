"""A live ONNX model: run in float64 where onnx' reference evaluator can, every node's data recorded under its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, ModelError
from layoutx.files.blob import reading
from layoutx.files.onnx_file import STRING, dtype_of, label, need_onnx, opset_of, tensors_in
from layoutx.files.open import open_store
from layoutx.files.store import Store, Tensor
from layoutx.frozen import frozen
from layoutx.model.onnx_forms import RECURRENT
from layoutx.model.onnx_model import opened
from layoutx.model.onnx_parts import Parts, parts_of
from layoutx.model.onnx_shapes import shapes_of
from layoutx.plan.plan import Array
from layoutx.verify.made import sized
from layoutx.verify.outputs import RELATIVE
from layoutx.verify.recording import Call, Recording
from layoutx.verify.running.given import Inputs, cannot_run, layer_fails, listed, no_layer, resolved, said
from layoutx.verify.running.onnx_graph import (
    alone,
    by_runtime,
    cast_feeds,
    data_inputs,
    doubled,
    evaluated,
    lacking,
)

STATES = ("", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")  # input slots of RNN, GRU and LSTM


@frozen
class Step:
    """A layer's nodes: one, or a product, the Add of its bias and what stands between them."""

    layer: str
    class_name: str
    nodes: tuple[Any, ...]


@dataclass
class OnnxRunner:
    """Runs an ONNX graph at inference; the given ModelProto stays as it is."""

    model: Any
    framework: str = "onnx"
    store: Store | None = None
    proven: dict[str, str] = field(default_factory=dict)

    def layers(self) -> Mapping[str, str]:
        """Layer name as its record has it, else the node's label -> operator."""
        return {step.layer: step.class_name for step in self._steps}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """Random inputs of the graph's own shapes; () where one has no rank. Integers below the vocabulary."""
        rng = np.random.default_rng(20261121)
        lookups = [r for r in self._parts.records.values() if r.form == "onnx.Gather"]
        rows = [next(iter(record.tensors.values())).shape[0] for record in lookups]
        found = []
        for info in self._given():
            kind = info.type.tensor_type
            if not kind.HasField("shape"):
                return ()
            dims = [d.dim_value or None for d in kind.shape.dim]
            sizes = [*(n or 3 for n in dims[:1]), *sized(dims[1:], long)]
            dtype = dtype_of(kind.elem_type) or np.dtype("float32")
            if dtype.kind in "iub":
                found.append(rng.integers(0, min(rows, default=2), sizes).astype(dtype))
            else:
                found.append(rng.normal(size=sizes).astype(dtype))
        return tuple(found)

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run, in float64 where onnx' reference evaluator gives what onnxruntime gives (`note` says why not).

        Raises:
            UsageError: the model does not run on these inputs.
        """
        onnx = need_onnx()
        given = listed(inputs, tuple(info.name for info in self._given()))
        feeds = dict(zip((info.name for info in self._given()), given, strict=False))
        values, note = self._values(feeds, double)
        values = {**{k: np.asarray(v) for k, v in feeds.items()}, **values}
        calls, counts = [], dict[str, int]()
        constant = self._parts.consts
        for step in self._steps:
            taken = [(name, values.get(name)) for name in data_inputs(step.nodes, constant)]
            gave = [values.get(name) for name in step.nodes[-1].output if name]
            if any(v is None for _, v in taken) or any(v is None for v in gave):
                continue  # a sequence or an optional value
            number = counts.get(step.layer, 0)
            counts[step.layer] = number + 1
            names = tuple(_keyword(step.nodes[0], name) for name, _ in taken)
            inward = tuple(np.asarray(v) for _, v in taken)
            outward = tuple(np.asarray(v) for v in gave)
            calls.append(Call(step.layer, step.class_name, inward, outward, names, number))
        outputs = tuple(values[o.name] for o in self._graph.output if o.name in values)
        dtype = next((a.dtype.name for a in outputs if a.dtype.kind == "f"), "float32")
        version = f"{onnx.__version__}, opset {opset_of(self.model)}"
        return Recording("onnx", version, dtype, given, outputs, tuple(calls), {}, note)

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What one layer's nodes give alone, in float64 where the reference evaluator computes them.

        Raises:
            UsageError: there is no layer of this name. ModelError: it does not run on these inputs.
        """
        name = resolved(name, self.layers())
        steps = [step for step in self._steps if step.layer == name]
        if not steps:
            raise no_layer(name, self.layers())
        fits = [s for s in steps if len(self._data(s)) == len(inputs)]
        step = (fits or steps)[0]
        try:
            return self._alone(step, dict(zip(self._data(step), inputs, strict=True)))
        except Exception as error:
            raise layer_fails(name, error) from error

    def repeat(self, inputs: Inputs) -> None:
        """An exported graph has no modes."""

    def _data(self, step: Step) -> list[str]:
        return data_inputs(step.nodes, self._parts.consts)

    def _alone(self, step: Step, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        names = [name for name in step.nodes[-1].output if name]
        own = alone(self._opened, step.nodes, list(feeds), self._parts.consts)
        if lacking(own.graph) or self.proven.get("dtype") == "float32":
            floats = {k: np.asarray(v, np.float32 if v.dtype.kind == "f" else v.dtype) for k, v in feeds.items()}
            for info in own.graph.input:
                info.type.tensor_type.elem_type = need_onnx().helper.np_dtype_to_tensor_dtype(floats[info.name].dtype)
            values = by_runtime(own, floats)
        else:
            wide = {k: np.asarray(v, np.float64 if v.dtype.kind == "f" else v.dtype) for k, v in feeds.items()}
            values = evaluated(doubled(own), wide)
        return tuple(np.asarray(values[name]) for name in names)

    def _values(self, feeds: Mapping[str, Array], double: bool) -> tuple[dict[str, Array], str]:
        """Every value of one run, and why it is not float64."""
        why = lacking(self._graph) if double else ""
        exact: dict[str, Array] = {}
        plain: dict[str, Array] = {}
        problem: Exception | None = None
        if double and not why:
            try:
                wide = doubled(self._opened)
                exact = evaluated(wide, cast_feeds(wide, feeds))
            except Exception as error:
                why = f"onnx' reference evaluator: {said(error, 120)}"
                problem = error
        try:
            plain = by_runtime(self._opened, cast_feeds(self._opened, feeds))
        except Exception as error:  # not installed, or an operator that it lacks
            if not exact:
                raise error if isinstance(error, LayoutxError) else cannot_run(problem or error) from error
        if exact and plain and not _agree(exact, plain, [o.name for o in self._graph.output]):
            exact, why = {}, "onnx' reference evaluator gives something else than onnxruntime"
        self.proven["dtype"] = "float64" if exact else "float32"
        return (exact, "") if exact else (plain, f"not in float64: {why}" if why else "")

    def _given(self) -> list[Any]:
        own = {proto.name for proto in self._graph.initializer}
        return [info for info in self._graph.input if info.name not in own]

    @property
    def _graph(self) -> Any:
        return self._opened.graph

    @cached_property
    def _opened(self) -> Any:
        return opened(self.model)

    @cached_property
    def _parts(self) -> Parts:
        store = self.store if self.store is not None else _store(self._opened)
        return parts_of(self._graph, store, shapes_of(self._opened), opset_of(self._opened))

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        """The layers in node order; nodes without weights under their own labels."""
        parts, graph = self._parts, self._graph
        adds = {name: graph.node[i] for i, name in parts.fused.items()}
        found = []
        spans = {span[-1]: (name, span) for name, own in parts.spans.items() for span in own}
        inside = {i for _, span in spans.values() for i in span}
        for i, node in enumerate(graph.node):
            if i in spans:  # a layer of many nodes, which gives what its last one gives
                name, span = spans[i]
                found.append(Step(name, parts.records[name].class_name, tuple(graph.node[k] for k in span)))
            if i in inside or i in parts.fused or (node.output and node.output[0] in parts.consts):
                continue
            name = parts.owner.get(i, "")
            record = parts.records.get(name)
            if record is None:
                name = label(node, i)
                name = f"{name}/{node.op_type}" if name in parts.records else name
            nodes = [node]
            while nodes[-1].output[0] in adds:  # to the Add of its bias
                nodes.append(adds[nodes[-1].output[0]])
            found.append(Step(name, record.class_name if record is not None else node.op_type, tuple(nodes)))
        return tuple(found)


def onnx_file(path: Path) -> OnnxRunner:
    """The model of an ONNX file, with the data beside it.

    Raises:
        UsageError: the onnx package is missing. FileError: the file is damaged. ModelError: onnx does not load it.
    """
    onnx = need_onnx()
    store = open_store(path)
    try:
        with reading(path, "an ONNX model"):
            return OnnxRunner(onnx.load(str(path)), store=store)
    except LayoutxError:
        raise
    except Exception as error:
        raise ModelError(f"onnx does not load {path.name}", where=str(path), why=said(error)) from error


def _store(model: Any) -> Store:
    """The tensors of a live ModelProto, named as those of a file."""
    tensors = {}
    for name, proto in tensors_in(model.graph):
        dtype = dtype_of(proto.data_type) if proto.data_type != STRING else None
        if dtype is not None:
            shape = tuple(int(n) for n in proto.dims)
            tensors[name] = Tensor(name, dtype, shape, partial(_read, proto))
    return Store(Path("<onnx model>"), "onnx", tensors, version=f"opset {opset_of(model)}")


def _read(proto: Any) -> Array:
    return np.asarray(need_onnx().numpy_helper.to_array(proto))


def _keyword(node: Any, name: str) -> str:
    """The slot of a recurrent node's states; "" for all other data."""
    at = list(node.input).index(name) if name in node.input else 0
    return STATES[at] if node.op_type in RECURRENT else ""


def _agree(exact: Mapping[str, Array], plain: Mapping[str, Array], names: Sequence[str]) -> bool:
    for name in names:
        if name in exact and name in plain:
            left, right = (np.asarray(side[name]) for side in (exact, plain))
            if left.shape != right.shape:
                return False
            scale = float(np.abs(right.astype(np.float64)).max(initial=1e-6))
            bound = 10 * RELATIVE.get(right.dtype.name, RELATIVE["float32"]) * scale
            if right.dtype.kind == "f" and not np.allclose(left, right, rtol=0, atol=bound, equal_nan=True):
                return False
    return True
