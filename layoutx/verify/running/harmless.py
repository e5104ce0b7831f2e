"""A model file is given to its framework only when it holds nothing but computing: no code, imports, file access.

Frameworks load more than a graph. What follows looks at the file's own texts before the framework does, and refuses
what would import a module (tf_keras, CVE-2025-1550), make a function of bytes (CVE-2025-9905), unpickle (torch.export),
evaluate a text as Python (sympy), load a library, or read and write files while the model runs.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, ModelError, UsageError
from layoutx.files import zips
from layoutx.files.blob import reading

DO = (
    "if you trust it, give package.module:callable that loads it; or run `layoutx record` there, and give the recording"
)
# packages of Keras 3.15 and tf_keras 2.21 whose classes compute; keras.utils, keras.saving and keras.config do more
_KERAS = re.compile(
    r"(tf_)?keras(\.src|\.api)?(\._v2|\._legacy|\.legacy)?(\.keras)?\.(layers|models|engine|initializers|regularizers|"
    r"constraints|activations|optimizers|losses|metrics|ops|random|mixed_precision|dtype_policies|quantizers|backend)"
    r"(\.[a-z0-9_]+)*"
)
_TOP = (
    "Sequential",
    "Functional",
    "Model",
    "DTypePolicy",
    "DTypePolicyMap",
    "FloatDTypePolicy",
    "KerasTensor",
    "Variable",
)
# they load a program: torch.load, tf.saved_model.load, pickled functions
_PROGRAMS = ("TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
_LISTS = ("vocabulary", "idf_weights", "vocabulary_file", "merges", "vocabulary_path")  # a text there names a file
_TF_CALLS = re.compile(
    r"(^|\.)(io|raw_ops|summary|saved_model|train|data|queue|debugging|print|load\w*|\w*py_func\w*|numpy_function)($|\.)"
)
# torch 2.13 torch/export/pt2_archive/constants.py; beside them lie native libraries and pickled objects
_MEMBERS = re.compile(
    r"[^/]+/(version|byteorder|archive_format|archive_version|\.format_version|\.storage_alignment|\.data/\w+|models/[^/]+\.json"
    r"|data/weights/(weight_\d+|[^/]+_weights_config\.json)|data/constants/(tensor_\d+|[^/]+_constants_config\.json)"
    r"|data/sample_inputs/[^/]+\.pt|extra/[^/]*)"
)
_CALLED = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision)\.[\w.]+|(_operator|math)\.\w+|torch\.(_sym|sym)_\w+"
)
_TEXT = re.compile(r"\b(Symbol|Float)\('[\w.+-]*'")  # the only texts in a formula
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~.]*")
_REACHES = re.compile(r"__|\.\s*[A-Za-z_]|[A-Za-z_]\w*\s*\.|\)\s*[(.]")  # attributes, calls of calls
# as sympy.srepr spells them, and those of torch 2.13 torch/utils/_sympy/functions.py
_FUNCTIONS = """
    Add Mul Pow Integer Rational Float Symbol Max Min Mod PythonMod FloorDiv CeilDiv CleanDiv ModularIndexing
    IntTrueDiv FloatTrueDiv Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan
    GreaterThan And Or Not Abs PowByNatural FloatPow LShift RShift Where Piecewise ExprCondPair Tuple floor
    ceiling sqrt ToFloat TruncToInt TruncToFloat RoundToInt RoundDecimal FloorToInt CeilToInt Identity
    IsNonOverlappingAndDenseIndicator OpaqueUnaryFn_sqrt OpaqueUnaryFn_log2
"""
_FILE_OPS = """
    WriteFile ReadFile MatchingFiles WholeFileReader WholeFileReaderV2 PyFunc PyFuncStateless EagerPyFunc Print
    PrintV2 DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNumericSummary DebugNumericSummaryV2
    TextLineDataset FixedLengthRecordDataset FixedLengthRecordDatasetV2 TFRecordDataset TFRecordDatasetV2
    SaveDataset SaveDatasetV2 LoadDataset DatasetToTFRecord CreateSummaryFileWriter CacheDataset CacheDatasetV2
"""
_SAVING = ("Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints")


def _unsafe(path: Path, what: str, why: str, *where: str, kind: type[LayoutxError] = ModelError) -> LayoutxError:
    return kind(f"{path.name} is not run: it {what}", where=[str(path), *where], why=why, do=DO)


def _mappings(config: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings inside a JSON value, without recursion."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def check_keras(path: Path, config: Mapping[str, Any], known: Any) -> None:
    """Refuse a Keras config that names more than layers.

    Args:
        known: of the loading library, name -> class the user registered with it, or None.

    Raises:
        ModelError: with the class. UsageError: it holds Python code.
    """
    config = {key: value for key, value in config.items() if key != "compile_config"}  # nothing is compiled
    for one in _mappings(config):
        name, module, registered = (one.get(key) for key in ("class_name", "module", "registered_name"))
        if name == "__lambda__" or any(str(key).endswith("_type") and value == "lambda" for key, value in one.items()):
            why = "loading the file would run it (safe_mode of Keras does not look into .h5 files: CVE-2025-9905)"
            raise _unsafe(path, "holds Python code, the function of a Lambda layer", why, kind=UsageError)
        if isinstance(name, str) and name.rpartition(">")[2] in _PROGRAMS:
            raise _unsafe(
                path, f"has a layer {name}, which loads a program", "a program can do anything", str(one.get("name"))
            )
        if isinstance(module, str) and "class_name" in one and module != "builtins":
            own = _KERAS.fullmatch(module) or (module in ("keras", "tf_keras") and name in _TOP)
            if not own and not (isinstance(registered, str) and known(registered)):
                why = "loading it would import and call that (CVE-2025-1550); it is known to be no layer of Keras"
                raise _unsafe(path, f"names {module[:80]}.{str(name)[:80]}", why)
        if name in ("TFOpLambda", "SlicingOpLambda", "ClassMethod") or "TFOpLambda" in str(one.get("registered_name")):
            inner = one.get("config")
            called = str(inner.get("function", "")) if isinstance(inner, Mapping) else ""
            if _TF_CALLS.search(called.removeprefix("tf.").removeprefix("compat.v1.")):
                raise _unsafe(path, f"calls tf.{called[:80]}", "it reads or writes files, or runs code")
        for key in _LISTS:
            if isinstance(one.get(key), str):
                why = "Keras would read a file of this machine, or fetch it (CVE-2025-12058)"
                raise _unsafe(path, f"takes its {key} from {one[key][:80]!r}", why)


def check_exported(path: Path) -> None:
    """Refuse a torch.export program with pickles, libraries or texts that torch would evaluate.

    Raises:
        ModelError: with the member. FileError: it is damaged, or of torch before 2.8.
    """
    from layoutx.files.pt2_file import program_json

    program = program_json(path)  # refuses what torch before 2.8 wrote, pickled
    with reading(path, "an exported program"), zips.opened(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and not _MEMBERS.fullmatch(name):
                raise _unsafe(path, "holds more than a graph and its weights", "it may be a library or a pickle", name)
            if name.endswith("_config.json"):
                entries = json.loads(zips.content(archive, name, path))["config"]
                for key, entry in entries.items():
                    if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                        raise _unsafe(
                            path, f"has '{key[:80]}' pickled", "torch would unpickle it, which runs code", name
                        )
            if name.endswith(".pt"):
                _check_inputs(path, name, zips.content(archive, name, path))
    _check_program(path, program)


def _check_inputs(path: Path, name: str, data: bytes) -> None:
    """torch.export.load unpickles example inputs without weights_only, if they cannot be read with it."""
    from layoutx.files.torch_file import need_torch

    if not data:
        return
    try:
        need_torch().load(io.BytesIO(data), weights_only=True)
    except LayoutxError:
        raise
    except Exception as error:  # torch raises many types
        why = f"torch would unpickle them, which runs code: {' '.join(str(error).split())[:200]}"
        raise _unsafe(path, "has example inputs that are more than tensors", why, name) from error


def _check_program(path: Path, program: Mapping[str, Any]) -> None:
    for one in _mappings(program):
        target = one.get("target")
        if isinstance(target, str) and "inputs" in one and (not _CALLED.fullmatch(target) or "from_file" in target):
            raise _unsafe(path, f"calls {target[:80]}", "it is none of torch's own operators on tensors")
        for text in (one.get("expr_str"), *(one.get("range_constraints") or ())):
            if isinstance(text, str) and not _is_expression(text):
                raise _unsafe(path, f"has {text[:80]!r} for a size", "torch would evaluate it as Python code")


def _is_expression(text: str) -> bool:
    """Whether a text is a formula of sizes, as torch spells them; sympy would evaluate anything."""
    text = _TEXT.sub(r"\1(x", text)
    if not _EXPRESSION.fullmatch(text) or _REACHES.search(text):
        return False
    return set(re.findall(r"([A-Za-z_]\w*)\s*\(", text)) <= set(_FUNCTIONS.split())


def check_script(path: Path) -> None:
    """Refuse a TorchScript archive whose code reads or writes files.

    Raises:
        ModelError: with the line.
    """
    with reading(path, "a TorchScript archive"), zips.opened(path) as archive:
        for name in archive.namelist():
            if "/code/" in name and name.endswith(".py"):
                for line in zips.content(archive, name, path).decode("utf-8").splitlines():
                    if re.search(
                        r"\b(from_file|torch\.(save|load)|ops\.(?!prim\b|aten\b|prims\b|torchvision\b|quantized\b))",
                        line,
                    ):
                        raise _unsafe(path, "calls more than torch's operators on tensors", line.strip()[:120], name)


def check_saved_model(folder: Path) -> None:
    """Refuse a SavedModel whose graph reads or writes files, or runs Python, outside of saving and restoring.

    Raises:
        ModelError: with the operation.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file_ops = set(_FILE_OPS.split())
    with reading(folder, "a SavedModel"):
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        bodies = [(body.signature.name, body.node_def) for body in graph.library.function]
        saving = {name for name, nodes in bodies if any(node.op in _SAVING for node in nodes)}
        for where, nodes in [*bodies, ("the graph", graph.node)]:
            for node in nodes:
                if node.op in file_ops or (where != "the graph" and _calls(node) & saving):
                    raise _unsafe(
                        folder, f"has the operation {node.op}", "it would read or write files", where, node.name
                    )
        for signature in (one for meta in saved.meta_graphs for one in _functions(meta)):
            if signature in saving and "traced_save" not in signature:
                raise _unsafe(folder, "writes files when it is called", "a function of the model saves", signature)


def _calls(node: Any) -> set[str]:
    """The functions that a node calls."""
    return {value.func.name for value in node.attr.values() if value.func.name}


def _functions(meta: Any) -> Iterator[str]:
    """The functions of the objects that a SavedModel holds."""
    yield from meta.object_graph_def.concrete_functions
