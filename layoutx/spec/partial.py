"""Sizes of a layer of which only some arrays are known: the kernel alone says how long the bias is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.errors import BindError
from layoutx.spec.draft import aliases_of, drafts_of, labels_of, rank_of, resolved, spatial_of
from layoutx.spec.schema import Form, Kind
from layoutx.spec.sizing import open_of, sizes_of


def sizes_from(
    kind: Kind, form: Form, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Axis -> length, from the shapes of some of the form's tensors.

    Raises:
        BindError: a tensor that the form does not have; sizes that nothing determines.
        SizeError: shapes that contradict each other.
    """
    full = {**form.config, **config}
    labels = labels_of(kind, form, full)
    drafts = drafts_of(kind, form, full, labels, {}, None, ())
    known = [draft.name for draft in drafts]
    wrong = [name for name in shapes if name not in known]
    if wrong:
        raise BindError(f"{form.name} has no tensor {', '.join(wrong)}", why=f"with this config: {', '.join(known)}")
    spatial = spatial_of(kind, rank_of(kind, form, full, drafts, shapes, sizes))
    drafts = [resolved(draft, spatial, labels, aliases_of(kind), {}) for draft in drafts]
    layer = open_of(kind, form, full, drafts, spatial, {})
    return sizes_of(form, full, config, layer, shapes, dict(sizes))
