"""What can be typed: every command with its options, its help and one example."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter
from importlib import import_module
from typing import Any, NoReturn

from layoutx.cli import commands, engine
from layoutx.cli.report import option as report_option
from layoutx.errors import UsageError
from layoutx.version import VERSION
from layoutx.words import near

# in the order of the help
COMMANDS = (
    *("inspect", "convert", "match", "port", "transfer", "plan", "specs", "explain", "relate", "record", "validate"),
    *("verify", "diagnose", "diff", "history", "report"),
)


class Parser(ArgumentParser):
    """An ArgumentParser whose complaints are errors of layoutx like all others; `asked`: whose help they name."""

    asked = ""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever; an option that there is not is told with those that it is like."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            alike = near(rest[0].partition("=")[0], self._like(rest[0].partition("=")[0]))
            what = f"unrecognized arguments: {' '.join(rest)}"
            plain = not rest[0].startswith("-")
            why = "an option takes one value, and is given again for each (--skip A --skip B); an output is -o OUT"
            raise UsageError(what, why=why if plain else alike, do=f"see {self.asked or self.prog} --help")
        return found

    def _like(self, word: str) -> list[str]:
        """Options of the command that are like a word, the dashes of both left out."""
        from difflib import get_close_matches

        inner = [one for action in self._actions if isinstance(action.choices, dict) for one in action.choices.values()]
        names = {name[2:] for one in (self, *inner) for name in one._option_string_actions}
        return [f"--{name}" for name in get_close_matches(word[2:], names)] if word.startswith("--") else []

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong:
            why = near(wrong[1], COMMANDS, "the commands are")
            raise UsageError(f"there is no command {wrong[1]!r}", why=why, do="see layoutx --help")
        raise UsageError(message, do=f"see {self.asked or self.prog} --help")


class Pairs(Action):
    """NAME=VALUE options gathered into a dict; a name given twice is an error."""

    def __call__(self, parser: ArgumentParser, space: Any, values: Any, option: str | None = None) -> None:
        """Add one pair."""
        name, equals, value = str(values).partition("=")
        if not (equals and name and value):
            parser.error(f"{option} takes NAME=VALUE, not {values!r}")
        known = dict(getattr(space, self.dest) or {})
        if name in known:
            parser.error(f"{option} {name} is given twice")
        setattr(space, self.dest, {**known, name: value})


def pairs_option(found: ArgumentParser, where: str) -> None:
    """Add --pair: a layer's place `where`."""
    about = f"a layer's place in {where}; for many: 'layers.*.wq=blocks.*.query'"
    found.add_argument("--pair", action=Pairs, default={}, metavar="LAYER=MODULE", help=about)


def parser(first: str = "") -> Parser:
    """The whole command line; given the name of a command as the first word, only as much of it as that needs."""
    top = Parser(
        prog="layoutx",
        description="Moves trained weights between frameworks and proves that they compute the same thing.",
        epilog="exit status: 0 done and verified, 1 refused or a verification failed, 2 the call was wrong",
    )
    top.add_argument("--version", action="version", version=f"layoutx {VERSION}")
    top.asked = f"layoutx {first}" if first in COMMANDS else ""
    several = top.add_subparsers(prog="layoutx", metavar="COMMAND", required=True, parser_class=Parser)
    for name in [first] if first in COMMANDS else COMMANDS:
        here = {"inspect": _inspect, "convert": _convert, "plan": _plan, "specs": _specs}
        add = here[name] if name in here else import_module(f"layoutx.cli.{name}").add
        add(several)
    return top


def _command(several: Any, name: str, about: str, example: str, run: Any) -> Parser:
    found: Parser = several.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    found.set_defaults(run=run)
    return found


def _common(found: ArgumentParser, inner: bool = False) -> None:
    """Options of every command; an inner command leaves alone what the outer one was given."""
    flag: Any = SUPPRESS if inner else False
    many: Any = SUPPRESS if inner else []
    found.add_argument("--json", action="store_true", default=flag, help="print JSON, errors too")
    found.add_argument("--specs", action="append", default=many, metavar="DIR", help="one more folder of spec files")


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"whole numbers are meant, as in 28,28,1, not {text!r}") from error


def _forms(found: ArgumentParser) -> None:
    found.add_argument(
        "--form",
        action=Pairs,
        default={},
        metavar="LAYER=FORM",
        help="the form of a layer, or of all of a pattern ('block*.attn'), that the file cannot tell",
    )
    input_shape(found)
    said_values(found)


def input_shape(found: ArgumentParser) -> None:
    """`--input-shape`."""
    about = "the model's input without batch, if unknown"
    found.add_argument("--input-shape", type=_shape, metavar="28,28,1", help=about)


def config(found: ArgumentParser, whose: str) -> None:
    """`--config`, of a model whose file lacks it."""
    about = f"the model's config where {whose} has none: a Keras file or to_json() text"
    found.add_argument("--config", metavar="FILE", help=about)


def said_values(found: ArgumentParser) -> None:
    """Options for what a file does not tell."""
    found.add_argument(
        "--set",
        action=Pairs,
        default={},
        metavar="[LAYER.]KEY=VALUE",
        help="a config value the file lacks (release=1.0.5; up.transpose_kernel=true; 'block*.num_groups=4')",
    )
    found.add_argument(
        "--backend",
        action=_Said,
        dest="set",
        choices=("tensorflow", "theano", "cntk"),
        help="the backend of a Keras 1 or 2 file that does not say it: Theano's kernels are back to front",
    )
    found.add_argument(
        "--running-std",
        action=_Said,
        dest="set",
        choices=("std", "variance"),
        help="what running_std of a Keras 1 file of unknown release holds",
    )


class _Said(Action):
    """An option of its own for a key of --set."""

    def __call__(self, parser: ArgumentParser, space: Any, values: Any, option: str | None = None) -> None:
        """Add the pair."""
        key = str(option).removeprefix("--").replace("-", "_")
        setattr(space, self.dest, {**(getattr(space, self.dest) or {}), key: values})


def _from(found: ArgumentParser) -> None:
    found.add_argument(
        "--from",
        dest="from_",
        default="",
        metavar="FRAMEWORK",
        help="whose names the file holds, if it does not say: torch, flax, nnx, haiku, equinox, paddle, mlx, tf1",
    )


def _inspect(several: Any) -> None:
    about = "show a model's layers, forms and tensors with named axes"
    found = _command(several, "inspect", about, "layoutx inspect digits.keras --stats", commands.inspect)
    found.add_argument(
        "file",
        metavar="FILE",
        help=".keras, .h5, .onnx, .tflite, .safetensors, .pt, .npz, .msgpack, .pdparams, TensorFlow checkpoint, folder "
        "(orbax, DCP, shards), or package.module:callable",
    )
    _from(found)
    _forms(found)
    found.add_argument("--stats", action="store_true", help="read the weights: NaN, dead units, norms, saturated gates")
    _common(found)


def _convert(several: Any) -> None:
    about = "convert a weights file for another framework, and prove it"
    example = "layoutx convert digits.keras -o digits.safetensors --to torch"
    found = _command(several, "convert", about, example, commands.convert)
    found.add_argument(
        "source",
        metavar="SOURCE",
        help=".keras, .h5, .onnx, .tflite, .safetensors, .pt, .npz, .msgpack, .pdparams, TensorFlow checkpoint, folder "
        "(orbax, DCP, shards)",
    )
    found.add_argument("-o", "--output", metavar="OUT", help="the file to write; its ending says the format")
    found.add_argument(
        "--to",
        required=True,
        metavar="FRAMEWORK",
        help="torch, keras, flax, paddle, ... (layoutx specs); SOURCE's own for another dtype, other shards or files",
    )
    found.add_argument(
        "--like", metavar="TARGET", help="the target's names: a file, or package.module:callable that builds the model"
    )
    consent(found, "not reversible (rounds, conditional, range), or layoutx.torch for torch (modules)")
    config(found, "SOURCE")
    found.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these layers out")
    found.add_argument("--only", action="append", default=[], metavar="GLOB", help="convert only these layers")
    _from(found)
    _forms(found)
    pairs_option(found, "the target")
    found.add_argument("--map", metavar="FILE", help="the pairing, as `layoutx match` wrote it")
    said(found)
    found.add_argument("--dry-run", action="store_true", help="plan, check, move and prove, but write nothing")
    engine.options(found)
    report_option(found)
    found.add_argument("--quiet", action="store_true", help="print nothing but errors")
    _common(found)


def keep_order(found: Any, about: str = "") -> None:
    """`--keep-order`, alone for all layers, or with a pattern."""
    about = about or "the target flattens channels-last, as Keras does: rows stay (of all layers, or of these)"
    found.add_argument("--keep-order", nargs="?", const="*", action="append", default=[], metavar="GLOB", help=about)


def consent(found: Any, what: str = "not reversible (rounds, conditional)") -> None:
    """`--allow`."""
    found.add_argument("--allow", action="append", default=[], metavar="WHAT", help=f"accept what is {what}")


def ignore_key(found: ArgumentParser) -> None:
    """`--ignore-key`."""
    about = "an unknown config key that does not matter"
    found.add_argument("--ignore-key", action="append", default=[], metavar="KEY", help=about)


def said(found: Any) -> None:
    """What the user says or allows where a model is filled: `convert` and `port` take the same words."""
    ignore_key(found)
    keep_order(found)
    found.add_argument(
        "--materialise",
        action="store_true",
        help="compute weights stored in parts (weight_norm), fold the norms that an ONNX target has folded, make those "
        "that an ONNX source has folded, and take a bias without a place off the mean of the norm after it",
    )
    found.add_argument("--no-live", action="store_true", help="prove with NumPy even where the framework is installed")


def _plan(several: Any) -> None:
    about = "show how one layer's tensors move from form to form"
    example = "layoutx plan keras.LSTM torch.LSTM --size input=7 --size hidden=5 --code"
    found = _command(several, "plan", about, example, commands.plan)
    found.add_argument("source", metavar="SOURCE_FORM", help="keras.LSTM; `layoutx specs` lists all")
    found.add_argument("target", metavar="TARGET_FORM", help="torch.LSTM")
    found.add_argument("--size", action=Pairs, default={}, metavar="AXIS=N", help="the length of an axis")
    found.add_argument("--config", "--set", action=Pairs, default={}, metavar="KEY=VALUE", help="the source's config")
    found.add_argument("--target-config", action=Pairs, default={}, metavar="KEY=VALUE", help="the target's config")
    found.add_argument("--code", action="store_true", help="print NumPy source that does the same")
    _common(found)


def _specs(several: Any) -> None:
    about = "list the spec registry, show one kind, or check spec files"
    found = _command(several, "specs", about, "layoutx specs show lstm", commands.specs)
    _common(found)
    inner = found.add_subparsers(metavar="show KIND | check [DIR ...]", parser_class=Parser)
    about = "show a kind's roles and every form's layouts"
    shown = _command(inner, "show", about, "layoutx specs show lstm", commands.show_kind)
    shown.add_argument("kind", metavar="KIND", help="a kind (lstm) or a form (keras.LSTM)")
    _common(shown, inner=True)
    example = "layoutx specs check my_specs"
    checked = _command(inner, "check", "check all spec files, and those of more folders", example, commands.check)
    checked.add_argument("folders", metavar="DIR", nargs="*", help="folders of spec files")
    _common(checked, inner=True)
