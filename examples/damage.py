"""A copy of a file in which one bit is another: python damage.py FILE COPY."""

import sys
from pathlib import Path

data = bytearray(Path(sys.argv[1]).read_bytes())
data[-30] ^= 1  # safetensors files end with numbers
Path(sys.argv[2]).write_bytes(data)
