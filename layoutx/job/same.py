"""A file made anew for the framework that it is of: every tensor under its own name, in another dtype or file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.certificate import certificate_of, check_said, refuse_twice
from layoutx.files.store import Store, Tensor
from layoutx.job.deliver import How
from layoutx.job.jobs import Job, Options, covers
from layoutx.model.keyed import Keyed, keyed_store
from layoutx.model.load import says_itself
from layoutx.model.noted import NOTED
from layoutx.model.spelling import told_by
from layoutx.words import near

ANEW = "in another dtype (--dtype), in shards (--max-shard-size) or another kind of file (-o)"
FOLDERS = {"dcp": ".dcp", "orbax": ".orbax"}  # formats of folders: they have no ending of their own


def is_same(store: Store, to: str, from_: str) -> bool:
    """Whether a file is known to hold names of the framework that it is converted to: somebody says it.

    Where nobody does (safetensors and npz without a word about it), names that look alike may be of another one, whose
    numbers lie otherwise.
    """
    if says_itself(store):
        return False
    if from_:
        check_said(store, from_)
    return (from_ or told_by(store)) == to


def refuse_same(store: Store, to: str, output: Path | None, options: Options, how: How) -> None:
    """Refuse to make the same file again: of the same kind, dtypes and number, whole, with nothing computed.

    Raises:
        ConversionError: layoutx made it for this framework. UsageError: it holds its names anyway.
    """
    if options.skip or options.only or options.materialise or how.dtype is not None or how.most is not None:
        return
    if output is not None and (_ending(store) != output.suffix or ".index." in store.path.name):
        return
    refuse_twice(store, to)
    raise already(store, to)


def already(store: Store, to: str) -> UsageError:
    """The complaint about a conversion that would change nothing, as far as anybody knows."""
    rest = "--like TARGET gives it the names of another model, `layoutx port` loads it into a live one"
    if told_by(store):
        why, do = "it would become the same file again", f"choose another --to, or have it {ANEW}; {rest}"
    else:
        why = "as it seems: it does not say whose they are"
        do = f"choose another --to, or say whose names they are with --from (--from {to}: they stay, {ANEW}); {rest}"
    return UsageError(f"{store.path.name} already holds names of {to}", why=why, do=do)


def _ending(store: Store) -> str:
    return FOLDERS.get(store.format, store.path.suffix)


def still_noted(store: Store, job: Job) -> dict[str, Any]:
    """What the source's certificate says of its layers' forms, for that of a file that keeps them all."""
    layers = (certificate_of(store) or {}).get(NOTED) or (certificate_of(store) or {}).get("layers")
    if not job.kept or not isinstance(layers, list):
        return {}
    said = [
        {key: one[key] for key in ("name", "target", "tensors") if key in one}
        for one in layers
        if isinstance(one, dict)
    ]
    return {NOTED: said} if said else {}


def plan_same(store: Store, to: str, options: Options, plain: Callable[[Keyed], Keyed]) -> Job:
    """The job whose output holds the tensors of a file, all or those that were chosen.

    Args:
        plain: computes the weights that are stored in parts, where the user asked for it.

    Raises:
        UsageError: a pattern that matches no tensor and no module; what would say how layers are to be read.
    """
    said = {
        "--form": options.forms,
        "--pair": options.pairs,
        "--set": options.values,
        "--keep-order": options.keep_order,
    }
    unheard = [name for name, one in said.items() if one]
    if unheard:
        raise UsageError(
            f"{', '.join(unheard)} changes nothing here",
            why=f"{store.path.name} holds names of {to}, and its tensors keep names and axes",
            do="leave it out",
        )
    tensors = store.tensors
    if options.materialise:
        keyed = keyed_store(store, to)
        own, found = {t.name for t in keyed.tensors.values()}, plain(keyed)
        tensors = {t.name: t for t in found.tensors.values()} | {n: t for n, t in tensors.items() if n not in own}
    kept, skipped = _chosen(tensors, options)
    leftover = {} if options.materialise else keyed_store(store, to).leftover
    beside = {name: why for name, why in leftover.items() if name not in tensors}
    return Job(to, to, (), (), skipped, beside, tuple(kept), kept=kept)


def _chosen(tensors: Mapping[str, Tensor], options: Options) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors that stay, and why the others do not."""
    for pattern in (*options.skip, *options.only):
        if not any(_means([pattern], name) for name in tensors):
            raise UsageError(
                f"no tensor or module is called {pattern!r}", why=near(pattern, tensors, "the tensors are")
            )
    skipped = {name: "left out by --skip" for name in tensors if _means(options.skip, name)}
    if options.only:
        rest = (name for name in tensors if name not in skipped and not _means(options.only, name))
        skipped |= dict.fromkeys(rest, "not in --only")
    return {name: tensor for name, tensor in tensors.items() if name not in skipped}, skipped


def _means(patterns: Iterable[str], name: str) -> bool:
    """Whether a pattern means a tensor: by its own name, or that of a module above it, with dots or slashes."""
    return covers(patterns, name.replace("/", ".")) or any(fnmatchcase(name, f"{one}/*") for one in patterns)
