"""The configs that a form tells apart: the values of its `when` conditions, its defaults first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from layoutx.spec.memo import Memo
from layoutx.spec.schema import Cases, Form, When

MOST_CONFIGS = 64


def structural(form: Form) -> Iterator[dict[str, Any]]:
    """Configs over the keys that decide which tensors, labels and axes a form has, at most `MOST_CONFIGS`.

    Only values that differ from the form's defaults are in them: the first is empty.
    """
    keys = _values(form, _structure(form))
    for chosen in islice(product(*keys.values()), MOST_CONFIGS):
        yield _different(form, dict(zip(keys, chosen, strict=True)))


def switches(form: Form) -> Mapping[str, tuple[Any, ...]]:
    """Config keys that decide tensors, labels, axes or facts -> the values worth telling apart, the default first."""
    return _switches.get((form,), b"", lambda: _values(form, [*_structure(form), *form.facts.values()]))


_switches: Memo[dict[str, tuple[Any, ...]]] = Memo()


def _structure(form: Form) -> list[Cases]:
    cases = [spec.cases for spec in form.tensors]
    tables = (form.only, form.pin, form.equal, form.same, form.maps)
    return cases + [found for table in tables for found in table.values()]


def reachable(form: Form) -> Iterator[dict[str, Any]]:
    """The structural configs, then one for each further value that a fact, a setting or a data order depends on."""
    seen: list[dict[str, Any]] = []
    for config in structural(form):
        seen.append(config)
        yield config
    others = [found for table in (form.facts, form.settings, form.data) for found in table.values()]
    for key, values in _values(form, others).items():
        for value in values:
            config = _different(form, {key: value})
            if config not in seen:
                seen.append(config)
                yield config


def conditions(form: Form) -> Iterator[tuple[str, When]]:
    """Every `when` of a form, with the words that say where it stands."""
    names = ("only", "pin", "equal", "same", "maps", "facts", "settings", "data")
    for table, entries in ((name, getattr(form, name)) for name in names):
        for name, cases in entries.items():
            yield from ((f"{table}.{name}", case.when) for case in cases)
    for spec in form.tensors:
        yield from ((f"tensor {spec.name}", case.when) for case in spec.cases)


def _values(form: Form, tables: list[Cases]) -> dict[str, tuple[Any, ...]]:
    """Config key -> its default and the values that conditions name; of booleans both."""
    found: dict[str, list[Any]] = {}
    for cases in tables:
        for case in cases:
            for key, values in case.when.items():
                known = found.setdefault(key, [form.config.get(key)])
                for value in (*values, *((True, False) if any(isinstance(v, bool) for v in values) else ())):
                    if not any(_same(value, other) for other in known):
                        known.append(value)
    return {key: tuple(values) for key, values in found.items()}


def _different(form: Form, config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not _same(value, form.config.get(key))}


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)
