"""What only an ONNX model brings into a job: recurrent layers written out, and values that become tensors."""

from __future__ import annotations

from dataclasses import replace

from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.files.onnx_file import structure, tensors_in
from layoutx.job.jobs import Job
from layoutx.model.keyed import Keyed
from layoutx.model.onnx_parts import ALSO_READ
from layoutx.model.onnx_unrolled import LOOKS
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry

RECURRENT = ("lstm", "gru", "simple_rnn")


def check_unrolled(source: Keyed | ModelRecord, target: Keyed | ModelRecord, registry: Registry) -> None:
    """Refuse a recurrent layer on one side that the ONNX model on the other holds as single products.

    Raises:
        ConversionError: the steps of each such layer, by name.
    """
    for onnx, other in ((source, target), (target, source)):
        if not isinstance(onnx, ModelRecord) or onnx.framework != "onnx" or other.framework == "onnx":
            continue
        groups: dict[str, list[LayerRecord]] = {}
        for record in onnx.layers:
            if LOOKS in record.note:
                groups.setdefault(record.note[record.note.index(LOOKS) :].partition(";")[0], []).append(record)
        if not groups or not _recurrent(other, registry):
            continue
        raise_all(
            [
                ConversionError(
                    text.replace(LOOKS, "these products look like an unrolled"),
                    where=", ".join(record.place for record in group),
                    why="the exporter wrote the recurrent layer out step by step; the other model has it as one layer",
                    do="export it as one LSTM, GRU or RNN node (no unroll=True, no loop over a cell)",
                )
                for text, group in groups.items()
            ],
            "recurrent layers are unrolled",
        )


def _recurrent(model: Keyed | ModelRecord, registry: Registry) -> bool:
    if isinstance(model, ModelRecord):
        forms = {record.form for record in model.layers}
    else:
        forms = {module.form for module in model.modules.values()}
        if any(name.rpartition(".")[2].startswith(("weight_hh", "recurrent_kernel")) for name in model.tensors):
            return True
    return any(registry.kind_of(form).name in RECURRENT for form in forms if form)


def owned(job: Job, target: Keyed | ModelRecord) -> Job:
    """The job with a word on each value of an ONNX target that becomes a tensor of its own, and with all its copies.

    Raises:
        ConversionError: a node that is no layer reads the same value; one value holds a layer's numbers several times.
    """
    if not isinstance(target, ModelRecord) or target.framework != "onnx":
        return job
    stored = {name for name, _ in tensors_in(structure(target.store.path).graph)}
    notes = {t.name: r.note for r in target.layers for t in r.tensors.values()}
    sizes = {t.name: t.size for r in target.layers for t in r.tensors.values() if r.form}
    many = {n: target.store.tensors[n].size // size for n, size in sizes.items() if n in stored and size}
    many = {name: copies for name, copies in many.items() if copies > 1}
    problems: list[LayoutxError] = []
    layers = []
    for layer in job.layers:
        for name in layer.targets.values():
            said = next((n for n in notes.get(name, "").split("; ") if n.startswith(f"{name} {ALSO_READ}")), "")
            if said:
                what, do = f"{said}, which would change too", "leave the layer out (--skip), or export the model anew"
                problems.append(ConversionError(what, where=layer.record.place, do=do))
        for name in layer.targets.values():
            copies = many.get(name, 0)
            if copies:
                what = f"{name} holds the same numbers {copies} times, once for each of a batch"
                why = "the exporter spread them when it ran: the graph takes this batch size alone"
                do = "export the graph for any batch size (dynamic_shapes, dynamic_axes)"
                problems.append(ConversionError(what, where=layer.record.place, why=why, do=do))
        fresh = [name for name in layer.targets.values() if name not in stored]
        said = f"{', '.join(fresh)}: stored in place of what the graph computes or shares" if fresh else ""
        note = "; ".join(filter(None, [layer.record.note, said]))
        layers.append(replace(layer, record=replace(layer.record, note=note)))
    raise_all(problems, "weights of the graph cannot be replaced")
    tied = {copy: kept for copy, kept in target.copies.items() if kept in job.order}
    return replace(job, layers=tuple(layers), tied={**job.tied, **tied})
