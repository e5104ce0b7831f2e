"""Which of an attention's modules projects to what, as their names say: query, wq, to_k, v_proj."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PROJECTS = re.compile(r"(?:^|_)(?:w|to)?_?([qkv])(?:uer(?:y|ies)|eys?|als?|alues?)?(?:$|_|proj)")


def in_words(run: Sequence[str], slots: Sequence[str], ordered: bool) -> list[str]:
    """Consecutive modules in the order of the slots that they fill; [] where their names speak against it.

    Args:
        slots: what a form calls its modules: q_proj, k_proj, v_proj, out_proj; others are filled in order.
        ordered: the modules stand in the order of their model; a sorted file says nothing where names do not.
    """
    wanted = [projects(slot) for slot in slots]
    if not any(wanted):
        return list(run)
    letters = [projects(path.rpartition(".")[2]) for path in run]
    if letters == wanted or (ordered and not any(letters)):
        return list(run)
    if sorted(letters) != sorted(wanted) or len({path.rpartition(".")[0] for path in run}) != 1:
        return []
    named = dict(zip(letters, run, strict=True))
    return [named[letter] for letter in wanted]


def projects(name: str) -> str:
    """`q` of query, q_proj, wq and to_q; "" where a name does not say what it projects to."""
    found = _PROJECTS.search(name.lower())
    return found[1] if found else ""
