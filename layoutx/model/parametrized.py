"""Weights stored in parts (weight_norm, spectral_norm, pruning): recognised, and refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from layoutx.errors import ConversionError
from layoutx.files.dtypes import Array
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed

Compute = Callable[[Mapping[str, Array]], Array]
EPSILON = 1e-12  # paddle 3.3 functional.normalize, flax 0.12 WeightNorm: the default, which no file holds
LISTED = re.compile(r"^(?P<module>.*?)\.?parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)$")


@frozen
class Site:
    """One weight that is stored in parts.

    Attributes:
        method: "weight_norm", "spectral_norm", "pruning", or what it is called where layoutx does not know it.
        weight: the dotted name that the weight itself would have.
        parts: part ("g", "v", "original", "u") -> the dotted name of its tensor.
        formula: how the framework computes the weight, for people.
        compute: the same in float64; None where the file does not tell enough.
        why: what the file does not tell.
    """

    method: str
    weight: str
    parts: Mapping[str, str]
    formula: str
    compute: Compute | None = None
    why: str = ""

    @property
    def module(self) -> str:
        """The path of the module whose weight it is."""
        return self.weight.rpartition(".")[0]


def refusal(site: Site) -> ConversionError:
    """The error of a weight that is stored in parts."""
    parts = ", ".join(site.parts.values())
    do = f"remove it in the framework before saving, or leave the layer out (--skip {site.module})"
    if site.compute is not None:
        do = "compute it: --materialise (materialise=True in Python); " + do
    return ConversionError(
        f"{site.weight} is stored through {site.method}",
        where=f"as {parts}",
        why=site.why or f"it is {site.formula}",
        do=do,
    )


def sites(keyed: Keyed) -> list[Site]:
    """All weights of a model that are stored in parts."""
    readers = {"flax": _linen, "nnx": _nnx, "equinox": _equinox, "haiku": _haiku}
    names = keyed.tensors
    return list(readers.get(keyed.framework, _torch)(keyed, names))


def _torch(keyed: Keyed, names: Mapping[str, Tensor]) -> Iterator[Site]:
    """torch 2.13 nn/utils: weight_norm, spectral_norm, prune (suffixes), parametrizations; paddle 3.3: the suffixes."""
    listed: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        match = LISTED.match(name) if "parametrizations." in name else None
        if match:
            listed.setdefault((match["module"], match["name"]), {})[match["part"]] = name
            continue
        for suffix, others, make in (("_orig", ("_u", "_v"), _spectral), ("_g", ("_v",), _weight)):
            base = name.removesuffix(suffix)
            if base != name and base not in names and all(base + other in names for other in others):
                yield make(keyed, base, {s.strip("_"): base + s for s in (suffix, *others)})
        base = name.removesuffix("_orig")
        if base != name and f"{base}_mask" in names:
            formula = "the stored weight times a mask"
            parts = {"orig": name, "mask": f"{base}_mask"}
            yield Site("pruning", base, parts, formula, lambda a: a["orig"] * a["mask"])
    for (module, name), parts in listed.items():
        weight = f"{module}.{name}" if module else name
        if parts.keys() == {"original0", "original1"}:
            yield _weight(keyed, weight, {"g": parts["original0"], "v": parts["original1"]})
        elif parts.keys() == {"original", "0._u", "0._v"}:
            yield _spectral(keyed, weight, {"orig": parts["original"], "u": parts["0._u"], "v": parts["0._v"]})
        else:
            why = "layoutx knows weight_norm and spectral_norm; this one may be anything"
            yield Site("a parametrization that layoutx does not know", weight, parts, "unknown", None, why)


def _weight(keyed: Keyed, weight: str, parts: Mapping[str, str]) -> Site:
    """w = g * v / |v|, the norm over all axes but those that g has."""
    g, v = (keyed.tensors[parts[part]].shape for part in ("g", "v"))
    formula = "g times v, divided by the norm of v"
    kept: tuple[int, ...] | None = None
    if len(g) in (0, len(v)) and all(a in (1, b) for a, b in zip(g, v, strict=False)):
        kept = tuple(i for i, n in enumerate(g) if n != 1)
    elif len(g) == 1:  # paddle: one number for each row along `dim`, which nothing else tells
        fitting = [i for i, n in enumerate(v) if n == g[0]]
        kept = tuple(fitting) if len(fitting) == 1 else None
    if kept is None:
        why = f"g of shape {g} does not tell along which axis of {v} the norm is taken"
        return Site("weight_norm", weight, parts, formula, None, why)
    least = EPSILON if keyed.framework == "paddle" else 0.0
    return Site(
        "weight_norm",
        weight,
        parts,
        formula,
        lambda a: _normed(a["g"], a["v"], kept, lambda s: np.maximum(np.sqrt(s), least)),
    )


def _normed(g: Array, v: Array, kept: tuple[int, ...], root: Callable[[Array], Array]) -> Array:
    """g * v / root(sum of squares of v over the axes that are not kept)."""
    square = np.sum(v * v, axis=tuple(i for i in range(v.ndim) if i not in kept), keepdims=True)
    shape = [n if i in kept else 1 for i, n in enumerate(v.shape)]
    return v * (g.reshape(shape) / root(square))


def _spectral(keyed: Keyed, weight: str, parts: Mapping[str, str]) -> Site:
    """w = orig / (u . W v), where W has the axis of u first: 0, of transposed convolutions 1, of paddle's Linear 1."""
    orig, u, v = (keyed.tensors[parts[part]].shape for part in ("orig", "u", "v"))
    formula = "the stored weight divided by its largest singular value, u . W v"
    size = int(np.prod(orig, dtype=np.int64))
    fitting = [i for i, n in enumerate(orig) if u == (n,) and v == (size // max(n, 1),)]
    usual = _usual(keyed, weight, len(orig))
    if len(fitting) == 1 or usual in fitting:
        axis = fitting[0] if len(fitting) == 1 else usual
        return Site("spectral_norm", weight, parts, formula, lambda a: _divided(a, axis, fitting, weight))
    why = f"u of {u} and v of {v} do not tell which axis of {orig} comes first, and neither does the module's class"
    return Site("spectral_norm", weight, parts, formula, None, why)


def _usual(keyed: Keyed, weight: str, rank: int) -> int:
    """The axis that the framework takes by itself: by the module's class; torch's matrices are never transposed."""
    known = keyed.modules.get(weight.rpartition(".")[0])
    if known is not None and known.class_name:
        return int("Transpose" in known.class_name or (keyed.framework == "paddle" and known.class_name == "Linear"))
    return 0 if (keyed.framework == "torch" and rank == 2) or keyed.framework == "equinox" else -1


def _divided(arrays: Mapping[str, Array], axis: int, fitting: list[int], weight: str) -> Array:
    """The weight by its singular value.

    Raises:
        ConversionError: u and v are singular vectors of the weight with another axis first.
    """
    orig, u, v = arrays["orig"], arrays["u"], arrays["v"]
    far = {}
    for first in fitting:
        matrix = np.moveaxis(orig, first, 0).reshape(orig.shape[first], -1)
        sigma = float(u @ (matrix @ v))
        far[first] = float(np.linalg.norm(matrix @ v - sigma * u) + np.linalg.norm(u @ matrix - sigma * v))
        if first == axis:
            found = orig / np.float64(sigma)
    if any(other < far[axis] / 10 for other in far.values()):
        raise ConversionError(
            f"{weight} is stored through spectral_norm along an axis that is not the usual one",
            why=f"u and v are singular vectors of it with axis {min(far, key=lambda i: far[i])} first, not {axis}",
            do="remove spectral_norm in the framework before saving",
        )
    return found


def _linen(keyed: Keyed, names: Mapping[str, Tensor]) -> Iterator[Site]:
    """flax 0.12.8 linen: WeightNorm_0/"Dense_0/kernel/scale" beside Dense_0/kernel; SpectralNorm_0/".../u", sigma."""
    for name in names:
        *path, last = name.split(".")
        if last not in ("scale", "u"):
            continue
        # the wrapper's own name stands before that of the layer, unless the layer lies inside it
        ways = [path, *([*path[:at], *path[at + 1 :]] for at in range(len(path) - 1))]
        weight = next((found for way in ways if (found := ".".join(way)) in names), "")
        if weight and last == "scale":
            yield _flax_weight(names, weight, {"g": name, "v": weight})
        elif weight:
            yield _flax_spectral(weight, {"orig": weight, "u": name, "sigma": f"{name[:-1]}sigma"})


def _nnx(keyed: Keyed, names: Mapping[str, Tensor]) -> Iterator[Site]:
    """flax 0.12.8 nnx: scales/kernel and batch_stats/kernel/u of the wrapper, layer_instance/kernel."""
    for name in names:
        for table in ("scales", "batch_stats"):
            module, found, rest = f".{name}".partition(f".{table}.")
            weight = f"{module}.layer_instance.{rest.removesuffix('.u')}".lstrip(".")
            if found and weight in names and table == "scales":
                yield _flax_weight(names, weight, {"g": name, "v": weight})
            elif found and weight in names and rest.endswith(".u"):
                yield _flax_spectral(weight, {"orig": weight, "u": name, "sigma": f"{name[:-1]}sigma"})


def _flax_weight(names: Mapping[str, Tensor], weight: str, parts: Mapping[str, str]) -> Site:
    g, v = (names[parts[part]].shape for part in ("g", "v"))
    formula = "g times v, divided by the root of the sum of its squares and epsilon 1e-12, over all axes but the last"
    if g != v[-1:]:
        why = f"a scale of shape {g} is not along the last axis of {v}: feature_axes is not in the file"
        return Site("WeightNorm", weight, parts, formula, None, why)
    last = (len(v) - 1,)
    return Site(
        "WeightNorm", weight, parts, formula, lambda a: _normed(a["g"], a["v"], last, lambda s: np.sqrt(s + EPSILON))
    )


def _flax_spectral(weight: str, parts: Mapping[str, str]) -> Site:
    why = "flax takes n_steps more power iterations at every call, and the file holds neither n_steps nor epsilon"
    return Site("SpectralNorm", weight, parts, "the kernel divided by its largest singular value", None, why)


def _equinox(keyed: Keyed, names: Mapping[str, Tensor]) -> Iterator[Site]:
    """equinox 0.13.8 WeightNorm: g beside layer.weight; SpectralNorm: uv_index beside it."""
    for name in names:
        module, _, last = name.rpartition(".")
        weight = f"{module}.layer.weight".lstrip(".")
        if last == "g" and weight in names:
            yield _weight(keyed, weight, {"g": name, "v": weight})
        wrapper = module.removesuffix("uv_index").rstrip(".")
        weight = f"{wrapper}.layer.weight".lstrip(".")
        if last == "0" and module.endswith("uv_index") and weight in names:
            yield _spectral(keyed, weight, {"orig": weight, "u": name, "v": f"{module}.1"})


def _haiku(keyed: Keyed, names: Mapping[str, Tensor]) -> Iterator[Site]:
    """dm-haiku 0.0.17 SpectralNorm: u0 and sigma in the state; the weight it belongs to is only in the code."""
    for name in names:
        module, _, last = name.rpartition(".")
        if last == "u0" and f"{module}.sigma" in names:
            why = "haiku keeps u0 and sigma apart from the weight, whose name is only in the code"
            yield Site("SpectralNorm", module, {"u": name, "sigma": f"{module}.sigma"}, "", None, why)
