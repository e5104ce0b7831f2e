"""`package.module:callable`: imported and called, the one place where layoutx runs the user's code to get a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layoutx.errors import ModelError, UsageError


def built(given: Any) -> Any:
    """What `package.module:callable` builds; anything else as it is."""
    callable_ = isinstance(given, str) and ":" in given and "://" not in given and not Path(given).exists()
    return call(given) if callable_ else given


def call(name: str) -> Any:
    """Import `package.module` and call its `callable`; the current folder is importable, as with `python -m`.

    Raises:
        UsageError: no such module or callable.
        ModelError: the callable itself failed.
    """
    import importlib
    import sys

    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module's own code ran
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"{name} cannot be imported", why=why, do="give package.module:callable") from error
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise ModelError(f"{name}() failed", why=f"{type(error).__name__}: {error}") from error
