"""What a conversion will do, as data: the user's decisions, and for each layer its plan and its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import ConversionError, LayoutxError, UsageError
from layoutx.files.store import Part, Tensor
from layoutx.frozen import frozen
from layoutx.model.bindings import bind_record
from layoutx.model.followed import unfollowed
from layoutx.model.keras_uses import UNFOLLOWED
from layoutx.model.loose import has_layers
from layoutx.model.mapfile import MapFile, read_map
from layoutx.model.record import UNTRAINED, LayerRecord, ModelRecord
from layoutx.model.said import STACKED
from layoutx.model.stacked import STACKING
from layoutx.plan.plan import Plan
from layoutx.spec.bound import BoundForm
from layoutx.spec.guess import form_option
from layoutx.spec.registry import Registry
from layoutx.spec.sizing import UndeterminedError
from layoutx.words import near

LEFT_OUT = "left out by --skip"


@frozen
class Options:
    """What the user decides about a conversion."""

    allow: frozenset[str] = frozenset()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    forms: Mapping[str, str] = NOTHING
    pairs: Mapping[str, str] = NOTHING
    ignore_keys: frozenset[str] = frozenset()
    keep_order: tuple[str, ...] = ()
    materialise: bool = False
    values: Mapping[str, Any] = NOTHING
    map: MapFile | None = None

    def keeps(self, layer: str) -> bool:
        """Whether the rows of this layer stay in the source's order."""
        return any(fnmatchcase(layer, pattern) for pattern in self.keep_order)


def options_of(
    allow: Iterable[str] = (),
    skip: Iterable[str] = (),
    only: Iterable[str] = (),
    forms: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    ignore_keys: Iterable[str] = (),
    keep_order: bool | Iterable[str] = False,
    materialise: bool = False,
    values: Mapping[str, Any] | None = None,
    map: str | PathLike[str] | MapFile | None = None,
) -> Options:
    """Options from what callers write; see `layoutx.convert.convert` for their meaning.

    Args:
        map: a mapping file that `layoutx match` wrote; what is said beside it counts before it.

    Raises:
        UsageError: one text where a list of texts is meant; consent to something that there is not; a mapping file
            that is wrong, with all that is wrong in it.
    """
    texts = {"allow": allow, "skip": skip, "only": only, "ignore_keys": ignore_keys, "keep_order": keep_order}
    for name, given in texts.items():
        if isinstance(given, str):
            raise UsageError(f"{name} is a list of texts, not one text", do=f"write {name}=[{given!r}]")
    named: dict[str, tuple[Any, str]] = {
        "forms": (forms, "form"),
        "pairs": (pairs, "place"),
        "values": (values, "value"),
    }
    for name, (mapping, what) in named.items():
        if mapping is not None and not isinstance(mapping, Mapping):
            do = f"write {name}={{'name': '{what}'}}"
            raise UsageError(f"{name} is a mapping, not a {type(mapping).__name__}", do=do)
    allow = tuple(allow)
    wrong = sorted(set(allow) - {"rounds", "conditional", "modules", "range"})
    if wrong:
        raise UsageError(f"{', '.join(wrong)} cannot be allowed", do="allow rounds, conditional, modules or range")
    read = map if isinstance(map, MapFile) or map is None else read_map(map)
    more = read or MapFile(Path())
    kept = (("*",) if keep_order else ()) if isinstance(keep_order, bool) else tuple(keep_order)
    return Options(
        frozenset(allow),
        (*more.skip, *skip),
        tuple(only),
        {**more.forms, **(forms or {})},
        {**more.pairs, **(pairs or {})},
        frozenset(ignore_keys),
        (*more.keep_order, *kept),
        materialise,
        {**more.values, **(values or {})},
        read,
    )


@frozen
class LayerJob:
    """One layer of the conversion.

    Attributes:
        record: the layer as the model with a config describes it.
        plan: from the source form to the target form.
        sources: source form tensor name -> the stored tensor.
        targets: target form tensor name -> its name in the output.
        reason: how the pairing came about; "" where the target takes the source's names.
        refine: axis -> its dims on the target's side; last: in the order of the NumPy reference.
        told: config keys of the source that the user said; known: config keys that the target itself tells.
        allowed: what the user has consented to for this layer by asking for its plan, beside `Options.allow`.
        alike: the first of the layers that it could be exchanged with, which habits alone tell apart, see `Pair`.
        supposed: a map is flattened into one of its axes, and in which order one of the models does that is not known.
    """

    record: LayerRecord
    plan: Plan
    sources: Mapping[str, Tensor]
    targets: Mapping[str, str]
    reason: str = ""
    refine: Mapping[str, str] = NOTHING
    last: Mapping[str, str] = NOTHING
    told: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    alike: str = ""
    supposed: bool = False


@frozen
class Job:
    """A whole conversion, before any weight is read.

    Attributes:
        source, target: framework names.
        layers: in model order.
        weightless: records without tensors, for the report.
        skipped: layer -> why it was left out.
        leftover: source tensor -> why no layer owns it.
        order: output names in the order in which they are written.
        tied: output names that share the numbers of another one.
        unwritten: trained tensors of the target that no layer gives; they keep what they hold there.
        stacked: output name -> the layer of a tensor of the target that it is, where that holds many.
        kept: output name -> the stored tensor that is there as it was, whatever layer it belongs to.
    """

    source: str
    target: str
    layers: tuple[LayerJob, ...]
    weightless: tuple[LayerRecord, ...] = ()
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    order: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    stacked: Mapping[str, Part] = NOTHING
    kept: Mapping[str, Tensor] = NOTHING
    unwritten: tuple[str, ...] = ()

    def read(self) -> Iterator[Tensor]:
        """The source tensors that it reads, layer by layer."""
        yield from (tensor for layer in self.layers for tensor in layer.sources.values())
        yield from self.kept.values()

    @property
    def left_out(self) -> dict[str, str]:
        """Those of `skipped` that the user left out; the others are nothing that was trained."""
        return {name: why for name, why in self.skipped.items() if not why.endswith(UNTRAINED)}


def covers(patterns: Iterable[str], name: str) -> bool:
    """Whether a pattern means a tensor of the target: its name, or that of a module that holds it."""
    return any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in patterns)


def chosen(
    model: ModelRecord, options: Options, others: Iterable[str] = ()
) -> tuple[list[LayerRecord], dict[str, str]]:
    """The layers with tensors that are to be converted, and why the others are not.

    A name that is no layer's means all that lies in it, as of a class of one's own that is taken apart.

    Args:
        others: names of the target's tensors; `skip` may mean these and their modules as well.

    Raises:
        UsageError: a pattern that matches no layer.
    """
    names = [r.name for r in model.layers]
    others = tuple(others)
    skip, only = ([_meant(pattern, names) for pattern in some] for some in (options.skip, options.only))
    for pattern in (*skip, *only, *options.keep_order):
        if not any(fnmatchcase(name, pattern) for name in names) and not any(covers([pattern], n) for n in others):
            raise UsageError(f"no layer is called {pattern!r}", why=near(pattern, names, "the layers are"))
    kept, skipped = [], {}
    for record in model.layers:
        if not record.tensors:
            continue
        if any(fnmatchcase(record.name, p) for p in skip):
            skipped[record.name] = LEFT_OUT
        elif only and not any(fnmatchcase(record.name, p) for p in only):
            skipped[record.name] = "not in --only"
        else:
            kept.append(record)
    return kept, skipped


def _meant(pattern: str, names: Sequence[str]) -> str:
    """The pattern, or that of all that lies below it, where it is no layer's own name."""
    inside = f"{pattern}/*"
    own = any(fnmatchcase(name, pattern) for name in names)
    return inside if not own and any(fnmatchcase(name, inside) for name in names) else pattern


LIVE = (
    "give the live model, whose layers are read one by one (lx.port(keras.models.load_model(FILE), TARGET), of a file "
    "of weights the model that loads it, or package.module:callable in the file's place), "
)
KEPT = "say that what it is given keeps its order, so that its weights are moved as they are (--keep-order '{}/*'), "


def _unformed(record: LayerRecord, registry: Registry) -> ConversionError:
    """A live model tells what a Keras file does not: the classes of layers in others, whose variables it numbers."""
    shapes = {name: tensor.shape for name, tensor in record.tensors.items()}
    held = has_layers(record)
    numbered = not record.class_name and all(name.rpartition("/")[2].isdigit() for name in shapes)
    what = f"layer {record.name}: layoutx has no form for the class {record.class_name or 'unknown'}"
    loose = bool(record.refine) or UNFOLLOWED in record.note  # the order of what it is given
    if "quantised" in record.note:
        do = f"give the model as it was before it was quantised, or leave the layer out (--skip {record.name})"
    else:
        form = form_option(record.name, shapes if held else {}, registry, "keras")  # files of Keras alone say who holds
        first, kept = LIVE if held or numbered else "", KEPT.format(record.name) if loose and not held else ""
        last = f"leave it out (--skip {record.name}), {kept}or add a spec (docs/writing-a-spec.md)"
        do = f"{first}name its form ({form}), {last}"
    tensors = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return ConversionError(what, where=f"tensors: {tensors}", why=record.note, do=do)


def bound_layers(
    records: Sequence[LayerRecord], registry: Registry, options: Options
) -> tuple[list[tuple[LayerRecord, BoundForm]], list[LayoutxError]]:
    """Every layer bound to its form; the problems of all of them."""
    found, problems = [], list[LayoutxError]()
    for record in records:
        if not record.form:
            problems.append(_unformed(record, registry))
            continue
        try:
            found.append((record, bind_record(record, registry, ignore=options.ignore_keys)))
        except UndeterminedError as error:
            problems.append(_perhaps_stacked(error, record))
        except LayoutxError as error:
            problems.append(error)
    return found, problems


def _perhaps_stacked(error: UndeterminedError, record: LayerRecord) -> LayoutxError:
    """The error, with what else tensors may be that have one length in front: dense layers kept as one, by jax."""
    counts = {tensor.shape[:1] for tensor in record.tensors.values()}
    if record.form.partition(".")[0] not in STACKING or len(record.tensors) < 2 or len(counts) > 1:
        return error
    path, many = record.name.replace("/", ".").rpartition(".")[0], next(iter(counts))[0]
    do = f"if these are {many} layers kept as one, --set {path and f'{path}.'}{STACKED}=0; else {error.do}"
    return ConversionError(error.what, where=error.where, why=error.why, do=do)


def layers_for(
    model: ModelRecord, to: str, registry: Registry, options: Options, others: Iterable[str] = (), told: bool = False
) -> tuple[list[tuple[LayerRecord, BoundForm]], list[LayoutxError], dict[str, str]]:
    """The layers to convert, bound; the problems of all of them; and layers left out with the reason.

    A layer whose order nobody can tell is a problem, unless the user said that it stays.

    Args:
        others, told: as for `chosen` and `unfollowed`.
    """
    records, skipped = chosen(model, options, others)
    found, problems = bound_layers(records, registry, options)
    judged = [f for f in found if not options.keeps(f[0].name)]
    names = {record.name for record, _ in judged}
    rest = [record for record in model.layers if record.tensors and record.name not in names]
    problems += unfollowed(model, judged, registry, to, bound_layers(rest, registry, options)[0], told)
    return found, problems, skipped


def job_of(model: ModelRecord, to: str, layers: Sequence[LayerJob], skipped: Mapping[str, str]) -> Job:
    order = tuple(name for layer in layers for name in layer.targets.values())
    weightless = tuple(r for r in model.layers if not r.tensors)
    return Job(model.framework, to, tuple(layers), weightless, skipped, dict(model.leftover), order)
