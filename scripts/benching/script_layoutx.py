"""`layoutx ARGUMENTS` in this process, its work timed apart from the imports; with a profile where one is asked for.

python -m benching.script_layoutx PROFILE|- ARGUMENTS...
"""

from __future__ import annotations

import sys
import time

import numpy  # noqa: F401  the scripts by hand import it before they begin, too

import layoutx.convert  # noqa: F401
from layoutx.cli import main

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
