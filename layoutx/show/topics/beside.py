"""The same layer beside itself: the forms of other frameworks that people compare it with, and the plans to them."""

from __future__ import annotations

from layoutx.errors import LayoutxError, UsageError
from layoutx.plan.fit import fit
from layoutx.plan.plan import Plan
from layoutx.show.topics.words import Subject
from layoutx.spec.registry import MAIN, Registry


def targets(subject: Subject, known: Registry, to: str) -> list[str]:
    """The forms to compare with: the one asked for, or the usual one of each main framework but its own."""
    if to in known.forms:
        return [to]
    kind = subject.bound.kind.name
    if to:
        from layoutx.model.load import check_framework

        check_framework(to, known)
    spread = subject.bound.kind.spread.items()
    rank = next((n for n, names in sorted(spread, reverse=True) if set(names) <= set(subject.bound.sizes)), None)
    rank = rank or subject.bound.config.get("rank")
    found = []
    for framework in [to] if to else [name for name in MAIN if name != subject.framework.rstrip("1")]:
        usual = [f for f in known.forms_of(kind, framework) if rank is None or f.rank in (None, rank)]
        fitting = [f for f in usual if f.class_name.count(".") == subject.bound.form.class_name.count(".")] or usual
        found += [f.name for f in fitting[:1]]
    if to and not found:
        raise UsageError(f"{to} has no form of the kind {kind}", do=f"`layoutx specs show {kind}` lists its forms")
    return found


def plans(subject: Subject, known: Registry, names: list[str]) -> tuple[list[Plan], dict[str, str]]:
    """The same layer in other forms, and those that cannot hold it -> why."""
    found, refused = list[Plan](), dict[str, str]()
    for name in names:
        try:
            found.append(fit(subject.bound, known.form(name), refine=_turned(subject, known, name)))
        except LayoutxError as error:
            refused[name] = "; ".join(filter(None, [error.what, error.why]))
    return found, refused


def _turned(subject: Subject, known: Registry, name: str) -> dict[str, str]:
    """The other framework flattens a map in its own order."""
    if subject.view is None:
        return {}
    last = known.framework(name.partition(".")[0]).channels == "last"
    return dict(subject.view.last if last else subject.view.first)
