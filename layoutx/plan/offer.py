"""What to offer where a framework has no layer of a function: the module of layoutx that has it."""

from __future__ import annotations

from collections.abc import Mapping

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, Problems
from layoutx.plan.fit import best_of
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Guard
from layoutx.spec.bound import BoundForm
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.schema import Form, Kind


def module_for(source: BoundForm, framework: str, refine: Mapping[str, str] = NOTHING) -> Plan | None:
    """The plan into a form that only its class leads to (`torch.layoutx.GRU`), of which nothing is left out.

    None where the framework's own forms hold the layer as well, or no such form does.
    """
    for form in _ways.get((source.kind,), key_of(framework), lambda: _ways_of(source.kind, framework)):
        found, _ = best_of(source, form, refine=refine)
        if found is not None and not any(isinstance(step, Guard) for step in found.steps):
            return found if form.by_class else None
    return None


_ways: Memo[tuple[Form, ...]] = Memo()


def _ways_of(kind: Kind, framework: str) -> tuple[Form, ...]:
    """The framework's own forms, then the modules of layoutx; () where there are none of these."""
    forms = [form for form in kind.forms.values() if form.framework == framework and not form.of]
    forms = [form for form in forms if not form.by_class or form.import_name.startswith("layoutx.")]  # no Theano
    modules = any(form.by_class for form in forms)
    return tuple(sorted(forms, key=lambda form: form.by_class)) if modules else ()


def offer(found: Plan) -> str:
    """`layoutx.torch.GRU(gate_activation="hard_sigmoid_0.2")`: the class, and what decides its function."""
    form, sized = found.target.form, {key for key, _ in found.target.form.sizes}
    said = {k: v for k, v in found.target.config.items() if k in form.config and k not in sized and v != form.config[k]}
    words = ", ".join(f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in said.items())
    return f"{form.import_name}({words})" if words else form.import_name


def advised(error: LayoutxError, source: BoundForm, form: Form) -> LayoutxError:
    """A refusal of this form, with the module as its remedy where there is one."""
    found = None if form.by_class else module_for(source, form.framework)
    return error if found is None else doing(error, f"build the target with {offer(found)}")


def doing(error: LayoutxError, do: str) -> LayoutxError:
    """The same refusal with another remedy, said once."""
    if isinstance(error, Problems):
        last = len(error.problems) - 1
        return Problems([doing(p, do if i == last else "") for i, p in enumerate(error.problems)], error.what)
    return type(error)(error.what, where=error.where, why=error.why, do=do)
