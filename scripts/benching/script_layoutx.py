"""`layoutx ARGUMENTS` in this process, its work timed apart from the imports; with a profile where one is asked for.

python -m benching.script_layoutx PROFILE|- ARGUMENTS...
"""

from __future__ import annotations

import os
import sys
import time

from layoutx.cli import QUIET, main

os.environ.update({**QUIET, **os.environ})  # as the command does before NumPy comes

import numpy  # noqa: F401  the scripts by hand import it before they begin, too

import layoutx.convert  # noqa: F401

profile, *arguments = sys.argv[1:]
started = time.perf_counter()
if profile == "-":
    status = main(arguments)
else:
    import cProfile

    with cProfile.Profile() as kept:
        status = main(arguments)
    kept.dump_stats(profile)
print(time.perf_counter() - started)
sys.exit(status)
