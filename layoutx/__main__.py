"""`python -m layoutx` is the command line."""

import sys

from layoutx.cli import main

if __name__ == "__main__":
    sys.exit(main())
