"""How frameworks spell the path of a tensor: dots inside layoutx, the framework's own way in its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.certificate import check_said, labelled, made_for
from layoutx.files.store import Store
from layoutx.frozen import frozen

SLASHED = ("flax", "nnx", "haiku", "tf1")  # module paths and tensor names joined with "/"
# flax 0.12.8 linen: collections whose tensors belong to the module of the same path; everything else is no weight
PARAMS, STATS = "params", "batch_stats"
TRAINING = {"opt_state": "optimizer state", "step": "a count of training steps", "rng": "random state"}
TREES = ("msgpack", "orbax", "pickle")  # formats in which flax, nnx, haiku and equinox are kept alike
OWNERS = {"torch": "torch", "dcp": "torch", "pt2": "torch", "paddle": "paddle", "tf_checkpoint": "tf1"}
STATE = "state"  # haiku's other tree beside params
_SUMS = re.compile(r"_ema/(hidden|counter)$")  # dm-haiku 0.0.17 ExponentialMovingAverage: inference reads `average`
_RANDOM = re.compile(r"(^|/)rngs/(.*/)?(count|key)(/value)?$")  # flax nnx RngCount and RngKey


@frozen
class Cleaned:
    """Names as layoutx groups them, and those that belong to no layer.

    Attributes:
        names: dotted name without collection -> the file's own name, in the file's order.
        leftover: the file's own name -> why it is left out.
    """

    names: Mapping[str, str]
    leftover: Mapping[str, str] = NOTHING


def framework_of(store: Store, given: str = "") -> str:
    """The framework whose names a file holds: as the user says, as its certificate says, as its format tells.

    Raises:
        UsageError: a framework whose files are not of this kind; a file that may be of several.
    """
    if given:
        check_said(store, given)
        if given in ("keras", "keras1", "onnx"):
            what = f"{store.path.name} is no file of {given}"
            raise UsageError(what, why=f"it is {store.format}, which holds names and numbers", do="leave --from out")
        return given
    said = told_by(store)
    if said or store.format not in TREES:
        return said or "torch"
    raise UsageError(
        f"{store.path.name} does not say whose names it holds",
        where="its names: " + ", ".join(list(store.tensors)[:4]),
        why="flax, nnx and haiku trees lie in files of this kind; none of its names begins with params/",
        do="say it: --from flax (nnx, haiku, equinox)",
    )


def told_by(store: Store) -> str:
    """The framework whose names a file holds, as the file itself says or its format; "" where neither does."""
    said = made_for(store)
    if said and said not in ("keras", "keras1"):
        return said
    if store.format in TREES:
        return "flax" if any(name.startswith(f"{PARAMS}/") for name in store.tensors) else ""
    return labelled(store) or OWNERS.get(store.format, "")


def cleaned(framework: str, names: Iterable[str]) -> Cleaned:
    """Dotted names without collections.

    Raises:
        UsageError: two names that would become one.
    """
    found: dict[str, str] = {}
    leftover: dict[str, str] = {}
    names = list(names)
    outer = _outer(framework, names)
    if framework == "tf1":
        from layoutx.files.tf_checkpoint import reason_of_name

        known = frozenset(names)
        leftover = {name: why for name in names if (why := reason_of_name(name, known))}
        names = [name for name in names if name not in leftover]
    for name in names:
        short, why = _short(framework, name, outer)
        if why:
            leftover[name] = why
            continue
        dotted = short.replace("/", ".") if framework in SLASHED else short
        if dotted in found:
            raise UsageError(
                f"{found[dotted]} and {name} are one name to layoutx", where=dotted, do="rename one of them"
            )
        found[dotted] = name
    if framework == "tf1":
        from layoutx.model.tf1_names import today
        from layoutx.model.tf1_scopes import both_ways

        found = both_ways(today(found))
    return Cleaned(found, leftover)


def spelled(framework: str, layer: str, tensor: str, state: bool) -> str:
    """The name of a tensor in a file of a framework.

    Args:
        layer: the layer's path, with dots or slashes.
        tensor: the form's name, `kernel` or `ii/kernel`; "" of a parameter whose name is the path itself.
        state: a running statistic, which flax keeps in a collection of its own.
    """
    if framework not in SLASHED:
        return f"{layer}.{tensor}".removesuffix(".").replace("/", ".")
    path = f"{layer.replace('.', '/')}/{tensor}".removesuffix("/")
    return f"{STATS if state else PARAMS}/{path}" if framework == "flax" else path


def _outer(framework: str, names: list[str]) -> str:
    """What all weights lie under: "" for variables of flax; `params/` where a train state holds these whole, and where
    haiku's two trees lie in one."""
    if framework == "haiku":
        both = all(name.startswith((f"{PARAMS}/", f"{STATE}/")) for name in names)
        return f"{PARAMS}/" if both and any(name.startswith(f"{PARAMS}/") for name in names) else ""
    inner = (f"{PARAMS}/{PARAMS}/", f"{PARAMS}/{STATS}/")
    own = [name for name in names if name.startswith(f"{PARAMS}/")]
    return f"{PARAMS}/" if framework == "flax" and own and all(name.startswith(inner) for name in own) else ""


def _short(framework: str, name: str, outer: str) -> tuple[str, str]:
    """The name without its collection, or why it is no weight."""
    first = name.partition("/")[0]
    if framework in ("flax", "nnx", "haiku") and first in TRAINING:
        return "", TRAINING[first]
    if framework == "nnx":
        if _RANDOM.search(name):
            return "", "random state"
        return name.removesuffix("/value"), ""
    if framework == "haiku":
        why = "a running sum of training: inference reads the average" if _SUMS.search(name) else ""
        return ("" if why else name.partition("/")[2] if outer else name), why
    if framework != "flax":
        return name, ""
    collection, _, rest = name.removeprefix(outer).partition("/")
    if collection in (PARAMS, STATS) and rest:
        return rest, ""
    return (name, "") if not rest or collection[:1].isupper() else _other(collection, name)


def _other(collection: str, name: str) -> tuple[str, str]:
    known = ("cache", "intermediates", "losses", "metrics", "perturbations", "spectral_stats", "constants")
    why = f"the flax collection {collection}, which holds no layer's weights"
    return ("", why) if collection in known else (name, "")
