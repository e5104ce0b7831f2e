"""The target's config, chosen for a source: the one of all its possible configs that holds the source most exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError, ConversionError, LayoutxError, Problems
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Product, roles_of
from layoutx.plan.plan import Plan, plan
from layoutx.plan.steps import Fill, Guard, count
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.configs import switches
from layoutx.spec.expand import axis_names
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.schema import Form, Others, Reading, holds

MOST_CONFIGS = 256
VERSION = "version"  # of the framework: never chosen, only given


def fit(
    source: BoundForm,
    form: Form,
    config: Mapping[str, Any] = NOTHING,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    refine: Mapping[str, str] = NOTHING,
    instance: Mapping[str, Any] = NOTHING,
) -> Plan:
    """Plan a source into a form whose config is known in part, or not at all.

    Config values that are given stay; of the others, every combination that the form tells apart is
    tried, and the most exact plan with the fewest filled numbers wins (the form's defaults break ties).

    Args:
        config: what is known of the target layer.
        shapes: the target's stored shapes, where a template gives them.
        refine: the target's dims for refined axes.
        instance: which instance of the target form.

    Raises:
        ConversionError: no config of this form can hold the source, with the reason for the nearest one.
    """
    _has_place(source, form)
    best, failures = best_of(source, form, config, shapes=shapes, refine=refine, instance=instance)
    if best is None:
        from layoutx.plan.offer import advised

        nearest = labels_apart(source, form) or _nearest(source, form, failures)
        raise advised(nearest, source, form).at()  # the failure itself is kept
    return best


def best_of(
    source: BoundForm,
    form: Form,
    config: Mapping[str, Any] = NOTHING,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    refine: Mapping[str, str] = NOTHING,
    instance: Mapping[str, Any] = NOTHING,
) -> tuple[Plan | None, list[LayoutxError]]:
    """The plan that `fit` chooses, None where no config holds the source; and why the others do not."""
    given = (dict(config), shapes and [(name, tuple(shape)) for name, shape in shapes.items()])
    key = None if source.key is None else key_of(source.key, *given, dict(refine), dict(instance))
    best, failures = _best.get(
        (source.kind, source.form, form), key, lambda: _best_of(source, form, config, shapes, refine, instance)
    )
    return best and Plan(source, best.target, best.steps), list(failures)


_best: Memo[tuple[Plan | None, list[LayoutxError]]] = Memo(2048)


def _best_of(
    source: BoundForm,
    form: Form,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    refine: Mapping[str, str],
    instance: Mapping[str, Any],
) -> tuple[Plan | None, list[LayoutxError]]:
    best: Plan | None = None
    rank: tuple[int, int, int] | None = None
    failures: list[LayoutxError] = []
    for candidate in configs(form, config, source.facts, sized_of(form, source)):
        try:
            target = _target(source, form, candidate, shapes, refine, instance)
            found = plan(source, target)
        except LayoutxError as error:
            failures.append(_told(error, source, form))
            continue
        # a sum is legal whatever the values are, a guard is not: what holds more of the source comes first
        cost = (_elements(found, Guard), int(found.exactness), _elements(found, Fill))
        if rank is None or cost < rank:
            best, rank = found, cost
        if cost == (0, 0, 0):
            break
    return best, failures


def _has_place(source: BoundForm, form: Form) -> None:
    """Refuse, before sizes disagree, a target that has no tensor at all for what makes the source another function."""
    held = _roles.get((form,), b"", lambda: _held(form))
    for name in dict.fromkeys(role for role, _ in source.places):  # in one order: the first is told
        role = source.kind.roles[name]
        if role.optional and name not in held:
            raise ConversionError(
                f"{form.name} has no place for {name}",
                where=f"{source.form.name} stores it in "
                + ", ".join(dict.fromkeys(p.tensor for (r, _), p in source.places.items() if r == name)),
                why=f"without it {role.optional}: another function",
                do=f"choose a target that has it; `layoutx specs show {source.kind.name}` lists them",
            )


_roles: Memo[frozenset[str]] = Memo()


def _held(form: Form) -> frozenset[str]:
    """The roles for which a form has a tensor under any config."""
    return frozenset(role for spec in form.tensors for case in spec.cases for role in roles_of(case.value))


def labels_apart(source: BoundForm, form: Form) -> ConversionError | None:
    """The refusal of a source with one label of an axis that the form has under no config by itself: backward alone."""
    for axis, own in source.labels.items():
        every = [case.value for case in form.only.get(axis, ())]
        if len(own) > 1 or not every or any(set(own) == set(one) for one in every):
            continue
        told = next((c.when for c in source.form.only.get(axis, ()) if holds(c.when, source.config)), NOTHING)
        usual = {key: source.form.config[key] for key in told}
        said = ", ".join(f"--set LAYER.{key}={str(value).lower()}" for key, value in usual.items())
        return ConversionError(
            f"{form.name} cannot hold this {source.form.name}: its {axis} is {own[0]}, and no other",
            why=f"{form.name} has {', or '.join(' and '.join(one) for one in every)}",
            do=f"read it the usual way ({said}), and turn the steps of the data round in the target's program, before "
            "and behind the layer"
            if usual
            else "",
        )
    return None


def sized_of(form: Form, source: BoundForm) -> dict[str, Any]:
    """Config values that are sizes, where tensors depend on them and the source has that axis: proj_size."""
    decisive, known = switches(form), {axis for place in source.places.values() for axis in place.block.strides}
    found = {}
    for key, dim in form.sizes:
        if key in decisive and not isinstance(dim, tuple) and axis_names((dim,)) <= known:
            found[key] = extent(Product((dim,)), source.sizes)
    return found


def _target(
    source: BoundForm,
    form: Form,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    refine: Mapping[str, str],
    instance: Mapping[str, Any],
) -> BoundForm:
    """Sizes come from the source; where the target is a real layer whose shapes contradict them, from those shapes.

    Shapes alone do not tell everything (the groups of a convolution): the source decides what they leave open.
    """
    sizes = dict(source.sizes)
    if shapes is None:
        target = bind(source.kind, form, config, sizes=sizes, refine=refine, instance=instance)
        idle = _idle(source, target)
        if idle:
            target = bind(source.kind, form, config, sizes=sizes, refine=refine, instance=instance, omit=idle)
        return target
    try:
        return bind(source.kind, form, config, shapes=shapes, sizes=sizes, refine=refine, instance=instance)
    except LayoutxError:
        return bind(source.kind, form, config, shapes=shapes, refine=refine, instance=instance)


def _idle(source: BoundForm, target: BoundForm) -> list[str]:
    """Optional tensors of the target for which the source has nothing at all.

    A counter (a role with `drop`) is made all the same: its framework expects it beside the rest.
    """
    optional = {spec.name for spec in target.form.tensors if spec.optional}
    roles = {role for role, _ in source.places} | {r.name for r in source.kind.roles.values() if r.drop}
    return [t.name for t in target.tensors if t.name in optional and not roles & {b.role for b in t.blocks}]


def _elements(found: Plan, of: type[Fill] | type[Guard]) -> int:
    return sum(count(step.loops) for step in found.steps if isinstance(step, of))


def _told(error: LayoutxError, source: BoundForm, form: Form) -> LayoutxError:
    """A requirement that the source's own facts broke is a refusal of the conversion: torch.RNN knows no sigmoid."""
    if isinstance(error, BindError) and re.search(r" is (not )?described for ", error.what):
        what = f"{form.name} cannot hold this {source.form.name}: it {error.what.removeprefix(form.name).strip()}"
        return ConversionError(what, where=error.where, why=error.why, do=error.do)
    return error


def _nearest(source: BoundForm, form: Form, failures: Sequence[LayoutxError]) -> LayoutxError:
    """The failure that says most: a refusal of the conversion itself before one of a mere config."""
    if not failures:
        return ConversionError(f"{form.name} has no config that could hold {source.form.name}")
    refusals = [f for f in failures if isinstance(f, (ConversionError, Problems))]
    unfit = [f for f in failures if not isinstance(f, BindError)]
    return min(refusals or unfit or list(failures), key=lambda f: len(getattr(f, "problems", ())))


def configs(
    form: Form, given: Mapping[str, Any], facts: Mapping[str, Any], sized: Mapping[str, Any] = NOTHING
) -> Iterator[dict[str, Any]]:
    """Configs that the form tells apart, its defaults first; the source's facts are written into them.

    Args:
        sized: values that are sizes of the source, tried beside the default.
    """
    open_keys = {
        key: (*values, *((sized[key],) if key in sized and sized[key] not in values else ()))
        for key, values in switches(form).items()
        if key not in given and key != VERSION
    }
    for values in islice(product(*open_keys.values()), MOST_CONFIGS):
        chosen = dict(zip(open_keys, values, strict=True))  # a default stays unsaid: sizes may overrule it
        config = {**{key: value for key, value in chosen.items() if value is not form.config.get(key)}, **given}
        yield {**config, **_facts_in(form, config, given, facts)}


def _facts_in(
    form: Form, config: Mapping[str, Any], given: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Config values through which the target takes over the source's facts, where its config decides them."""
    found: dict[str, Any] = {}
    full = {**form.config, **config}
    for name, cases in form.facts.items():
        if facts.get(name) is None:
            continue
        named = [case for case in cases if case.value == facts[name]]
        said = [case.when for case in named if not any(isinstance(values, Others) for values in case.when.values())]
        ways = [{key: values[0] for key, values in when.items() if full.get(key) not in values} for when in said]
        for wanted in sorted(ways, key=len):  # the value has a spelling of its own: with the fewest other changes
            if not set(wanted) & {VERSION, *given}:
                found.update(wanted)
                break
        readings = [case.value for case in cases if isinstance(case.value, Reading) and holds(case.when, full)]
        if not named and readings and readings[0].config not in given:
            spelled = {meaning: word for word, meaning in readings[0].values.items()}
            fact = facts[name]  # a list, where it is a way of the source's that no form has a word for
            found[readings[0].config] = spelled.get(fact, fact) if isinstance(fact, str) else fact
    return found
