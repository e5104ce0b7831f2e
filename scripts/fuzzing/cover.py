"""Which lines of layoutx were reached: a trace that grows cheaper as less is left to reach."""

from __future__ import annotations

from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = str(Path(__file__).resolve().parents[2] / "layoutx")


class Lines:
    """Set as `sys.settrace(lines.call)`; `fresh` is true once a line was reached for the first time."""

    def __init__(self) -> None:
        self.left: dict[CodeType, set[int]] = {}
        self.reached = 0
        self.fresh = False

    def call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        left = self.left.get(code)
        if left is None:
            own = code.co_filename.startswith(PACKAGE)
            left = self.left[code] = (
                {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno} if own else set()
            )
        return self.line if left else None

    def line(self, frame: FrameType, event: str, arg: Any) -> Any:
        left = self.left[frame.f_code]
        if frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.reached += 1
            self.fresh = True
        return self.line
