"""`lx.report`: a result as one HTML file, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.diagnosis import WholeDiagnosis
from layoutx.errors import UsageError
from layoutx.files.guarded import intact
from layoutx.history.frames import is_history
from layoutx.history.reader import Recorded, read
from layoutx.inspect import inspect
from layoutx.page import comparison, conversion, health, model, training
from layoutx.page.document import Section, check_page, document
from layoutx.page.html import Html
from layoutx.page.model import Told
from layoutx.page.table import answer_of
from layoutx.report import Report
from layoutx.show.views import ModelView
from layoutx.spec.registry import registry
from layoutx.stats import stats
from layoutx.validation import Validation


@intact()
def report(
    result: Any,
    path: str | PathLike[str],
    *,
    model: Any = None,
    specs: Sequence[str | PathLike[str]] = (),
) -> Path:
    """Write one HTML page that needs nothing else: no network, no other file.

    Args:
        result: what `lx.inspect`, `lx.convert`, `lx.port`, `lx.validate`, `lx.diagnose` gave, or a history; a file or
            a live model is inspected.
        path: the page. model: the source of a conversion or comparison, a file or live: its tensors are shown too.
        specs: more spec folders.

    Raises:
        UsageError: a result that has no page, a place where no file can go, or a name that is not one of a page.
    """
    from layoutx.files.atomic import replacing

    check_page(Path(path))
    text = page(result, model, specs)
    with replacing(Path(path)) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    return Path(path)


def page(result: Any, source: Any = None, specs: Sequence[str | PathLike[str]] = ()) -> str:
    """The text of the page; see `report`."""
    known = registry(specs)
    if is_history(result):
        result = read(result)
    if not _is_result(result):
        result = inspect(result, specs=specs)
    view = result if isinstance(result, ModelView) else inspect(source, specs=specs) if source is not None else None
    title, answer, parts, told = _told(result)
    layers = list(model.sections(view, known, told)) if view is not None else []
    return document(title, answer, [*parts, *layers], model.tree(view) if view is not None else None)


def _is_result(result: Any) -> bool:
    return isinstance(result, (ModelView, Report, Validation, WholeDiagnosis, Recorded))


def _told(result: Any) -> tuple[str, list[Html], list[Section], Told]:
    """Title, answer and sections of a result, and what it says of each layer."""
    if isinstance(result, ModelView):
        found = stats(result)
        return result.file or "a live model", model.answer(result), list(health.sections(found)), health.told(found)
    if isinstance(result, Recorded):
        return result.path.name, answer_of(result), list(training.sections(result)), Told()
    if isinstance(result, Report):
        title = f"{result.source.get('file') or 'a live model'} to {Path(result.output).name or result.target}"
        return title, answer_of(result), list(conversion.sections(result)), conversion.told(result)
    if isinstance(result, WholeDiagnosis):
        title, _, parts, told = _told(result.validation)
        return title, answer_of(result), [*comparison.reasons(result), *parts], told
    if isinstance(result, Validation):
        names = [side.get("name") or "a live model" for side in (result.source, result.target)]
        return " and ".join(names), answer_of(result), list(comparison.sections(result)), comparison.told(result)
    raise UsageError(f"a {type(result).__name__} has no page")
