"""A diagnosis put to the test: its repairs written into the target, and the two models compared once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.job.slots import slots_of
from layoutx.model.keras_live import is_keras
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.validation import Validation
from layoutx.verify.compare.held import HOW
from layoutx.verify.compare.limits import OPEN, ROUNDED
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.crossed import Owner
from layoutx.verify.diagnose.suspect import Diagnosis
from layoutx.verify.plain import is_torch

Stored = Mapping[tuple[str, str], Array]  # (source layer, form tensor) -> what the target should hold


@frozen
class Mended:
    """The target with its repairs.

    Attributes:
        layers: whose repairs were tried: all that change nothing but stored numbers.
        after: the comparison with them.
        before: the comparison without them.
    """

    layers: tuple[str, ...]
    after: Validation
    before: Validation

    @property
    def ok(self) -> bool:
        """Whether the models then compute the same, as far as the target can store the repaired numbers."""
        checks = (*self.after.checks, *self.after.end_to_end)
        same = all(check.ok or self._stored(check) for check in checks)
        return bool(self.after.end_to_end) and same and not self.after.gaps

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What lies between layers and showed only then."""
        return _but(self.after.gaps, self.before.gaps)

    @property
    def gone(self) -> tuple[Gap, ...]:
        """What lay between layers without them, and does not any more."""
        return _but(self.before.gaps, self.after.gaps)

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the repairs: the models agree, or what is left was there before."""
        wrong = {check.layer for check in self.after.checks if not check.ok and not self._stored(check)}
        left = (wrong & self.after.evidence.keys()) - (self.before.evidence.keys() - {*self.layers})
        unseen = not self.ok and not self.after.gaps and not self.after.evidence
        return not (self.gaps or left or unseen)

    def _stored(self, check: Check) -> bool:
        """Whether a repaired layer is right but for float32's rounding: one added to a bias took its last bits."""
        return check.layer in self.layers and check.relative is not None and check.relative <= ROUNDED


def _but(gaps: Sequence[Gap], known: Sequence[Gap]) -> tuple[Gap, ...]:
    spots = {gap.spot for gap in known}
    return tuple(gap for gap in gaps if gap.spot not in spots)


def mended(
    found: Validation, layers: Sequence[Diagnosis], model: Any, compared: Callable[[Any], Validation]
) -> Mended | None:
    """Compare the models with the repairs of the first explanation of each layer; None where nothing can be tried.

    Args:
        found: the comparison that the diagnosis explains. model: the target, a live torch module or Keras model.
        compared: compares the source with another target.
    """
    stored: dict[tuple[str, str], Array] = {}
    tried = []
    for one in layers:
        changed = _repaired(one, found.owners)
        if changed:
            tried.append(one.suspect.name)
            stored |= {(one.suspect.name, name): array for name, array in changed.items()}
    return _compared(found, tried, stored, model, compared)


def numbered(found: Validation, model: Any, compared: Callable[[Any], Validation]) -> Mended | None:
    """The same with the source's numbers in every parameter of the target that only the model's own code uses."""
    stored: dict[tuple[str, str], Array] = {}
    loose = [check for check in found.checks if check.verdict == OPEN and check.how == HOW]
    for check in loose if not found.ok else ():
        owner = found.owners.get(check.layer)
        if owner is None or owner.plan is None:
            continue
        with suppress(LayoutxError):
            goal = run(owner.plan, {name: tensor.read() for name, tensor in owner.tensors.items()}).tensors
            fits = all(name in owner.held and owner.held[name].shape == array.shape for name, array in goal.items())
            stored |= {(check.layer, name): array for name, array in goal.items() if fits}
    return _compared(found, list(dict.fromkeys(layer for layer, _ in stored)), stored, model, compared)


def _compared(
    found: Validation, tried: Sequence[str], stored: Stored, model: Any, compared: Callable[[Any], Validation]
) -> Mended | None:
    if not tried:
        return None
    try:
        with _written(model, stored, found.owners) as other:
            return Mended(tuple(tried), compared(other), found) if other is not None else None
    except LayoutxError:  # what does not run, or cannot be copied, was not tried
        return None


def doubted(one: Diagnosis) -> Diagnosis:
    """The same where the target's own run spoke against it: nothing is certain then."""
    return replace(one, explanations=tuple(replace(found, certain=False) for found in one.explanations))


def _repaired(one: Diagnosis, owners: Mapping[str, Owner]) -> dict[str, Array]:
    """The tensors that the explanation of a layer changes; {} where it changes anything else, or they have no place."""
    start = state = one.suspect
    if not one.explanations or start.name not in owners:
        return {}
    try:
        for edit in one.explanations[0].edits:
            state = edit.apply(state)
    except (LayoutxError, ValueError, IndexError, KeyError, TypeError):
        return {}
    same = all(getattr(state, name) is getattr(start, name) for name in ("settings", "facts", "inputs", "after"))
    changed = {name: array for name, array in state.stored.items() if array is not start.stored.get(name)}
    held = owners[start.name].held
    fits = all(name in held and held[name].shape == array.shape for name, array in changed.items())
    return changed if same and state.target is start.target and fits else {}


@contextmanager
def _written(model: Any, stored: Stored, owners: Mapping[str, Owner]) -> Iterator[Any]:
    """The target with these numbers: of torch a copy; a Keras model itself, which has its own again afterwards."""
    if is_torch(model) and hasattr(model, "state_dict"):
        from layoutx.verify.running.torch_run import copied

        model = copied(model)
    elif not is_keras(model):
        yield None
        return
    tensors = {key: owners[key[0]].held[key[1]] for key in stored}
    slots = slots_of(model, {tensor.name: tensor.part for tensor in tensors.values() if tensor.part is not None})
    if any(tensor.name not in slots for tensor in tensors.values()):
        yield None
        return
    old = {tensor.name: slots[tensor.name].read() for tensor in tensors.values()}
    try:
        for key, array in stored.items():
            slots[tensors[key].name].write(array.astype(slots[tensors[key].name].dtype))
        yield model
    finally:
        for name, array in old.items():
            slots[name].write(array)
