"""layoutx moves trained weights between deep-learning frameworks and proves that they compute the same thing.

Everything here loads when it is first asked for: `import layoutx` alone imports no other package.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layoutx import version as _version

if TYPE_CHECKING:
    from layoutx.api import forward as forward
    from layoutx.api import plan as plan
    from layoutx.blend import blend as blend
    from layoutx.blend import blender as blender
    from layoutx.convert import convert as convert
    from layoutx.diagnose import diagnose as diagnose
    from layoutx.diff import diff as diff
    from layoutx.errors import BindError as BindError
    from layoutx.errors import ConsentError as ConsentError
    from layoutx.errors import ConversionError as ConversionError
    from layoutx.errors import FileError as FileError
    from layoutx.errors import LayoutxError as LayoutxError
    from layoutx.errors import MatchError as MatchError
    from layoutx.errors import ModelError as ModelError
    from layoutx.errors import Problems as Problems
    from layoutx.errors import SizeError as SizeError
    from layoutx.errors import UsageError as UsageError
    from layoutx.errors import VerificationError as VerificationError
    from layoutx.errors import WorkerError as WorkerError
    from layoutx.explain import explain as explain
    from layoutx.history.writer import History as History
    from layoutx.inspect import inspect as inspect
    from layoutx.match import match as match
    from layoutx.page.write import report as report
    from layoutx.port import port as port
    from layoutx.record import record as record
    from layoutx.relate import relate as relate
    from layoutx.report import Report as Report
    from layoutx.spec.registry import registry as registry
    from layoutx.transfer import transfer as transfer
    from layoutx.validate import validate as validate
    from layoutx.verified import verify_file as verify_file

__version__ = _version.VERSION

_HOME = {
    "blend": "layoutx.blend",
    "blender": "layoutx.blend",
    "convert": "layoutx.convert",
    "diagnose": "layoutx.diagnose",
    "diff": "layoutx.diff",
    "explain": "layoutx.explain",
    "History": "layoutx.history.writer",
    "match": "layoutx.match",
    "port": "layoutx.port",
    "record": "layoutx.record",
    "plan": "layoutx.api",
    "forward": "layoutx.api",
    "inspect": "layoutx.inspect",
    "registry": "layoutx.spec.registry",
    "relate": "layoutx.relate",
    "report": "layoutx.page.write",
    "transfer": "layoutx.transfer",
    "validate": "layoutx.validate",
    "verify_file": "layoutx.verified",
    "Report": "layoutx.report",
    "BindError": "layoutx.errors",
    "ConsentError": "layoutx.errors",
    "ConversionError": "layoutx.errors",
    "FileError": "layoutx.errors",
    "LayoutxError": "layoutx.errors",
    "MatchError": "layoutx.errors",
    "ModelError": "layoutx.errors",
    "Problems": "layoutx.errors",
    "SizeError": "layoutx.errors",
    "UsageError": "layoutx.errors",
    "VerificationError": "layoutx.errors",
    "WorkerError": "layoutx.errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":  # lx.errors.MatchError, before a call has imported it
        return import_module("layoutx.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'layoutx' has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])


class _Package(ModuleType):
    """Keeps `layoutx.convert` the function: an import of the module of that name would put itself in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
