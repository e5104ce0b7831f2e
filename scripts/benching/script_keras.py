"""The way through Keras: load_model, get_weights of every layer, transpose, save with safetensors.

python -m benching.script_keras SOURCE.keras PLAN.json OUT.safetensors
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import keras
from safetensors.numpy import save_file

from benching.by_hand import moved

source, plan, out = sys.argv[1:]
started = time.perf_counter()
model = keras.models.load_model(source)
weights = {layer.name: layer.get_weights() for layer in model.layers}
entries = json.loads(Path(plan).read_text(encoding="utf-8"))["entries"]
save_file({one["name"]: moved(one, [weights[one["layer"]][i] for i in one["parts"]]) for one in entries}, out)
print(time.perf_counter() - started)
