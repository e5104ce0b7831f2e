"""One planted mistake: a model that is right, one that has the mistake, and how a diagnosis of the two is judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch

import layoutx as lx
from layoutx.diagnose import diagnose
from layoutx.diagnosis import WholeDiagnosis

Array = np.ndarray[Any, Any]
Made = tuple[Any, ...]  # source, target, inputs in the source's axis order; weights of a recorded source
REPAIRED = 1e-9  # relative to the largest expected value
FLOAT32 = 1e-6  # the same where TensorFlow rounds a constant to float32 in a float64 model: slopes, gelu, bilinear


@dataclass(frozen=True)
class Case:
    """A mistake in a model.

    Attributes:
        mode: the failure mode that is planted; name: what was done, in a few words.
        where: the layer that has it, or several (a|b); "" between layers, or nowhere in particular.
        make: builds both models.
        also: other modes that name the same fact.
        told: the mistake shows at training only: a remark names it, and nothing else is found.
        limit: relative difference that counts as repaired.
        many: how many faults are planted.
    """

    mode: str
    name: str
    where: str
    make: Callable[[], Made]
    also: tuple[str, ...] = ()
    told: bool = False
    limit: float = REPAIRED
    many: int = 1

    def __str__(self) -> str:
        return f"{self.mode} {self.name}"


@dataclass(frozen=True)
class Verdict:
    """How a diagnosis did: the mistake was found, named rightly, repaired; the seconds it took."""

    case: Case
    found: bool
    named: bool
    repaired: bool
    seconds: float
    said: str


def judged(case: Case) -> Verdict:
    """The case made, diagnosed and compared with what was planted."""
    with doubles():
        source, target, inputs, *weights = case.make()
        started = time.perf_counter()
        found = diagnose(source, target, inputs, weights=weights[0] if weights else None)
        seconds = time.perf_counter() - started
    said = [*_layers(found), *_gaps(found)]
    remarks = [remark for remark in found.remarks if remark.mode == case.mode]
    words = "; ".join(f"{place or 'between'}: {'+'.join(modes) or 'none'} {what}" for place, modes, what, _ in said)
    words = words or "; ".join(remark.what for remark in remarks) or "nothing"
    if case.told:
        calm = all(case.mode in modes for _, modes, *_ in said)
        return Verdict(case, bool(remarks), bool(remarks) and calm, bool(remarks), seconds, words)
    right = {case.mode, *case.also}
    here = [place in case.where.split("|") for place, *_ in said]
    named = bool(said) and all(modes and set(modes) <= right for _, modes, *_ in said) and all(here)
    left = all(after <= case.limit for *_, after in said)
    return Verdict(
        case, any(here) and len(said) >= case.many and not found.ok, named, bool(said) and left, seconds, words
    )


def _layers(found: WholeDiagnosis) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    for one in found.layers:
        scale = max([1e-30, *(float(np.abs(a).max(initial=0.0)) for a in one.suspect.expected.values())])
        first = one.explanations[0] if one.explanations else None
        modes = tuple(edit.mode for edit in first.edits) if first else ()
        what = " and ".join(f"[{e.family}] {e.short or e.what}" for e in first.edits) if first else one.note
        yield one.suspect.name, modes, what, first.after / scale if first else float("inf")


def _gaps(found: WholeDiagnosis) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    for gap in found.gaps:
        scale = max(1e-30, float(np.abs(gap.gap.expected).max(initial=0.0)))
        after = gap.after / scale if gap.after == gap.after else float("inf")
        yield "", (gap.mode or "-",) if gap.known else (), gap.what, after


@contextmanager
def doubles() -> Iterator[None]:
    """Keras and torch make float64 models inside."""
    before, policy, default = keras.config.floatx(), keras.config.dtype_policy(), torch.get_default_dtype()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)
        torch.set_default_dtype(default)


def shaken(model: Any, seed: int = 0) -> Any:
    """A Keras model with random weights everywhere, statistics and scales too."""
    rng = np.random.default_rng(seed)
    positive = ("variance", "gamma", "scale")
    model.set_weights(
        [
            rng.uniform(0.5, 1.5, w.shape) if v.path.split("/")[-1].endswith(positive) else rng.normal(0, 0.4, w.shape)
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return model


def shaken_torch(model: Any, seed: int = 0) -> Any:
    """The same for a torch module."""
    rng = np.random.default_rng(seed)
    norms = tuple(path for path, m in model.named_modules() if "Norm" in type(m).__name__)
    for name, value in model.state_dict().items():
        positive = name.endswith("running_var") or (name.endswith("weight") and name.rpartition(".")[0] in norms)
        if value.is_floating_point():
            low_or_normal = rng.uniform(0.5, 1.5, value.shape) if positive else rng.normal(0, 0.4, value.shape)
            value.copy_(torch.from_numpy(np.asarray(low_or_normal)))
    return model.eval()


def ported(
    source: Any, right: Any, wrong: Any = None, fix: Callable[[Any], Any] | None = None, keep: Sequence[str] = ()
) -> Any:
    """`wrong` with the weights of a right port of `source` into `right`, and then the mistake.

    Args:
        keep: layers whose order stays as it is.
    """
    lx.port(source, right, live=False, compare=False, keep_order=keep)
    wrong = right if wrong is None else wrong
    if wrong is not right:
        wrong.load_state_dict(right.state_dict())
    wrong.eval()
    if fix is not None:
        with torch.no_grad():
            fix(wrong)
    return wrong


def changed(name: str, change: Callable[[Array], Array]) -> Callable[[Any], None]:
    """A change of one or several (a|b) torch tensors, as NumPy sees them."""

    def apply(model: Any) -> None:
        held = model.state_dict()
        for one in name.split("|"):
            array = np.ascontiguousarray(change(held[one].numpy().copy()))
            assert array.shape == tuple(held[one].shape), (one, array.shape, held[one].shape)
            held[one].copy_(torch.from_numpy(array))

    return apply


def normal(*shape: int, seed: int = 1) -> Array:
    """Random inputs."""
    return np.random.default_rng(seed).normal(size=shape)
