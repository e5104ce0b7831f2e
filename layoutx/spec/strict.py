"""YAML without surprises: duplicate keys, `on/off/yes/no`, `1e-3` and anchors are errors with their line.

PyYAML keeps the last of two equal keys, reads `no` as false and `1e-3` as text: each of these would
quietly change what a spec says, so each is refused here.
"""

from __future__ import annotations

import math
import re
from typing import Any

from layoutx.errors import SpecError

_MAY_ANCHOR = re.compile(r"(?:^|[\s\[{,:])[&*][^\s]", re.MULTILINE)  # parsing twice costs a third of the load
_LOOKS_LIKE_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


class Lines(dict[str, Any]):
    """A mapping that remembers the line of each key and of itself."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


def load_yaml(text: str, name: str) -> Lines:
    """Read one YAML document whose top level is a mapping.

    Args:
        text: the document.
        name: what errors call it, usually the file's path.

    Raises:
        SpecError: with `name:line`.
    """
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there: ten times as fast
        for event in yaml.parse(text, Loader=loader) if _MAY_ANCHOR.search(text) else ():
            if getattr(event, "anchor", None):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SpecError("anchors and aliases are not used in specs", where=f"{name}:{line}")
        node = yaml.compose(text, Loader=loader)
        value = _build(node, name) if isinstance(node, yaml.MappingNode) else None
    except RecursionError as error:
        raise SpecError("brackets are nested too deeply", where=f"{name}:1") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SpecError(f"not YAML: {getattr(error, 'problem', None) or error}", where=f"{name}:{line}") from error
    if not isinstance(value, Lines):
        raise SpecError("a spec file is a mapping that starts with `kind:`", where=f"{name}:1")
    return value


def _build(node: Any, name: str) -> Any:
    import yaml

    where = f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, where)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, name) for item in node.value]
    built = Lines(node.start_mark.line + 1)
    for key_node, value_node in node.value:
        key_where = f"{name}:{key_node.start_mark.line + 1}"
        key = _scalar(key_node, key_where) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise SpecError("a key is a plain word", where=key_where, do="put it in quotes")
        key = str(key)
        if key in built:
            raise SpecError(f"the key {key!r} stands twice", where=key_where, why=f"first on line {built.lines[key]}")
        built[key] = _build(value_node, name)
        built.lines[key] = key_node.start_mark.line + 1
    return built


def _scalar(node: Any, where: str) -> Any:
    text = str(node.value)
    kind = node.tag.rsplit(":", 1)[-1]
    if node.style in ("'", '"', "|", ">"):
        return text
    if kind == "bool":
        if text not in ("true", "false"):
            raise SpecError(
                f"{text} without quotes is a boolean in YAML", where=where, do=f'write "{text}", or true/false'
            )
        return text == "true"
    if kind == "int":
        if not re.fullmatch(r"[-+]?\d{1,4000}", text) or (
            text.lstrip("-+").startswith("0") and len(text.lstrip("-+")) > 1
        ):
            raise SpecError(
                f"{text} is read as another number by YAML", where=where, do="write it in decimal, or in quotes"
            )
        return int(text)
    if kind == "float":
        value = float(text.replace("_", "")) if re.fullmatch(r"[-+\d._eE]+", text) else math.nan
        if not math.isfinite(value):
            raise SpecError(f"{text} is not a number that a spec can use", where=where)
        return value
    if kind == "null":
        return None
    if kind == "str":
        if _LOOKS_LIKE_NUMBER.match(text):
            raise SpecError(
                f"{text} is text to YAML, not a number", where=where, do=f"write {float(text)!r}, or quotes"
            )
        return text
    raise SpecError(f"YAML reads {text} as a {kind}", where=where, do="put it in quotes")
