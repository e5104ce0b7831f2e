"""Witnesses: what real layers of the installed frameworks compute, captured for every form.

python scripts/capture_witnesses.py                  write tests/witnesses/*.npz and specs/witnesses.json
python scripts/capture_witnesses.py --check          capture anew, compare with what is stored, write nothing
python scripts/capture_witnesses.py --only 'lstm.*'  files of this name only (kind.framework)
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

for _name, _value in {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}.items():
    os.environ.setdefault(_name, _value)

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from witness_cases import Plan, cases  # noqa: E402

from layoutx.errors import LayoutxError, VerificationError  # noqa: E402
from layoutx.spec.registry import Registry, builtin_folder, load_registry  # noqa: E402
from layoutx.verify import live  # noqa: E402
from layoutx.verify.witness import Case, check, read, write  # noqa: E402

FOLDER = ROOT / "tests" / "witnesses"
INDEX = ROOT / "specs" / "witnesses.json"
SAME = {"float64": 1e-12, "float32": 1e-5}  # captured again, relative to the largest output
FLOOR = {"float64": 1e-14, "float32": 1e-6}  # the index rounds errors up to this, and to powers of ten: it stays still


def main(argv: list[str] | None = None) -> int:
    """Capture; write or compare. 1 where something differs or does not fit its spec."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a capture differs")
    parser.add_argument("--only", default="*", metavar="GLOB", help="files of this name only, as 'lstm.torch'")
    options = parser.parse_args(argv)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it complains that every layer is traced anew
    begun, reg = time.perf_counter(), load_registry([builtin_folder()])
    problems: list[str] = []
    many = 0
    groups = grouped(reg)
    problems += [f"{plan.form} has no spec" for plan in groups.pop("", [])]
    for name, plans in groups.items():
        if not fnmatch(name, options.only):
            continue
        captured = []
        for plan in plans:
            try:
                captured.append(capture(plan, reg.form(plan.form).runs))
            except LayoutxError as error:
                problems.append(f"{name}: {plan.form} {dict(plan.config)}\n    {error}")
        many += len(captured)
        path = FOLDER / f"{name}.npz"
        if options.check:
            problems += differences(read(path) if path.exists() else [], captured)
        else:
            write(path, captured)
    if not options.check:
        INDEX.write_text(index_text(index(reg)), encoding="utf-8")
    elif INDEX.read_text(encoding="utf-8") != index_text(index(reg)):
        problems.append("specs/witnesses.json is stale: run scripts/capture_witnesses.py")
    print("\n".join([*problems, f"{many} cases in {time.perf_counter() - begun:.0f} s, {len(problems)} problems"]))
    return 1 if problems else 0


def grouped(reg: Registry) -> dict[str, list[Plan]]:
    """`kind.framework` -> what is captured for it; "" -> what has no form."""
    found: dict[str, list[Plan]] = {}
    for plan in cases():
        form = reg.forms.get(plan.form)
        found.setdefault(f"{form.kind}.{framework(plan)}" if form else "", []).append(plan)
    return found


def framework(plan: Plan) -> str:
    """`keras`, `tf_keras`, `torch`, `onnx`, `flax`, ..."""
    return "tf_keras" if plan.config.get("version") == 2 else plan.form.partition(".")[0]


def capture(plan: Plan, real: str) -> Case:
    """Run the real layer, of the form `real`, on weights and inputs that the case's own name seeds."""
    name = framework(plan)
    version = live.available(name).partition("+")[0]  # 2.13.0, whether or not built for a GPU
    if not version:
        raise LayoutxError(f"{name} is not installed", do="witnesses of all frameworks are captured together")
    config = {key: value for key, value in plan.config.items() if not key.startswith("_")}
    shapes = list(plan.tensors.items()) if plan.tensors is not None else live.describe(real, config, plan.inputs)
    rng = np.random.default_rng(zlib.crc32(f"{plan.form} {json.dumps(dict(plan.config))} {plan.inputs}".encode()))
    tensors = {key: values(rng, key, shape) for key, shape in shapes}
    for key in tensors:
        if plan.zeros and fnmatch(key, plan.zeros):
            tensors[key] = np.zeros_like(tensors[key])
    if plan.vocab:
        inputs = {key: rng.integers(0, plan.vocab, shape) for key, shape in plan.inputs.items()}
    else:
        inputs = {key: values(rng, key, shape) for key, shape in plan.inputs.items()}
    dtype = live.precision(real, config, plan.dtype)
    outputs = live.run(real, config, tensors, inputs, dtype)
    if name == "onnx" and dtype == "float64":  # that was the evaluator of the onnx package: onnxruntime must agree
        single = live.run(real, config, tensors, inputs, "float32")
        if max(apart(outputs, single).values()) > SAME["float32"]:
            raise VerificationError(f"onnxruntime and the reference evaluator disagree on {plan.form} {config}")
    return Case(plan.form, dict(plan.config), dict(plan.refine), tensors, inputs, outputs, name, version, dtype)


def values(rng: np.random.Generator, name: str, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Multiples of 1/256 between 0.1 and 0.6 of either sign: exact in float32, never zero, and they compress well."""
    if name.rpartition("/")[2] == "count" or name.endswith("num_batches_tracked"):
        return np.array(int(rng.integers(11, 97)))
    size = rng.integers(26, 154, tuple(shape)) / 256.0
    words = [part for part in name.split("/") if "value" not in part]
    if name in ("div.B", "mul.B") or any("var" in part for part in words):  # variances, and their roots
        return size + 0.5
    return np.asarray(size * rng.choice([-1.0, 1.0], tuple(shape)))


def differences(stored: Sequence[Case], captured: Sequence[Case]) -> list[str]:
    """What a new capture has otherwise than the stored one, a line each."""
    before, after = {case.name: case for case in stored}, {case.name: case for case in captured}
    found = [f"{name}: not stored" for name in after if name not in before]
    found += [f"{name}: stored, and no longer captured" for name in before if name not in after]
    for name, new in after.items():
        old = before.get(name)
        for group in ("tensors", "inputs", "outputs") if old else ():
            held, made = getattr(old, group), getattr(new, group)
            if [(k, a.shape) for k, a in held.items()] != [(k, a.shape) for k, a in made.items()]:
                found.append(f"{name}: {group} were {shapes_of(held)}, are {shapes_of(made)}")
            elif group != "outputs":
                found += [f"{name}: other values in {k}" for k, a in held.items() if a.tobytes() != made[k].tobytes()]
            else:
                found += [
                    f"{name}: {k} differs by {d:.3g}" for k, d in apart(held, made).items() if not d <= SAME[new.dtype]
                ]
    return found


def shapes_of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"


def apart(old: Mapping[str, np.ndarray[Any, Any]], new: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    return {
        k: float(np.abs(a - new[k]).max(initial=0.0) / max(1.0, np.abs(a).max(initial=0.0))) for k, a in old.items()
    }


def index(reg: Registry) -> dict[str, Any]:
    """Form -> frameworks with their versions, number of cases, largest error; read from the stored files."""
    found: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.npz")):
        for case in read(path):
            entry = found.setdefault(case.form, {"frameworks": {}, "cases": 0, "largest": {}})
            entry["frameworks"][case.framework] = case.version
            entry["cases"] += 1
            error = max(check(case, reg), entry["largest"].get(case.dtype, FLOOR[case.dtype]))
            entry["largest"][case.dtype] = 10.0 ** int(np.ceil(np.log10(error)))
    for entry in found.values():
        entry["frameworks"] = dict(sorted(entry["frameworks"].items()))
    return dict(sorted(found.items()))


def index_text(found: Mapping[str, Any]) -> str:
    """One line a form."""
    lines = [f"  {json.dumps(form)}: {json.dumps(entry)}" for form, entry in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
