"""Normalisation layers: channels switched off, channels that never varied, statistics that were never counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.stats.finding import NOTE, SUSPECT, WRONG, Finding
from layoutx.verify.stats.look import Look
from layoutx.words import listed

SMALL = 1e-3  # of the median: a scale that is as good as none
FAR = 6.0  # standard deviations


def norm_findings(look: Look) -> Iterator[Finding]:
    """What gamma, beta and the running statistics show."""
    if "gamma" in look.stored:
        yield from _scales(look)
    if "variance" in look.stored and "mean" in look.stored:
        yield from _statistics(look)


def _scales(look: Look) -> Iterator[Finding]:
    gamma = np.abs(look.values["gamma"].astype(np.float64))
    off = gamma <= SMALL * float(np.median(gamma))
    if off.any():
        names = _names(look, "gamma", off)
        yield Finding(
            "channels off",
            SUSPECT,
            look.name,
            f"gamma of {len(names)} of {gamma.size} channels is nearly zero",
            listed(names),
            "such a channel gives its beta whatever comes in",
            "prune it with the units before it, or see whether weight decay acts on gamma",
            len(names),
            names,
        )
    if "beta" in look.stored and "variance" in look.stored:
        beta = look.values["beta"].astype(np.float64)
        low = (beta + FAR * gamma < 0) & ~off
        if low.any():
            names = _names(look, "gamma", low)
            yield Finding(
                "channels below zero",
                NOTE,
                look.name,
                f"{len(names)} of {gamma.size} channels are below zero up to {FAR:g} standard deviations",
                listed(names),
                "if a relu follows, they practically never fire",
                "nothing, where no relu follows; else these channels may be pruned",
                len(names),
                names,
            )


def _statistics(look: Look) -> Iterator[Finding]:
    mean, variance = (look.values[role].astype(np.float64) for role in ("mean", "variance"))
    negative = variance < 0
    if negative.any():
        names = _names(look, "variance", negative)
        yield Finding(
            "negative variance", WRONG, look.name, f"the variance of {len(names)} channels is negative", listed(names),
            "its root is not a number", "look at what stands in this tensor: a standard deviation, another tensor?",
            len(names), names,
        )  # fmt: skip
    if not mean.any() and (variance == 1).all():
        yield Finding(
            "statistics not counted",
            SUSPECT,
            look.name,
            "mean is all 0 and variance all 1: as they start",
            "mean, variance",
            "inference then normalises with numbers that no data made",
            "train with the layer in training mode, or count the statistics anew over some batches",
        )
        return
    eps = look.bound.settings.get("eps")
    floor = 0.1 * float(eps) if isinstance(eps, (int, float)) and eps > 0 else 1e-6
    still = (variance >= 0) & (variance < floor)
    if still.any():
        names = _names(look, "variance", still)
        yield Finding(
            "channels that never vary",
            SUSPECT,
            look.name,
            f"the running variance of {len(names)} of {variance.size} channels is nearly zero (below {floor:.1g})",
            listed(names),
            "the unit before gives always the same; any change would be multiplied by up to 1/sqrt(eps)",
            "look at the layer before: these units are dead, or their input is constant",
            len(names),
            names,
        )


def _names(look: Look, role: str, where: Array) -> tuple[str, ...]:
    axes = look.axes[role]
    return tuple(", ".join(look.place(a, int(i)) for a, i in zip(axes, at, strict=True)) for at in np.argwhere(where))
