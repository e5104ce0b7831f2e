"""What the certificate of a file says of its layers: which tensors are one, and in which form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from layoutx.empty import NOTHING
from layoutx.files.certificate import certificate_of, made_for
from layoutx.files.store import Store, Tensor
from layoutx.model.spelling import PARAMS, STATS
from layoutx.spec.guess import Guess

Noted = Mapping[str, tuple[int, str]]  # the file's name of a tensor -> which layer has it, and the layer's form
NOTED = "noted"  # in the certificate of a file made anew for its own framework: the layers as its source had them
WHY = "the file's certificate"


def noted_of(store: Store | None, framework: str) -> Noted:
    """What a file of this framework says of its tensors; nothing of those that several layers share.

    A certificate is a stranger's text: it decides between forms that fit, and gives none that does not.
    """
    certificate = certificate_of(store) if store is not None else None
    layers = (certificate.get(NOTED) or certificate.get("layers")) if certificate is not None else None
    if store is None or not isinstance(layers, list) or made_for(store) != framework:
        return NOTHING
    found: dict[str, tuple[int, str]] = {}
    brief: dict[str, tuple[int, str]] = {}
    shared: set[str] = set()
    for number, layer in enumerate(layers):
        said = layer if isinstance(layer, dict) else {}
        form, tensors = said.get("target"), said.get("tensors")
        if isinstance(form, str) and isinstance(tensors, dict):
            shared |= found.keys() & tensors.keys()
            found |= dict.fromkeys(tensors, (number, form))
        elif isinstance(form, str) and isinstance(said.get("name"), str):
            brief[said["name"]] = (number, form)
    found |= _below(store.tensors, brief)
    return {name: one for name, one in found.items() if name not in shared}


def _below(names: Iterable[str], layers: Mapping[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Each tensor with the innermost layer that it lies below: of many layers a certificate tells the names alone."""
    found = {}
    for name in names if layers else ():
        parts = name.replace("/", ".").split(".")
        parts = parts[1:] if parts[0] in (PARAMS, STATS) else parts
        paths = [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
        own = next((path for path in paths if path in layers), None)
        if own is not None:
            found[name] = layers[own]
    return found


def apart(tensors: Iterable[Tensor], noted: Noted) -> bool:
    """Whether tensors that could be one layer were written as several."""
    return len({noted[tensor.name][0] for tensor in tensors if tensor.name in noted}) > 1


def decided(found: list[Guess], tensors: Iterable[Tensor], noted: Noted) -> list[Guess]:
    """Of the forms that fit, the one that the tensors were written in; all of them where that is not said."""
    said = {noted.get(tensor.name) for tensor in tensors}
    form = next(iter(said)) if len(said) == 1 else None
    own = [g for g in found if form is not None and g.form == form[1]]
    return [replace(g, why=WHY) for g in own] if own and len(own) < len(found) else found
