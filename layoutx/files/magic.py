"""By what files are known before any reader is loaded: bytes at their beginning or end, and a name in a folder."""

from __future__ import annotations

HDF5 = b"\x89HDF\r\n\x1a\n"
TABLE = bytes.fromhex("57fb808b247547db")  # ends a TensorFlow `.index` file, and a checkpoint before TF 0.12
TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the long 0x1950a86a20f9469cfc6c in a pickle
HISTORY = b"lxhf"  # each frame of a recorded training
PROGRAM = "saved_model.pb"  # of the SavedModel that its folder is
