"""`package.module:callable`: imported and called, the one place where layoutx runs the user's code to get a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layoutx.errors import ModelError, UsageError
from layoutx.words import near


def built(given: Any) -> Any:
    """What `package.module:callable` builds; anything else as it is."""
    callable_ = isinstance(given, str) and ":" in given and "://" not in given and not Path(given).exists()
    return call(given) if callable_ else given


def call(name: str) -> Any:
    """Import `package.module` and call its `callable`; the current folder is importable, as with `python -m`.

    Raises:
        UsageError: no such module or callable.
        ModelError: the callable itself failed, or gave None.
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
        raise UsageError(f"{name} cannot be imported", why=why, do=_remedy(module_name, attribute, error)) from error
    do = "call it in Python first: without arguments it has to give the model"
    try:
        model = found()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError(f"{name}() failed", why=why, do=do) from error
    if model is None:  # it would read as if nothing had been given
        raise ModelError(f"{name}() gave None, no model", do=do)
    return model


def no_class(model: Any) -> None:
    """Refuse a class in the place of a model: it has the methods of one.

    Raises:
        UsageError: with the call that makes a model.
    """
    if isinstance(model, type):
        raise UsageError(f"{model.__name__} is a class, not a model", do=f"give one of it: {model.__name__}(...)")


def _remedy(module: str, attribute: str, error: Exception) -> str:
    import sys

    if "/" in module or module.endswith(".py"):
        return (
            f"a module has dots and no ending: {module.removesuffix('.py').strip('./').replace('/', '.')}:{attribute}"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        home = error.name == module.partition(".")[0] or error.name == module
        look = f"run the command in the folder that holds {module.partition('.')[0]}, or name that in PYTHONPATH"
        return look if home else f"install {error.name}, which {module} imports"
    if isinstance(error, AttributeError) and module in sys.modules:
        names = [name for name, value in vars(sys.modules[module]).items() if callable(value)]
        alike = near(attribute, names)
        return f"give package.module:callable{f'; {alike}' if alike else ''}"
    return f"give package.module:callable; `import {module}` in Python shows where its code fails"
