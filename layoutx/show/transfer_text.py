"""A transfer as a terminal shows it, the answer first: copied, kept, not taken; and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layoutx.show.report_text import layer_dict
from layoutx.show.tables import Cell, Line, clean, grid, plural, prose, row
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.blend import Blender
    from layoutx.transferred import Copied, Transfer

MOST = 8


def as_dict(found: Transfer) -> dict[str, Any]:
    """Everything a transfer knows, as JSON."""
    return {
        "sources": list(found.sources),
        "frameworks": list(found.frameworks),
        "target": found.target,
        "framework": found.framework,
        "output": found.output,
        "copied": [
            {"source": one.source, "layer": one.layer, "place": one.place, "keys": list(one.keys),
             **layer_dict(one.line)}
            for one in found.copied
        ],
        "kept": dict(found.kept),
        "untaken": {name: dict(own) for name, own in found.untaken.items()},
        "dropped": dict(found.dropped),
        "tied": dict(found.tied),
        "largest": found.largest,
    }  # fmt: skip


def as_text(found: Transfer, width: int, color: bool) -> str:
    """The whole transfer."""
    head = ["layer", "from", "tensors", "exact", "proof"]
    parts = [
        "\n".join(prose(line, width, color, style) for line, style in _answer(found)),
        grid(head, _rows(found), width, color),
        *_accounts("kept", f"{found.target} kept its own", found.kept, width, color),
        *_accounts("not written", f"what {found.target} has beside its weights", found.dropped, width, color),
    ]
    for name, own in found.untaken.items():
        parts += _accounts("not taken", f"of {name}", own, width, color)
    return "\n\n".join(part for part in parts if part)


def _answer(found: Transfer) -> Iterator[tuple[str, str]]:
    sources = ", ".join(map(clean, found.sources))
    where = clean(Path(found.output).name) if found.output else f"{clean(found.target)}, in place"
    proved = sum(one.line.proof.largest is not None for one in found.copied)
    shown = "each computes the same" if proved == len(found.copied) else f"{proved} of them shown to compute the same"
    yield f"{sources} → {where}: {plural(len(found.copied), 'layer')} copied, {shown}.", "head"
    untaken = sum(map(len, found.untaken.values()))
    total = len(found.keys) + len(found.kept) + len(found.dropped)
    yield (
        f"{len(found.keys)} of {total} tensors of the target written, {len(found.kept)} kept; "
        + (f"{plural(untaken, 'tensor')} of the {'sources' if len(found.sources) > 1 else 'source'} not taken"),
        "dim",
    )


def _rows(found: Transfer) -> Iterator[Line]:
    several = len(found.sources) > 1
    for one in found.copied:
        origin = f"{clean(one.source)}, {clean(one.layer)}" if several else clean(one.layer)
        texts = "\n".join(clean(tensor.text) for tensor in one.line.tensors)
        yield row(clean(one.place), origin, texts, Cell(one.line.exactness, one.line.exactness), _proof(one))


def _proof(one: Copied) -> str:
    proof = one.line.proof
    if proof.largest is None:
        return clean(proof.note, 60) or "not computed"
    return f"{proof.method.partition(',')[0]} {proof.largest:.1g}"


def _accounts(what: str, whose: str, reasons: Mapping[str, str], width: int, color: bool) -> list[str]:
    """Each reason with the keys that it holds for."""
    if not reasons:
        return []
    groups: dict[str, list[str]] = {}
    for name, why in reasons.items():
        groups.setdefault(why, []).append(name)
    lines = [prose(f"{what}: {plural(len(reasons), 'tensor')} ({clean(whose)})", width, color, "head")]
    for why, names in groups.items():
        shown = listed([*map(clean, names)], MOST)
        lines.append(prose(f"{clean(why, 300)}: {shown}", width, color, indent=2))
    return ["\n".join(lines)]


def blend_text(found: Blender, width: int, color: bool) -> str:
    """What a blender does to every tensor of the target, and what it does not use of the source."""
    total = len(found.mixes) + len(found.kept)
    line = f"{len(found.blended)} of {total} tensors of the target move by tau; copied: {len(found.copied)}"
    parts = [prose(f"{line}, kept: {len(found.kept)}.", width, color, "head")]
    parts += _accounts("blended", "target <- tau source + (1 - tau) target", _by(found.blended), width, color)
    parts += _accounts("copied", "whatever tau is, unless it is 0", _by(found.copied), width, color)
    parts += _accounts("kept", "the target's own", found.kept, width, color)
    parts += _accounts("not taken", "of the source", found.untaken, width, color)
    return "\n\n".join(part for part in parts if part)


def _by(made: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Grouped by what they are made of: `kernel, bias` of the source's layer."""
    return {name: f"from {', '.join(own)}" for name, own in made.items()}
