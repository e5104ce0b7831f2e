"""Options of how an output is made: what is verified, threads, dtype, shards."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from layoutx.errors import UsageError


def options(found: ArgumentParser) -> None:
    """Add them to a command that writes an output."""
    found.add_argument(
        "--verify",
        choices=("auto", "layers", "bytes", "none"),
        default="auto",
        help="layers: outputs and bytes; bytes: what was written is read again; auto: layers up to 256 MB, then bytes",
    )
    found.add_argument("--jobs", type=int, metavar="N", help="threads (default: one for each core, up to 8)")
    found.add_argument("--dtype", metavar="bf16|f16|f32|f64", help="what floating tensors become, rounded once")
    found.add_argument(
        "--max-shard-size", metavar="5GB", help="write shards of at most this size and an index (.safetensors)"
    )
    found.add_argument("--resume", action="store_true", help="go on with shards that a stopped run finished")
    found.add_argument("--dask", metavar="ADDRESS", help="make shards on a Dask cluster: tcp://10.0.0.1:8786")
    found.add_argument("--ray", metavar="ADDRESS", help="make shards on a Ray cluster: 10.0.0.1:6379, or auto")
    found.add_argument("--sha256", action="store_true", help="note a large source's SHA-256 too, and tell the output's")


def executor(args: Namespace) -> AbstractContextManager[Any]:
    """The executor of --dask or --ray; None without them.

    Raises:
        UsageError: both, what is not installed, an address where nobody answers.
    """
    if args.dask and args.ray:
        raise UsageError("--dask and --ray exclude each other")
    if not args.dask and not args.ray:
        return nullcontext()
    from layoutx.job.engines import dask_executor, ray_executor

    return dask_executor(args.dask) if args.dask else ray_executor(args.ray)
