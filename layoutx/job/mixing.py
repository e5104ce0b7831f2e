"""Target <- tau * source + (1 - tau) * target, in place: each tensor by its plan, torch's own memory without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.job.slots import Slot
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import consent, run
from layoutx.plan.steps import Copy, Fill, Guard, Loop, Step
from layoutx.plan.views import view


@frozen
class Mix:
    """What happens to one tensor of the target.

    Attributes:
        name: in the target. slot: its form's name. copies: the source's numbers replace it, whatever tau is.
        steps: of the plan, for this tensor. sources: of the layer, by form tensor name.
        direct: its steps only move and fill, and nothing of the layer is guarded.
    """

    name: str
    slot: str
    target: Slot
    sources: dict[str, Slot]
    plan: Plan
    steps: tuple[Step, ...]
    copies: bool
    direct: bool


def mix_of(plan: Plan, slot: str, name: str, target: Slot, sources: dict[str, Slot], copies: bool) -> Mix:
    """The steps for one tensor of the target."""
    steps = tuple(step for step in plan.steps if getattr(step, "target", None) == slot)
    plain = all(isinstance(step, Fill) or (isinstance(step, Copy) and not step.negate) for step in steps)
    guarded = any(isinstance(step, Guard) for step in plan.steps)
    cut = any(tensor.cut for tensor in (*plan.source.tensors, *plan.target.tensors))
    return Mix(name, slot, target, sources, plan, steps, copies, plain and not guarded and not cut)


def mixed(mix: Mix, tau: float, allow: frozenset[str]) -> None:
    """Blend one tensor through NumPy: computed in float32 or wider, rounded once to the target's dtype.

    Raises:
        ConversionError: the source holds values that the target has no place for.
        ConsentError: it is so only because of the values, and that was not allowed.
    """
    weight = 1.0 if mix.copies else tau
    out = np.ascontiguousarray(mix.target.read())
    flat = out.reshape(-1)
    if not mix.direct:
        result = run(mix.plan, {name: slot.look() for name, slot in mix.sources.items()})
        consent(mix.plan, result, allow | {"rounds"})
        _into(flat, result.tensors[mix.slot].reshape(-1), weight)
    sources: dict[str, Array] = {}
    for step in mix.steps if mix.direct else ():
        assert isinstance(step, (Copy, Fill))
        there = view(flat, step.target_offset, [(loop.size, loop.target) for loop in step.loops])
        if isinstance(step, Fill):
            _into(there, np.full(there.shape, step.value, out.dtype), weight)
            continue
        if step.source not in sources:
            sources[step.source] = np.ascontiguousarray(mix.sources[step.source].look()).reshape(-1)
        here = view(sources[step.source], step.source_offset, [(loop.size, loop.source) for loop in step.loops])
        _into(there, here, weight)
    mix.target.write(out)


def _into(there: Array, here: Array, tau: float) -> None:
    """there <- there + tau (here - there), by the formula of torch's lerp: exact at both ends."""
    if tau == 1.0:
        there[...] = here.astype(there.dtype, copy=False)
        return
    wide = np.promote_types(np.float32 if there.dtype.itemsize < 8 else np.float64, _wide(here))
    old, new = there.astype(wide), here.astype(wide)
    amount = wide.type(tau)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = new - old
        found = old + amount * apart if tau < 0.5 else new - apart * (wide.type(1) - amount)
        there[...] = found.astype(there.dtype)


def _wide(array: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 4 else np.float32)


class TorchMixes:
    """Tensors that both lie in torch's memory, row by row: views of both, made once and blended where they lie."""

    def __init__(self, mixes: Sequence[Mix]) -> None:
        self.mixes = tuple(mixes)
        used = {id(slot.variable): slot.variable for m in mixes for slot in (m.target, *m.sources.values())}
        self.watched = tuple(used.values())
        self._look()

    def _look(self) -> None:
        self.places = tuple(tensor.data_ptr() for tensor in self.watched)
        self.blends: list[tuple[Any, Any]] = []
        self.copies: list[tuple[Any, Any]] = []
        for mix in self.mixes:
            target = mix.target.variable.detach()
            for step in mix.steps:
                assert isinstance(step, Copy)
                here = mix.sources[step.source].variable.detach()
                there = _strided(target, step.target_offset, step.loops, "target")
                pair = (there, _strided(here, step.source_offset, step.loops, "source"))
                (self.copies if mix.copies else self.blends).append(pair)

    def __call__(self, tau: float) -> None:
        """Blend all of them."""
        import torch

        if any(tensor.data_ptr() != place for tensor, place in zip(self.watched, self.places, strict=True)):
            self._look()  # moved to another device, or to other memory
        with torch.no_grad():
            for there, here in self.copies:
                there.copy_(here)
            for there, here in self.blends:
                if tau == 1.0:
                    there.copy_(here)
                else:
                    there.lerp_(here, tau)


def _strided(tensor: Any, offset: int, loops: Sequence[Loop], side: str) -> Any:
    sizes = [loop.size for loop in loops]
    return tensor.as_strided(sizes, [getattr(loop, side) for loop in loops], tensor.storage_offset() + offset)


def in_torch(mix: Mix) -> bool:
    """Whether a tensor can be blended in torch's own memory."""
    slots = (mix.target, *mix.sources.values())
    if not mix.direct or not all(slot.torch for slot in slots):
        return False
    target = mix.target.variable
    used = [mix.sources[step.source].variable for step in mix.steps if isinstance(step, Copy)]
    return (
        len(used) == len(mix.steps)
        and all(min(loop.target, loop.source) >= 0 for step in mix.steps for loop in _loops(step))
        and all(one.is_contiguous() for one in (target, *used))
        and all(one.dtype == target.dtype and one.device == target.device for one in used)
        and target.dtype.is_floating_point | mix.copies
    )


def _loops(step: Step) -> Sequence[Loop]:
    return step.loops
