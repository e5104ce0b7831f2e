"""Norms, PReLU and layer scale: the statistics first, then one line for the element."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.forward.shapes import epsilon
from layoutx.verify.hand.layer import Hand
from layoutx.verify.hand.steps import Step

Plain = list[tuple[str, float]]


def batch_norm(hand: Hand, formula: str) -> list[Step]:
    """With the stored mean and variance of the channel, or those of the batch where none is kept."""
    *_, c = hand.at
    if hand.bound.facts.get("statistics", "running") == "running":
        named = [hand.weight("mean", c), hand.weight("variance", c)]
        return _scaled(hand, formula, [], named[0], named[1], (c,))
    data = hand.data["x"][..., c]
    return _scaled(hand, formula, *_moments(data, "all numbers of this channel"), (c,))


def layer_norm(hand: Hand, formula: str) -> list[Step]:
    """With the mean and variance of this sample's features."""
    *lead, f = hand.at
    return _scaled(hand, formula, *_moments(hand.data["x"][tuple(lead)], "the features of this sample"), (f,))


def group_norm(hand: Hand, formula: str) -> list[Step]:
    """With the mean and variance of this sample's group of channels, over all positions."""
    b, *_, channel = hand.at
    sizes = [hand.values[n].shape for n in ("gamma", "beta", "mean") if n in hand.values]
    groups = sizes[0][0] if sizes else int(hand.bound.settings["groups"])
    width = hand.data["x"].shape[-1] // groups
    g, c = divmod(channel, width)
    if hand.bound.facts.get("statistics", "instance") == "running":
        return _scaled(hand, formula, [], hand.weight("mean", g, c), hand.weight("variance", g, c), (g, c))
    data = hand.data["x"][b][..., g * width : (g + 1) * width]
    return _scaled(hand, formula, *_moments(data, "the channels of this group at all positions"), (g, c))


def rms_norm(hand: Hand, formula: str) -> list[Step]:
    """With the mean square of this sample's features."""
    *lead, f = hand.at
    data = hand.data["x"][tuple(lead)]
    square = float(np.mean(data * data))
    eps = _eps(hand)
    name, x = hand.input("x", *hand.at)
    steps = [Step("square", f"mean of x * x over {data.size} numbers, the features of this sample", "", square)]
    return [*steps, _last(hand, formula, x / sqrt(square + eps), [(name, x), ("epsilon", eps)], (f,))]


def layer_scale(hand: Hand, formula: str) -> list[Step]:
    """x times the factor of its channel."""
    name, x = hand.input("x", *hand.at)
    factor, value = hand.weight("gamma", hand.at[-1])
    return [Step("y", "", formula, x * value, (), ((name, x), (factor, value)))]


def prelu(hand: Hand, formula: str) -> list[Step]:
    """x itself, or its multiple below zero."""
    name, x = hand.input("x", *hand.at)
    alpha = hand.values["alpha"]
    place = tuple(0 if n == 1 else i for i, n in zip(hand.at[-alpha.ndim :], alpha.shape, strict=True))
    slope, value = hand.weight("alpha", *place)
    return [Step("y", "", formula, x if x > 0 else x * value, (), ((name, x), (slope, value)))]


def _moments(data: Array, of: str) -> tuple[list[Step], tuple[str, float], tuple[str, float]]:
    mean, variance = float(data.mean()), float(np.mean((data - data.mean()) ** 2))
    steps = [
        Step("mean", f"of {data.size} numbers: {of}", "", mean),
        Step("variance", "mean of the squared distances to that mean (divided by their number)", "", variance),
    ]
    return steps, ("mean", mean), ("variance", variance)


def _scaled(
    hand: Hand, formula: str, steps: list[Step], mean: tuple[str, float], variance: tuple[str, float],
    at: Sequence[int],
) -> list[Step]:  # fmt: skip
    eps = _eps(hand)
    name, x = hand.input("x", *hand.at)
    added = hand.bound.facts.get("eps_added_to", "variance") == "deviation"
    root = sqrt(variance[1]) + eps if added else sqrt(variance[1] + eps)
    plain = [(name, x), mean, variance, ("epsilon", eps)]
    return [*steps, _last(hand, formula, (x - mean[1]) / root, plain, at)]


def _last(hand: Hand, formula: str, value: float, plain: Plain, at: Sequence[int]) -> Step:
    for role, times in (("gamma", True), ("beta", False)):
        if role in hand.values:
            named, number = hand.weight(role, *at)
            value = value * number if times else value + number
            plain += [] if named.endswith("(absent)") else [(named, number)]
    return Step("y", "", formula, value, (), tuple(plain))


def _eps(hand: Hand) -> float:
    return epsilon(hand.bound.kind.name, hand.bound.settings, np.dtype(np.float64))
