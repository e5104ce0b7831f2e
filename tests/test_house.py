"""The house stands: imports point downward, nothing heavy loads early, modules stay small, files name no machine."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "layoutx"

# Bottom first. A module may import its own layer and those below; the first entry that covers its name is its layer.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("layoutx.torch",),  # torch's modules: they need nothing of layoutx, and nothing of layoutx imports them
    ("layoutx.errors", "layoutx.empty", "layoutx.frozen", "layoutx.progress", "layoutx.version", "layoutx.words"),
    ("layoutx.lang",),
    ("layoutx.files.limits", "layoutx.files.store", "layoutx.model.record"),  # data only
    ("layoutx.spec",),
    ("layoutx.plan",),
    ("layoutx.files",),
    ("layoutx.move",),
    ("layoutx.model",),
    ("layoutx.verify",),
    ("layoutx.job",),
    (
        *("layoutx.transfer", "layoutx.transferred", "layoutx.blend", "layoutx.stats"),
        *(
            "layoutx.convert",
            "layoutx.port",
            "layoutx.parting",
            "layoutx.match",
            "layoutx.ported",
            "layoutx.inspect",
            "layoutx.report",
        ),
        *(
            "layoutx.api",
            "layoutx.show",
            "layoutx.validation",
            "layoutx.diagnose",
            "layoutx.diagnosis",
            "layoutx.mended",
            "layoutx.validate",
            "layoutx.validated",
            *("layoutx.diff", "layoutx.difference", "layoutx.history"),
            *("layoutx.explain", "layoutx.explained", "layoutx.verified"),
        ),
    ),
    ("layoutx",),  # the public names, and what this list does not know yet
    ("layoutx.cli", "layoutx.__main__"),
)
HEAVY = {"torch", "tensorflow", "keras", "tf_keras", "onnx", "onnxruntime", "jax", "h5py", "yaml", "rich"}
LIMIT = 300


def modules() -> dict[str, Path]:
    """Dotted name -> file, of all modules of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module that a source names in an import, wherever the import stands."""
    base = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*stem, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    """The layer of a module: that of the longest name in LAYERS that covers it."""
    covering = [
        (len(name), number)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    return max(covering)[1]


def upward(module: str, source: str, known: set[str], is_package: bool = False) -> list[str]:
    """The imports of a module that point to a higher layer."""
    wanted = {name for name in imports(source, module, is_package) if name in known and name != "layoutx"}
    return sorted(name for name in wanted if layer(name) > layer(module))


def named_imports(module: str, path: Path) -> set[str]:
    return set(imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"))


def test_imports_point_downward() -> None:
    known = modules()
    wrong = {
        module: found
        for module, path in known.items()
        if (found := upward(module, path.read_text(encoding="utf-8"), set(known), path.name == "__init__.py"))
    }
    assert wrong == {}


def test_nothing_below_the_command_line_imports_the_public_names() -> None:
    """`from layoutx import convert` inside the package would tie every layer to the top one."""
    above = {"layoutx.cli", "layoutx.__main__"}
    known = set(modules())
    wrong = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            from_top = isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "layoutx"
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) and from_top else []
            if module not in above and any(f"layoutx.{name}" not in known for name in names):
                wrong.append(f"{module}: from layoutx import {', '.join(names)}")
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("layoutx.lang.parse", "from layoutx.plan import steps", ["layoutx.plan", "layoutx.plan.steps"]),
        ("layoutx.lang.parse", "def f():\n    import layoutx.convert", ["layoutx.convert"]),
        ("layoutx.spec.bind", "if TYPE_CHECKING:\n    from ..files import npz", ["layoutx.files", "layoutx.files.npz"]),
        ("layoutx.spec.bind", "from layoutx.files.store import Tensor", []),
        ("layoutx.verify.probe", "from . import witness\nfrom .. import errors", []),
        ("layoutx.convert", "from layoutx.verify.probe import probe", []),
    ],
)
def test_an_upward_import_is_found(module: str, source: str, expected: list[str]) -> None:
    known = {
        *("layoutx.plan", "layoutx.plan.steps", "layoutx.convert", "layoutx.files", "layoutx.files.npz"),
        *("layoutx.files.store", "layoutx.verify", "layoutx.verify.probe", "layoutx.verify.witness", "layoutx.errors"),
    }
    assert upward(module, source, known) == expected


def test_the_language_needs_only_the_standard_library() -> None:
    foreign = {}
    for module, path in modules().items():
        if module.startswith("layoutx.lang"):
            tops = {name.split(".")[0] for name in named_imports(module, path)}
            foreign[module] = tops - set(sys.stdlib_module_names) - {"layoutx", "__future__"}
    assert foreign, "no module of layoutx.lang was looked at"
    assert {module: names for module, names in foreign.items() if names} == {}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after some code."""
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split()) & HEAVY


def test_importing_layoutx_loads_nothing_heavy() -> None:
    assert loaded_by("import layoutx") == set()


def test_nothing_imports_the_modules_of_torch() -> None:
    """`import layoutx.torch` is the user's own line: it loads torch. A runner finds it by name, when it runs one."""
    own = {name for name in modules() if name.split(".")[:2] == ["layoutx", "torch"]}
    wanted = {module: named_imports(module, path) & own for module, path in modules().items() if module not in own}
    assert own, "layoutx.torch was not found"
    assert {module: names for module, names in wanted.items() if names} == {}
    assert loaded_by("import layoutx.torch") >= {"torch"}


def test_a_heavy_import_is_found() -> None:
    assert loaded_by("import layoutx; import h5py") == {"h5py"}


def test_every_module_says_its_idea() -> None:
    silent, long = [], []
    for module, path in modules().items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        silent += [module] if len(first) < 20 else []
        long += [module] if first and first[-1] not in ".:?!" else []
    assert silent == []
    assert long == [], "the first line of a docstring is one whole sentence"


def test_modules_stay_small() -> None:
    """Over LIMIT lines only with a reason: a docstring whose first line holds "long because"."""
    too_long = {}
    for module, path in modules().items():
        text = path.read_text(encoding="utf-8")
        reason = "long because" in (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
        if len(text.splitlines()) > LIMIT and not reason:
            too_long[module] = len(text.splitlines())
    assert too_long == {}


# Spelled in pieces, so that this file does not find itself.
OF_A_MACHINE = re.compile(
    "|".join(
        [
            r"/wo" r"rk/(main|venv|tmp|shared)",
            r"/(ho" r"me|Us" r"ers)/[a-z]",
            r"/ro" r"ot/",
            r"/o" r"pt/[a-z]",
            r"py" r"pi\.(org|python)",
            r"python" r"hosted\.org",
            r"download\.py" r"torch\.org",
            r"--(extra-)?in" r"dex-url",
        ]
    )
)


def tracked() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    call = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def of_a_machine(text: str) -> list[str]:
    """What in a text belongs to one machine or names a registry."""
    return [found.group() for found in OF_A_MACHINE.finditer(text)]


def test_frozen_classes_are_made_the_quick_way() -> None:
    """`@frozen` of layoutx.frozen, where dataclasses would compile six methods; a cached property needs a dict."""
    wrong = [
        module
        for module, path in modules().items()
        if layer(module)
        and "frozen=True" in (text := path.read_text(encoding="utf-8")).split('"""', 2)[2]
        and "cached_property" not in text
    ]
    assert wrong == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = {}
    for path in tracked():
        data = path.read_bytes()
        hits = [] if b"\0" in data[:4096] else of_a_machine(data.decode("utf-8", errors="replace"))
        if hits:
            found[str(path.relative_to(ROOT))] = hits
    assert found == {}


def test_a_machine_is_found() -> None:
    assert of_a_machine("cd /wo" + "rk/main") == ["/wo" + "rk/main"]
    assert of_a_machine("pip install --in" + "dex-url x") == ["--in" + "dex-url"]


def test_no_tracked_file_is_large() -> None:
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked() if p.stat().st_size > 1_000_000}
    assert large == {}


def seconds(code: list[str]) -> float:
    """How long a fresh Python takes for it."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *code], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - started


def test_version_starts_fast() -> None:
    """Within three times the start of a Python that imports numpy; both measured in turn, medians, three attempts."""
    command = "import sys; sys.argv = ['layoutx', '--version']; from layoutx.cli import main; sys.exit(main())"
    ratios = []
    for _ in range(3):
        pairs = [(seconds(["-c", command]), seconds(["-c", "import numpy"])) for _ in range(5)]
        ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios.append(ours / bare)
        if ratios[-1] <= 3:
            return
    pytest.fail(f"`layoutx --version` takes {min(ratios):.1f} times the start of a Python that imports numpy")


def test_test_modules_have_names_of_their_own():
    """pytest imports them by their names alone: two of one name are one too many."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
