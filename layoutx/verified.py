"""A written file checked later: its tensors against the hashes in its certificate, and against its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from layoutx.convert import planned
from layoutx.empty import NOTHING
from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files.certificate import KEY, certificate_of
from layoutx.files.certified import EXTRA, OK, Side, certified
from layoutx.files.open import open_store
from layoutx.files.remote import is_file, located
from layoutx.files.store import Store
from layoutx.frozen import frozen
from layoutx.job.derive import LENT, rederived
from layoutx.job.said import said_again
from layoutx.model.load import check_framework, says_itself, template_of
from layoutx.move.cast import dtype_named
from layoutx.move.pool import jobs_of
from layoutx.move.stored import hashes_of
from layoutx.progress import Progress
from layoutx.show.alike_text import groups_of
from layoutx.show.progress import reported
from layoutx.show.supposed_text import supposed_of
from layoutx.spec.registry import registry


@frozen
class Verified:
    """What a check found; `print(found)` shows it, `to_dict()` is the same as JSON.

    Attributes:
        file, source: names. made: what the certificate says of the conversion: file, framework, target, layoutx.
        kind: of the hashes, "" where the file has none.
        tensors: tensor of the file -> "OK", "differs", "missing" or "extra".
        sources: the same for the source's tensors that the conversion read; None where no source was given, or the
            certificate has no hashes of them.
        derived: the same for what converting the source again gives, "lent by the template" for what it cannot;
            None where it was not done. underived: why not.
        nbytes: of the file's tensors.
        alike: layers that could be exchanged without a check noticing, group by group, as the certificate says.
        supposed: layers whose rows are in an order that was only supposed, as it says too.
    """

    file: str
    source: str = ""
    made: Mapping[str, str] = NOTHING
    kind: str = ""
    tensors: Mapping[str, str] = NOTHING
    sources: Mapping[str, str] | None = None
    derived: Mapping[str, str] | None = None
    underived: str = ""
    nbytes: int = 0
    alike: Sequence[Sequence[str]] = ()
    supposed: Sequence[str] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def ok(self) -> bool:
        """Whether all that was asked for was checked, and nothing differs."""
        found = [*self.tensors.values(), *(self.sources or {}).values(), *(self.derived or {}).values()]
        return not self.underived and set(found) <= {OK, LENT}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.show.verified_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The check for a terminal, at most `width` columns."""
        from layoutx.show.verified_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


@reported
def verify_file(
    path: str | PathLike[str],
    source: str | PathLike[str] | None = None,
    *,
    to: str = "",
    config: Any = None,
    specs: Sequence[str | PathLike[str]] = (),
    jobs: int | None = None,
    progress: bool | Progress | None = None,
) -> Verified:
    """Read every tensor of a file that layoutx wrote and compare it with the hash in the file's certificate.

    Memory does not grow with the file. A certificate is no signature: it shows damage. Whoever rewrites a file can
    write a certificate to it; only a comparison with the source shows that.

    Args:
        path: a file, the index of its shards, or a folder; also at `s3://...`.
        source: what it was made from: its tensors are compared with the certificate's hashes of them, the conversion
            is done again as the certificate says, without writing, and its result compared with the file.
        to: the framework, where the file has no certificate to say it.
        config: the model's config, where the conversion was given one.
        specs: more spec folders. jobs: threads; None: one for each core, up to eight.
        progress: True tells it on a terminal; or a function of (done, of how many, what comes now).

    Raises:
        UsageError: no such file; a file without hashes, and no source; another framework than the certificate's.
        FileError: a file that cannot be read, a malformed certificate.
    """
    began, many = perf_counter(), jobs_of(jobs)
    store = open_store(_whole(located(path)))
    name = store.path.name
    certificate = certificate_of(store)
    if certificate is None and KEY in store.metadata:
        raise FileError(
            f"the certificate of {name} cannot be read",
            why="it is no JSON object",
            do="convert the original again, and compare the two files with `layoutx diff`",
        )
    if to and (made_for := (certificate or {}).get("target", to)) != to:
        raise UsageError(f"{name} was made for {made_for}, not {to}", do="leave --to out: the certificate says it")
    hashes = certified(certificate or {}, name)
    if source is None and hashes is None:
        raise _nothing(store, certificate)
    tensors = {}
    if hashes is not None:
        tensors = hashes.tensors.compared(_hashes(store, list(store.tensors), hashes.tensors, many))
    made = _made(certificate or {})
    nbytes = sum(tensor.nbytes for tensor in store.tensors.values())
    kind, alike = hashes.tensors.kind if hashes else "", groups_of(certificate or {})
    supposed = supposed_of(certificate or {})
    found = Verified(name, "", made, kind, tensors, nbytes=nbytes, alike=alike, supposed=supposed)
    if source is not None:
        given = open_store(located(source))
        sources = _sources(given, hashes.sources, many) if hashes is not None and hashes.sources.many else None
        derived, why = _again(store, given, certificate or {}, sources, to, config, specs, many)
        found = replace(found, source=given.path.name, sources=sources, derived=derived, underived=why)
    return _timed(found, perf_counter() - began)


def _timed(found: Verified, seconds: float) -> Verified:
    object.__setattr__(found, "seconds", seconds)
    return found


def _whole(path: Path) -> Path:
    """The index of an output in shards, where only that is there."""
    index = path.parent / f"{path.name}.index.json"  # "." has no name
    there = path.is_dir() or is_file(path)
    return index if not there and path.suffix == ".safetensors" and is_file(index) else path


def _nothing(store: Store, certificate: Mapping[str, Any] | None) -> UsageError:
    name = store.path.name
    if certificate is None:
        what, why = f"{name} has no certificate", "layoutx did not write it, or what saved it since dropped it"
        beside = sorted(store.path.parent.glob("*.index.json")) if "-of-" in name and store.path.parent.is_dir() else []
        if beside:
            return UsageError(what, why="the certificate of shards lies in their index", do=f"verify {beside[0].name}")
    else:
        what, why = f"the certificate of {name} holds no hashes", "an earlier layoutx wrote it"
    return UsageError(what, why=why, do="give what it was made from: --source SRC --to FRAMEWORK does that again")


def _hashes(store: Store, names: Sequence[str], side: Side, jobs: int) -> dict[str, str]:
    found = hashes_of([store.tensors[name] for name in names], jobs, side.kind)
    return dict(zip(names, found, strict=True))


def _sources(given: Store, side: Side, jobs: int) -> dict[str, str]:
    """What of the source's tensors has the hashes of the certificate; more tensors than it knows were not read."""
    names = [name for name in given.tensors if side.packed or name in side.named]
    compared = side.compared(_hashes(given, names, side, jobs))
    return {name: one for name, one in compared.items() if one != EXTRA}


def _made(certificate: Mapping[str, Any]) -> dict[str, str]:
    """What a certificate says of the conversion, as far as it is text."""
    about = certificate.get("source")
    about = about if isinstance(about, dict) else {}
    found = {key: about.get(key) for key in ("file", "framework", "version")}
    found |= {key: certificate.get(key) for key in ("target", "layoutx")}
    return {key: one for key, one in found.items() if isinstance(one, str) and one}


def _again(
    store: Store,
    given: Store,
    certificate: Mapping[str, Any],
    sources: Mapping[str, str] | None,
    to: str,
    config: Any,
    specs: Sequence[str | PathLike[str]],
    jobs: int,
) -> tuple[dict[str, str] | None, str]:
    """The conversion done again and compared; or why it was not."""
    if set((sources or {}).values()) - {OK}:
        return None, f"{given.path.name} is not what it was made from"
    if "transfer" in certificate:
        return None, "a transfer has several sources: do it again, and compare the two files with `layoutx diff`"
    goal = certificate.get("target", to)
    if not isinstance(goal, str) or not goal:
        raise UsageError("nothing says what the file was made for", do="name it: --to FRAMEWORK")
    known = registry(specs)
    check_framework(goal, known)
    options, rest = said_again(certificate.get("options"), store.path.name)
    if rest["config"] and config is None:
        return None, f"it was made with a config ({rest['config']}): give that with --config"
    try:
        like = rest["like"] or says_itself(store) or not certificate
        target = template_of(store.path, goal, known, values=options.values) if like else None
        job = planned(given, goal, target, known, options, rest["input_shape"], config, rest["from"])
        dtype = dtype_named(rest["dtype"]) if rest["dtype"] else None
        return rederived(job, target, options, dtype, store, jobs), ""
    except LayoutxError as error:
        return None, "; ".join(filter(None, (error.what, *error.where[:3], error.why)))
