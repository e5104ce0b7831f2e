"""A model on the page: its tree, a table of its layers, and a card for each with pictures of where its numbers live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.page.document import Section
from layoutx.page.html import Html, joined, tag
from layoutx.page.tensor import tensor_card
from layoutx.plan.plan import Plan
from layoutx.show.picture import picture
from layoutx.show.svg import svg
from layoutx.show.tables import plural, size_text
from layoutx.show.topics.beside import plans, targets
from layoutx.show.topics.words import Subject
from layoutx.show.views import LayerView, ModelView
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry

OPPOSITE = {"torch": "keras"}  # beside which framework a layer is drawn; torch for all others
MOST_BYTES = 4_000_000_000


@frozen
class Told:
    """What other parts of the page say of a layer: columns of the table and parts of its card.

    Attributes:
        columns: heading -> layer -> (text, what it is sorted by).
        cards: layer -> more of its card, before its tensors.
        plans: layer -> the plan whose target is drawn beside it.
    """

    columns: Mapping[str, Mapping[str, tuple[Html | str, float | str]]] = field(default_factory=dict)
    cards: Mapping[str, Html] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)


def answer(view: ModelView) -> list[Html]:
    """What the model is, in two lines."""
    what = " ".join(filter(None, [view.framework, view.version]))
    count = len({t.key for layer in view.layers for t in layer.tensors})
    sizes = [plural(len(view.layers), "layer"), plural(count, "tensor"), plural(view.parameters, "number")]
    return [tag("p", f"{what} ({view.format})"), tag("p", ", ".join([*sizes, size_text(view.bytes)]), class_="dim")]


def sections(view: ModelView, known: Registry, told: Told, values: bool = True) -> Iterator[Section]:
    """The table of layers, the cards, and what no layer owns."""
    yield Section("layers", "Layers", tag("div", _table(view, told), class_="tablebox"))
    cards = [_card(number, view, known, told, values) for number in range(len(view.layers))]
    fold = [
        tag("button", text, type="button", data_fold=way) for text, way in (("Open all", "open"), ("Fold all", "fold"))
    ]
    yield Section("cards", "Where the numbers live", joined([tag("p", joined(fold, " ")), *cards]))
    if view.leftover:
        items = [tag("li", tag("code", name), f": {why}") for name, why in view.leftover.items()]
        yield Section("leftover", "Tensors that no layer owns", tag("ul", items))


def tree(view: ModelView) -> Html:
    """Layers as a folding tree: nested models and modules by the parts of their names, flat ones by their prefixes."""
    mark = max("/._", key=lambda mark: sum(mark in layer.name for layer in view.layers))
    paths = [(layer.name.split(mark), number) for number, layer in enumerate(view.layers)]
    return tag("div", _branches(paths, view, mark), class_="tree")


def _branches(paths: Sequence[tuple[Sequence[str], int]], view: ModelView, mark: str) -> Iterator[Html]:
    groups: dict[str, list[tuple[Sequence[str], int]]] = {}
    for (head, *rest), number in paths:
        groups.setdefault(head, []).append((rest, number))
    for head, inside in groups.items():
        if len(inside) == 1:
            more, number = inside[0]
            layer = view.layers[number]
            name, shown = _searched(layer), layer.name if mark == "_" else mark.join([head, *more])
            link = tag("a", shown, href=f"#layer-{number}")
            about = " ".join(filter(None, [layer.class_name, layer.called]))
            yield tag("div", link, " ", tag("span", about, class_="dim"), class_="leaf", data_name=name)
        else:
            own = [(rest or ["(itself)"], number) for rest, number in inside]
            label = (head, " ", tag("span", plural(len(inside), "layer"), class_="dim"))
            yield tag("details", tag("summary", label), _branches(own, view, mark), open=len(paths) <= 40)


def _table(view: ModelView, told: Told) -> Html:
    heads = [("layer", ""), ("class", ""), ("tensors", ""), ("numbers", "number")]
    heads += [(heading, "number") for heading in told.columns]
    top = tag(
        "tr", [tag("th", tag("button", head, type="button"), class_=kind or None, scope="col") for head, kind in heads]
    )
    rows = [_row(number, layer, told) for number, layer in enumerate(view.layers)]
    return tag("table", tag("thead", top), tag("tbody", rows))


def _row(number: int, layer: LayerView, told: Told) -> Html:
    shapes = ", ".join(tensor.text for tensor in layer.tensors)
    cells = [
        tag(
            "td",
            tag("a", layer.name, href=f"#layer-{number}"),
            tag("div", layer.called, class_="dim") if layer.called else None,
            data_sort=number,
        ),
        tag("td", layer.class_name, tag("div", layer.form, class_="dim") if _other(layer) else None),
        tag("td", shapes),
        tag("td", f"{layer.parameters:,}", data_sort=layer.parameters, class_="number"),
    ]
    for column in told.columns.values():
        shown, key = column.get(layer.name, ("", ""))
        cells.append(tag("td", shown, data_sort=key, class_="number"))
    return tag("tr", cells, data_name=_searched(layer), data_layer=layer.name)


def _other(layer: LayerView) -> bool:
    """Whether the form's name says more than the class."""
    return bool(layer.form) and layer.form.partition(".")[2] != layer.class_name


def _searched(layer: LayerView) -> str:
    words = [
        layer.name,
        layer.called,
        layer.class_name,
        layer.form,
        *(t.name for t in layer.tensors),
        *(t.key for t in layer.tensors),
    ]
    return " ".join(words).lower()


def _card(number: int, view: ModelView, known: Registry, told: Told, values: bool) -> Html:
    layer = view.layers[number]
    words = [layer.class_name, layer.called, plural(layer.parameters, "number")]
    about = tag("span", "  ".join(filter(None, words)), class_="dim")
    config = ", ".join(f"{key}={value}" for key, value in layer.config.items())
    body: list[Html | None] = [tag("p", config, class_="dim") if config else None]
    body += [tag("p", note) for note in layer.notes]
    body.append(tag("p", layer.problem, class_="wrong") if layer.problem else None)
    body.append(told.cards.get(layer.name))
    if layer.bound is not None and layer.tensors:
        body.append(_picture(layer.bound, told.plans.get(layer.name) or counterpart(view, layer, layer.bound, known)))
    body.append(tag("div", _tensors(layer, values), class_="tensors"))
    named = {"id": f"layer-{number}", "data_name": _searched(layer)}
    return tag("details", tag("summary", layer.name, "  ", about), tag("div", body), class_="card", **named)


def _tensors(layer: LayerView, values: bool) -> Iterable[Html]:
    for tensor in layer.tensors:
        source = layer.sources.get(tensor.name)
        readable = values and source is not None and source.nbytes <= MOST_BYTES
        yield tensor_card(layer, tensor, source.read() if readable and source is not None else None)


def _picture(bound: BoundForm, plan: Plan | None) -> Html:
    drawn = svg(picture(bound, plan), style=False)
    about = tag("p", _kind(bound), class_="dim")
    return tag("div", about, tag("div", Html(drawn), class_="pictures"))


def _kind(bound: BoundForm) -> str:
    return f"{bound.kind.name}: {bound.kind.about}"


def counterpart(view: ModelView, layer: LayerView, bound: BoundForm, known: Registry) -> Plan | None:
    """The plan to the usual form of the framework beside which a layer is drawn, its rows as that one flattens maps."""
    subject = Subject(layer.name, bound, layer, view, layer.own)
    try:
        names = targets(subject, known, OPPOSITE.get(bound.form.framework, "torch"))
    except LayoutxError:
        return None
    return next(iter(plans(subject, known, names)[0]), None)
