"""A layer whose output differs, with everything that an explanation may change: its weights, config and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm


@frozen
class Suspect:
    """One pair of layers, run on the same data, that do not agree.

    Attributes:
        name: the layer's name in the source; place: in the target.
        source, target: both sides bound; the target with the config that the target's layer really has.
        weights: form tensor name -> array of the source; empty where only its activations are known.
        stored: form tensor name -> array that the target holds now.
        inputs: what went in, in canonical order (`layoutx.verify.data.canonical_data`).
        expected: what the source gave, in canonical order, its activation applied.
        found: what the target gave, in canonical order.
        last, refine: axis -> its dims in canonical order, and on the target's side.
        settings: setting -> value that the target computes with (epsilon, padding, activation); canonical words.
        facts: fact -> value that the target computes with.
        run: the target's layer with other weights and inputs in the real framework, where it can be run; else None,
            and the NumPy reference computes.
        after: what an edit does to the target's outputs before they are compared (states exchanged, time reversed).
        rounds: the weights of one side are computed from those of the other, and rounded: a folded norm, weight_norm.
    """

    name: str
    place: str
    source: BoundForm
    target: BoundForm
    weights: Mapping[str, Array]
    stored: Mapping[str, Array]
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    found: Mapping[str, Array]
    last: Mapping[str, str] = NOTHING
    refine: Mapping[str, str] = NOTHING
    settings: Mapping[str, Any] = NOTHING
    facts: Mapping[str, Any] = NOTHING
    run: Callable[[Mapping[str, Array], Mapping[str, Array]], Mapping[str, Array]] | None = None
    after: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None
    rounds: bool = False


@frozen
class Edit:
    """One known mistake, undone.

    Attributes:
        mode: the failure mode, "F3".
        family: edits of one family exclude each other ("gate order"); counts are said per family.
        what: what is wrong with the target, "its gates lie in the order i c f o; torch.LSTM reads i f g o".
        apply: the suspect with this mistake undone (weights, settings, facts or data changed; `found` untouched).
        option: the fix as a layoutx option or map line; code: the fix in the framework's own code.
        short: the state that the edit makes, "gates in the order i f g o", "eps 0.001".
        late: it only says which numbers are wrong, so that two edits that say why go before it.
        rare: nobody is known to have made it; tried alone, and in pairs after the others.
        solves: it works numbers out from the outputs, which it cannot before the other mistake is undone.
    """

    mode: str
    family: str
    what: str
    apply: Callable[[Suspect], Suspect]
    option: str = ""
    code: str = ""
    short: str = ""
    late: bool = False
    rare: bool = False
    solves: bool = False


@frozen
class Explanation:
    """One edit, or two together, that repair the output.

    Attributes:
        before, after: largest absolute difference without and with the edits.
        rivals: other edits of the same families that repair it as well (it is not unique then).
        tried: how many of the family were tried, the layer as it is among them; the same numbers count once.
        certain: the source's weights are known, and the edited numbers are these, bit for bit.
    """

    edits: tuple[Edit, ...]
    before: float
    after: float
    rivals: tuple[str, ...] = ()
    tried: int = 0
    certain: bool = False


@frozen
class Diagnosis:
    """What was found for one suspect; `explanations` is empty where none of the known mistakes explains it.

    Attributes:
        tried: how many states were tried; families: family -> how many single edits of it.
        next_best: the smallest difference that a state which does not fit leaves.
    """

    suspect: Suspect
    explanations: tuple[Explanation, ...]
    tried: int
    next_best: float = float("nan")
    note: str = ""
    families: Mapping[str, int] = NOTHING
