"""What was found out about two models as a `Validation`: names, folded norms, what was not compared and why."""

from __future__ import annotations

from typing import Any

from layoutx.job.joined import Joint
from layoutx.job.traded import said
from layoutx.model.tree import name_of
from layoutx.report import GUESSED
from layoutx.validation import Validation
from layoutx.verify.compare.both import Both
from layoutx.verify.compare.layers import sides_of
from layoutx.verify.compare.limits import OPEN
from layoutx.verify.compare.stacks import title
from layoutx.verify.diagnose.crossed import Owner
from layoutx.verify.recording import Recording
from layoutx.verify.running.opened import Runner
from layoutx.words import listed


def about(runner: Runner, recording: Recording | None, given: Any) -> dict[str, str]:
    """What a model is called, whose it is, and what it computed in."""
    name = name_of(given)
    if recording is None:
        return {"name": name, "framework": runner.framework, "version": "", "dtype": ""}
    return {
        "name": name,
        "framework": recording.framework,
        "version": recording.version,
        "dtype": recording.dtype,
    }


def validation(found: Both, joined: Joint, first: Runner, second: Runner, given: tuple[Any, Any]) -> Validation:
    """All that was found out; given: the two models as the user gave them."""
    checks = [check for one in found.looked for check in one.checks]
    open_ = {name: f"could be any of {', '.join(names)}: none was chosen" for name, names in joined.open.items()}
    lost = {**joined.lost, **open_, **joined.skipped}
    evidence = {name: made for one in found.looked for name, made in one.suspects.items()}
    folded = {norm for norm in joined.folded if any(norm in pair.source.parts for pair in joined.pairs)}
    bare = "tf1" in (first.framework, second.framework)  # variables and their names alone
    seen = {c.layer.rpartition(".")[0] if _halved(c.layer) else c.layer for c in checks if c.verdict != OPEN}
    return Validation(
        about(first, found.runs.source, given[0]),
        about(second, found.runs.target, given[1]),
        tuple(checks),
        found.gaps,
        tuple(sides_of(found.outputs)),
        len(joined.pairs) + len(lost) + len(folded),
        len(seen) + len(folded),
        lost,
        dict(joined.unused),
        (*_folds(joined), *said(joined), *found.notes),
        fed=tuple(run.inputs for run in (found.runs.source, found.runs.target) if run is not None),
        bounds=tuple((title(p.source), title(p.target), p.source.bound, p.target.bound) for p in joined.pairs),
        evidence=evidence,
        behind=found.behind,
        owners={
            title(p.source): Owner(title(p.target), p.source.bound, p.source.tensors, p.plan, p.target.tensors)
            for p in joined.pairs
        },
        called=tuple(dict.fromkeys(call.layer for call in found.runs.target.calls)) if found.runs.target else (),
        unsaid=frozenset(title(p.source) for p in joined.pairs if bare or p.record.note.startswith(GUESSED)),
    )


def _folds(joined: Joint) -> tuple[str, ...]:
    """What is to be said of batch norms that one model has folded."""
    if not joined.folded:
        return ()
    whose = "target" if any(pair.source.parts for pair in joined.pairs) else "source"
    names = [f"{norm} into {conv}" for norm, conv in joined.folded.items()]
    many = f"{len(names)} batch norms are" if len(names) > 1 else "1 batch norm is"
    each = "compared as one layer, after the norm"
    told = f"{many} folded into the convolution before them in the {whose} ({listed(names)}): {each}"
    return (told, *joined.other_eps.values())


def _halved(name: str) -> bool:
    return name.endswith((".forward", ".backward"))
