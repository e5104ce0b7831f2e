"""What a spec file says, as frozen objects: kinds, roles, forms and their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.lang.tree import Dim


class Others(tuple[Any, ...]):
    """All values but these: what `{not: value}` of a condition means; iterating gives the excluded ones."""

    __slots__ = ()

    def __contains__(self, value: object) -> bool:
        return not super().__contains__(value)


When = Mapping[str, tuple[Any, ...]]


@frozen
class Case:
    """One value of a conditional and the config values under which it holds ({}: always)."""

    value: Any
    when: When = NOTHING


Cases = tuple[Case, ...]


@frozen
class Role:
    """A named tensor of a kind's mathematics.

    Attributes:
        axes: its axes in canonical order: Axis, Spread, and Sum for a role that has some labels only.
        absent: "zeros" or "ones": what a missing tensor means; "" where it may not be missing.
        dtype: "" for the layer's own floating type, else as "int64".
        drop: why leaving it out changes nothing; "" where it must find a place.
        state: True for statistics and counters, which training moves without a gradient.
        optional: what a layer without it computes, where no number says that (a projection: none is made).
        view: its axes in the order in which people use it, `x @ part`; () where that is the canonical order.
        called: other names that people give it: `recurrent`.
    """

    name: str
    axes: tuple[Dim, ...]
    absent: str = ""
    dtype: str = ""
    drop: str = ""
    state: bool = False
    about: str = ""
    optional: str = ""
    view: tuple[str, ...] = ()
    called: tuple[str, ...] = ()


@frozen
class Gauge:
    """Roles whose sum is all that the forward pass sees, for some labels and under some facts."""

    roles: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = NOTHING
    when: When = NOTHING


@frozen
class FactKind:
    """A property that changes the function: its usual value and what differs when two sides disagree."""

    default: Any
    why: str = ""


@frozen
class Reading:
    """How a fact or a setting is read from a config: the key, and how the framework spells its values."""

    config: str
    values: Mapping[str, Any] = NOTHING
    complement: bool = False
    note: str = ""


@frozen
class TensorSpec:
    """One stored tensor of a form: its name (with {axis} fields) and its layout in each case.

    `dims_from` names a config key whose text replaces the dims, where a layer's own config decides
    their order (the equation of an EinsumDense). `cut`: the stored dims of a tensor that is cut along its
    enumerated axis into blocks; the layout then says what these hold end to end, each read row by row (CuDNN).
    """

    name: str
    cases: Cases
    optional: bool = False
    dtype: str = ""
    dims_from: str = ""
    cut: tuple[Dim, ...] = ()


@frozen
class Form:
    """How one framework stores a kind. Field by field as documented in docs/design.md, part 4.

    `by_class`: only its class, or the user's word, leads to it; tensors of fitting names and shapes never do.
    `of`: the form, of another kind, whose class this one reads another way (a Linear as a convolution of one position);
    no tensors lead to it, only a layer for which nothing else is there.
    `apart`: refined axes whose dims stand each for itself here, not as one: the window of a convolution.
    `seen`: config keys that neither files nor classes tell: a run of the live model does, or the user.
    `formula`: what the layer computes, in its own tensors' names; what stands in square brackets is left out where the
    layer lacks a tensor that it names. `why`: why the tensors lie as they do.
    """

    name: str
    kind: str
    about: str = ""
    source: str = ""
    rank: int | None = None
    by_class: bool = False
    of: str = ""
    apart: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    config: Mapping[str, Any] = NOTHING
    ignore: frozenset[str] = frozenset()
    sizes: tuple[tuple[str, Dim | tuple[Dim, ...]], ...] = ()
    only: Mapping[str, Cases] = NOTHING
    pin: Mapping[str, Cases] = NOTHING
    equal: Mapping[str, Cases] = NOTHING
    same: Mapping[str, Cases] = NOTHING
    maps: Mapping[str, Cases] = NOTHING
    names: Mapping[str, Mapping[str, str]] = NOTHING
    each: str = ""
    modules: Mapping[str, str] = NOTHING
    require: tuple[tuple[str, tuple[Any, ...], str], ...] = ()
    facts: Mapping[str, Cases] = NOTHING
    settings: Mapping[str, Cases] = NOTHING
    calls: Mapping[str, str] = NOTHING
    data: Mapping[str, Cases] = NOTHING
    tensors: tuple[TensorSpec, ...] = ()
    history: tuple[str, ...] = ()
    formula: Cases = ()
    why: str = ""
    line: int = 0
    file: str = ""

    @property
    def framework(self) -> str:
        """The part before the first dot: `keras`, `torch`, `onnx`."""
        return self.name.split(".", 1)[0]

    @property
    def runs(self) -> str:
        """The form under whose name the real layer goes: its own, or that of the class that it reads another way."""
        return self.of or self.name

    @property
    def class_name(self) -> str:
        """The part after the first dot, of the class itself."""
        return self.runs.split(".", 1)[1]

    def laid(self, refine: Mapping[str, str]) -> dict[str, str]:
        """The dims of refined axes as they stand in this form: each for itself where they are `apart`."""
        return {
            axis: dims[1:-1] if axis in self.apart and dims.startswith("(") else dims for axis, dims in refine.items()
        }

    @property
    def import_name(self) -> str:
        """How a program names the class of a form that only its class leads to: `layoutx.torch.GRU`."""
        package, _, name = self.class_name.rpartition(".")
        return f"{package}.{self.framework}.{name}" if package else self.class_name


@frozen
class Words:
    """What people call an axis (`inputs`, one of them `input`), its labels (`forget gate`), and what each computes."""

    many: str = ""
    one: str = ""
    labels: Mapping[str, str] = NOTHING
    computes: Mapping[str, Cases] = NOTHING


@frozen
class Kind:
    """What a layer computes, its roles, and its forms in every framework.

    `words`: axis -> what people call it. `index`: a name by which people count -> the axes that it runs over, the last
    fastest (the `head` of an attention runs over kv and rep).
    """

    name: str
    about: str
    roles: Mapping[str, Role]
    forms: Mapping[str, Form]
    labels: Mapping[str, Mapping[str, tuple[str, ...]]] = NOTHING
    same: Mapping[str, str] = NOTHING
    spread: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    gauge: tuple[Gauge, ...] = ()
    facts: Mapping[str, FactKind] = NOTHING
    settings: Mapping[str, str] = NOTHING
    file: str = ""
    digest: str = ""
    words: Mapping[str, Words] = NOTHING
    index: Mapping[str, tuple[str, ...]] = NOTHING


@frozen
class Framework:
    """What holds for every form of a framework: config keys that never matter to the numbers.

    `refuse`: a class, or a part of a tensor's name, that no form can hold -> why, and what to do.
    """

    name: str
    ignore: frozenset[str] = frozenset()
    classes: Mapping[str, str] = NOTHING
    channels: str = "last"
    refuse: Mapping[str, str] = NOTHING


def choose(cases: Cases, config: Mapping[str, Any]) -> Any:
    """The value of the first case that holds under a config; None where none does."""
    for case in cases:
        if holds(case.when, config):
            return case.value
    return None


def holds(when: When, config: Mapping[str, Any]) -> bool:
    """Whether every named config value is one of those listed; lists compare as tuples."""
    return all(plain(config.get(key)) in values for key, values in when.items())


def plain(value: Any) -> Any:
    """A config value as specs hold it: lists become tuples."""
    return tuple(value) if isinstance(value, list) else value
