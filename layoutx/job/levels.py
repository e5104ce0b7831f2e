"""How much of a conversion is checked: the words of `--verify`, and which layers are computed on both sides."""

from __future__ import annotations

from layoutx.errors import UsageError
from layoutx.job.jobs import Job, LayerJob

LEVELS = ("auto", "layers", "bytes", "none")
MOST_BYTES, MOST_LAYERS = 256 << 20, 512  # up to here all layers are computed: seconds, and memory for the largest
SMALL = 1 << 18  # numbers of a layer that is computed for all others of its forms


def check_level(said: str) -> None:
    """Refuse a word that is no level.

    Raises:
        UsageError: with those that there are.
    """
    if said not in LEVELS:
        raise UsageError(f"there is no level of verification {said!r}", do=f"one of {', '.join(LEVELS)}")


def level_of(said: str, job: Job) -> str:
    """The level that is meant; `auto` is `layers`, for large models `bytes` and one layer for each pair of forms."""
    if said != "auto":
        return said
    return "layers" if _few(job) else "auto"


def computed(level: str, job: Job) -> frozenset[str]:
    """The layers whose outputs are compared at a level."""
    if level == "layers":
        return frozenset(layer.record.name for layer in job.layers)
    if level != "auto":
        return frozenset()
    smallest: dict[tuple[str, str], tuple[int, str]] = {}
    for layer in job.layers:
        pair = (layer.plan.source.form.name, layer.plan.target.form.name)
        found = (_size(layer), layer.record.name)
        if found[0] <= SMALL and (pair not in smallest or found[0] < smallest[pair][0]):
            smallest[pair] = found
    return frozenset(name for _, name in smallest.values())


def _few(job: Job) -> bool:
    if len(job.layers) > MOST_LAYERS:
        return False
    return nbytes_of(job) <= MOST_BYTES


def nbytes_of(job: Job) -> int:
    """The bytes of all that a job reads."""
    return sum(tensor.nbytes for tensor in job.read())


def _size(layer: LayerJob) -> int:
    return sum(tensor.size for tensor in layer.sources.values())
