"""The project's two commands, `demo` and `test`, with nothing but Python and git: each in an environment of its own.

    python3 scripts/run.py demo              convert the digits model, show the proof
    python3 scripts/run.py test [ARGS ...]   the whole test suite, or what pytest is told by ARGS
    python3 scripts/run.py env NAME          set up .venv/NAME (demo or test) and print the path of its Python

An environment is made once, in `.venv/` of this checkout. A stamp in it holds a hash of everything it was made from,
so that the next run starts at once and needs no network. pip reads its own configuration as it always does.
This file has to start on an old Python, if only to say so: no newer syntax than 3.6 at the top level.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv"
OLDEST = (3, 11)
STAMP = "layoutx-stamp"

# For each environment the pip calls that make it, in order: what it says, and its arguments.
# A lock is installed without looking at what its packages ask for (it is complete, tests/test_supply.py), so that
# nothing unhashed comes in and nothing pulls another build of torch; what a CUDA build of torch needs comes after it.
# "{wheels}" is a folder in the environment that keeps the wheels of the core install for tests/test_wheel.py.
LOCKED = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r"]
STEPS = {
    "demo": [("layoutx and its dependencies", ["install", "-e", "."])],
    "test": [
        ("torch", ["install", "--no-deps", "-r", "requirements/torch.txt"]),
        ("tensorflow, keras, onnx and the tools", ["install", *LOCKED, "requirements/test.lock"]),
        ("what torch needs besides", ["install", "-r", "requirements/torch.txt"]),
        # of a CUDA build of torch: one process cannot hold both its LLVM and TensorFlow's
        ("no triton", ["uninstall", "-y", "triton"]),
        ("layoutx", ["install", "--no-deps", "--no-build-isolation", "-e", "."]),
    ],
}
for age in ("newest", "oldest"):
    # Other machines and later Pythons have no wheels of the oldest versions.
    if age == "newest" or (sys.version_info[:2] == OLDEST and platform.machine() == "x86_64"):
        kept = "{wheels}/" + age
        step = ["download", "-d", kept, "--find-links", kept, *LOCKED, "requirements/" + age + ".lock"]
        STEPS["test"].append(("the " + age + " wheels of the core install", step))


def main(argv):
    """Run one command; its exit status is ours."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command == "demo" and not rest:
        return demo()
    if command == "test":
        return test(rest)
    if command == "env" and len(rest) == 1 and rest[0] in STEPS:
        print(environment(rest[0]))
        return 0
    print(__doc__, file=sys.stderr)
    return 2


def demo():
    """Convert the shipped Keras model to torch names, then check predictions on digits it was never trained on."""
    python = environment("demo")
    out = ROOT / "build" / "digits.safetensors"
    out.parent.mkdir(exist_ok=True)
    if out.exists():
        out.unlink()
    jobs = [
        ["layoutx", "convert", "examples/digits.keras", "-o", str(out.relative_to(ROOT)), "--to", "torch"],
        ["python", "scripts/demo_check.py", str(out.relative_to(ROOT))],
    ]
    for job in jobs:
        print("\n$ " + " ".join(job), flush=True)
        status = subprocess.call([str(python.parent / job[0]), *job[1:]], cwd=str(ROOT))
        if status:
            return status
    tests = VENVS / "test"
    if not (tests / STAMP).exists() or "unfinished" in (tests / STAMP).read_text():
        print(
            "\nThe core install has no torch. Once scripts/test has made its environment, this runs in torch as well."
        )
        return 0
    print("\n$ " + " ".join(jobs[1]) + "      # in .venv/test, which has torch", flush=True)
    return subprocess.call([str(tests / python.relative_to(VENVS / "demo")), *jobs[1][1:]], cwd=str(ROOT))


def test(arguments):
    """The suite on two processes; pytest's own closing line is the last one printed."""
    python = environment("test")
    settings = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    settings.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    call = [str(python), "-m", "pytest", "-n", "2", "--dist", "loadfile", *arguments]
    return subprocess.call(call, cwd=str(ROOT), env=settings)


def environment(name):
    """The Python of environment `name`, made or brought up to date where needed."""
    check_python()
    folder = VENVS / name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = folder / STAMP
    base, made_from = base_python(), fingerprint(name)
    before = stamp.read_text().split() if stamp.exists() else []
    if before == [base, made_from] and python.exists():
        return python

    started = time.monotonic()
    say("setting up .venv/" + name + " (once; later runs start at once)")
    if before[:1] != [base] or not python.exists():
        import venv

        venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(str(folder))
    for age in ("newest", "oldest"):
        (folder / "wheels" / age).mkdir(parents=True, exist_ok=True)
    stamp.write_text(base + "\nunfinished\n")
    for what, arguments in STEPS[name]:
        say({"install": "  installing ", "uninstall": "  "}.get(arguments[0], "  keeping ") + what)
        pip(python, [argument.replace("{wheels}", str(folder / "wheels")) for argument in arguments])
    stamp.write_text(base + "\n" + made_from + "\n")
    say("  done in {:.0f} s".format(time.monotonic() - started))
    return python


def check_python():
    """Stop with one clear line where this Python cannot do the job."""
    if sys.version_info < OLDEST:
        sys.exit(
            "layoutx needs Python 3.11 or newer; this is {} ({}).\n".format(sys.version.split()[0], sys.executable)
            + "  Choose another one:  PYTHON=python3.12 scripts/demo"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        sys.exit(
            "This Python cannot make virtual environments: it has no '{}' ({}).\n".format(error.name, sys.executable)
            + "  On Debian and Ubuntu: apt install python3-venv.  Or choose another: PYTHON=python3.12 scripts/demo"
        )


def base_python():
    """Which interpreter and which checkout an environment belongs to: neither can change under it."""
    text = "\n".join([sys.version, os.path.realpath(sys.executable), str(ROOT)])
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(name):
    """A hash of all that decides what gets installed; lint and test settings do not."""
    project = pyproject()
    hatch = project.get("tool", {}).get("hatch", {})
    steps = [arguments for _, arguments in STEPS[name]]
    parts = [json.dumps([project["project"], project["build-system"], hatch, steps], sort_keys=True)]
    if name == "test":
        parts += [path.read_text() for path in sorted((ROOT / "requirements").glob("*.*"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def pyproject():
    """The project's own description."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pip(python, arguments):
    """One pip call, silent while it works; where it fails, the end of what it said."""
    call = [str(python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(call, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        sys.exit(
            "\n".join([*said[-25:], "", "Setting up failed: pip " + " ".join(arguments)])
            + "\n  It needs the network, or wherever pip's own configuration finds packages; above is what pip said."
        )


def say(text):
    """Progress goes to standard error, so that `env` prints a path and nothing else."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
