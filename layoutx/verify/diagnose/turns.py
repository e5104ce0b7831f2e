"""Time, directions and states exchanged: what a recurrent layer is given or gives, turned round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.settings import fact, setting
from layoutx.verify.diagnose.suspect import Edit, Suspect

Outputs = Mapping[str, Array]
RECURRENT = ("simple_rnn", "lstm", "gru", "mgu")
SEQUENCES = (*RECURRENT, "attention", "rotary_attention", "partial_rotary_attention")


def turned(suspect: Suspect) -> Iterator[Edit]:
    """Directions, the order of time and of the axes batch and time, (h, c) as (c, h) (F18, F36)."""
    kind = suspect.target.kind.name
    if kind in RECURRENT:
        yield from _directions(suspect)
        if {"h", "c"} <= suspect.expected.keys() and suspect.expected["h"].shape == suspect.expected["c"].shape:
            what = "the two states come as (c, h), not (h, c)"
            yield _after(suspect, "F36", "order of the states", what, _states, "h, c = c, h")
    if kind in SEQUENCES and all(a.ndim == 3 for a in suspect.inputs.values()):
        yield _time_major(suspect)


def _directions(suspect: Suspect) -> Iterator[Edit]:
    if len(suspect.target.labels.get("direction", ())) == 2:
        what = "the outputs of the backward direction are not turned back into the order of the input"
        code = "y = torch.cat([y[..., :n], y[..., n:].flip(1)], -1)"
        yield _after(suspect, "F18", "order of time", what, _second_half, code)
        what = "forward and backward outputs stand in one another's place"
        yield _after(suspect, "F18", "halves", what, _halves, "y = torch.cat([y[..., n:], y[..., :n]], -1)")
        return
    backward = fact(suspect, "direction") == "backward" or suspect.target.labels.get("direction") == ("backward",)
    onward = bool(setting(suspect, "go_backwards"))
    for go, runs, words in ((False, False, "forward"), (True, False, "from the end, outputs in that order"),
                            (False, True, "from the end, outputs in the order of the input")):  # fmt: skip
        if (go, runs) != (onward, backward):
            yield _runs(suspect, go, runs, words)


def _runs(suspect: Suspect, go: bool, backward: bool, words: str) -> Edit:
    def apply(s: Suspect) -> Suspect:
        facts = {**s.facts, "direction": "backward" if backward else "forward"}
        return replace(s, facts=facts, settings={**s.settings, "go_backwards": go})

    what = f"{suspect.target.form.name} runs in another direction than the source, which runs {words}"
    code = "x = x.flip(1)   # before the layer; and y = y.flip(1) after it where the source gives the input's order"
    return Edit("F18", "order of time", what, apply, "", code, f"runs {words}")


def _second_half(found: Outputs) -> dict[str, Array]:
    y = np.array(found["y"])
    half = y.shape[-1] // 2
    y[..., half:] = y[:, ::-1, half:]
    return {**found, "y": y}


def _halves(found: Outputs) -> dict[str, Array]:
    y = found["y"]
    half = y.shape[-1] // 2
    more = {name: found[name][::-1] for name in ("h", "c") if name in found}
    return {**found, "y": np.concatenate([y[..., half:], y[..., :half]], -1), **more}


def _states(found: Outputs) -> dict[str, Array]:
    return {**found, "h": found["c"], "c": found["h"]}


def _after(
    suspect: Suspect, mode: str, family: str, what: str, change: Callable[[Outputs], dict[str, Array]], code: str
) -> Edit:
    def apply(s: Suspect) -> Suspect:
        before = s.after
        return replace(s, after=change if before is None else lambda found: change(dict(before(found))))

    return Edit(mode, family, f"{suspect.target.form.name}: {what}", apply, "", code, what)


def _time_major(suspect: Suspect) -> Edit:
    """The layer takes the first axis for time; states are then those of other sequences, and not compared."""

    def swapped(found: Outputs) -> dict[str, Array]:
        return {"y": np.swapaxes(found["y"], 0, 1)}

    def apply(s: Suspect) -> Suspect:
        before = s.after
        inputs = {name: np.swapaxes(array, 0, 1) for name, array in s.inputs.items()}
        return replace(s, inputs=inputs, after=swapped if before is None else lambda f: swapped(dict(before(f))))

    what = f"{suspect.target.form.name} takes the axes batch and time one for the other"
    code = f"{suspect.place} = torch.nn.{suspect.target.form.class_name}(..., batch_first=True)"
    return Edit("F36", "batch and time", what, apply, "", code, "batch and time exchanged")
