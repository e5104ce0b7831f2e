"""The command line: read the arguments, call one function, print; every import that takes time waits until then."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from layoutx.errors import FileError, LayoutxError, UsageError, visible

if TYPE_CHECKING:
    from layoutx.cli.interrupts import Interrupts

INTERRUPTED = 130
BROKEN_PIPE = 141
RARELY = (100_000, 50, 100)  # records and plans are many and live long: looking for garbage among them took a third
# TensorFlow greets on stderr, where only errors belong; NumPy's threads spin at its import, on the cores that have work
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
LIGHT = ("explain", "inspect", "plan", "specs")  # they multiply nothing; NumPy's threads took a quarter of them


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done and verified, 1 refused or a verification failed, 2 the call was wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _plain_streams()
    gc.set_threshold(*RARELY)
    threads = {"OPENBLAS_NUM_THREADS": "1"} if argv is None and arguments[:1] and arguments[0] in LIGHT else {}
    for name, value in {**QUIET, **threads}.items():
        os.environ.setdefault(name, value)
    from layoutx.cli.interrupts import Interrupts

    own = argv is None  # this process is there for the command alone
    interrupts = Interrupts(lasting=own)
    try:
        with interrupts:
            status = _carried_out(arguments, interrupts)
            if own:
                gc.freeze()  # Python looks for garbage once more when it ends: a fifth of a short command
            return _interrupted(interrupts, arguments) if interrupts.number else status
    except KeyboardInterrupt:  # it came before the first line of the block, or after the last
        if not interrupts.number:
            raise
        interrupts.__exit__()
        return _interrupted(interrupts, arguments)


def _carried_out(arguments: list[str], interrupts: Interrupts) -> int:
    """The exit status; whatever ends the command is an answer."""
    try:
        interrupts.about(_output(arguments))  # arguments are parsed a little later
        status = _run(arguments, interrupts)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        status = BROKEN_PIPE
    except (OSError, MemoryError) as error:  # what no module could say better: a full disk under stdout, no memory
        _close_stdout()
        status = 1 if interrupts.number else _failed(error, arguments)
    except BaseException:  # an import, a callback of a library: what they make of an interrupt
        if not interrupts.number:
            raise
        status = INTERRUPTED
    return status


def _output(arguments: list[str]) -> str | None:
    """What -o names."""
    return next((value for option, value in pairwise(arguments) if option in ("-o", "--output")), None)


def _failed(error: OSError | MemoryError, arguments: list[str]) -> int:
    from layoutx.files.remedy import remedy

    said = f"{type(error).__name__}: {error}"
    _complain(FileError("the system failed, and with it the command", why=said, do=remedy(error)), arguments)
    return 1


def _interrupted(interrupts: Interrupts, arguments: list[str]) -> int:
    """One line on stderr, and the status that a shell gives to what a signal ended."""
    from layoutx.show.progress import closed

    interrupts.about(_output(arguments))  # it may have come before this was remembered: then nothing has happened
    with suppress(OSError):
        closed()
        if said := interrupts.said():
            print(visible(said), file=sys.stderr, flush=True)
    return 128 + interrupts.number


def _run(arguments: list[str], interrupts: Interrupts) -> int:
    from layoutx.cli.options import parser
    from layoutx.files.guarded import intact
    from layoutx.show.progress import metered

    as_json = "--json" in arguments
    try:
        if not arguments:
            parser().print_help()
            return UsageError.exit_code
        args = parser(arguments[0]).parse_args(arguments)
        interrupts.about(getattr(args, "output", None))
        silent = as_json or getattr(args, "quiet", False)
        with metered(None if silent else True), intact():
            return int(args.run(args))
    except LayoutxError as error:
        if not interrupts.number:
            _complain(error, arguments)
        return error.exit_code
    except SystemExit as end:  # --help, --version
        return int(end.code or 0)


def _complain(error: LayoutxError, arguments: list[str]) -> None:
    from layoutx.cli.elsewhere import fitting
    from layoutx.show.errors import error_json, error_text

    sys.stdout.flush()
    error = fitting(error, arguments[0] if arguments else "")
    print(error_json(error) if "--json" in arguments else error_text(error), file=sys.stderr)


def _plain_streams() -> None:
    """Spell out a character that the terminal has not; give a closed stream a place to write to."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # `>&-`: without this the next file that is opened would become the stream
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """The reader has gone: what is left must not raise again when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return


if __name__ == "__main__":
    sys.exit(main())
