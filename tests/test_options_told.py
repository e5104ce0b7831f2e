"""Every option that an error names is one of the command that was called, or the error says whose it is."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import layoutx
from layoutx.cli.elsewhere import OPTION, fitting, options
from layoutx.cli.options import COMMANDS
from layoutx.errors import ConsentError, ConversionError, Problems

KNOWN = options()
JOINING = ("match", "validate", "diagnose", "relate", "diff", "transfer", "report")


@cache
def texts() -> dict[str, str]:
    """Every text of the package that names an option, by where it stands; none of the command line itself."""
    root, found = Path(layoutx.__file__).parent, {}
    for path in sorted(root.rglob("*.py")):
        if "cli" in path.parts[len(root.parts) :]:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value):
                found[f"{path.relative_to(root)}:{node.lineno}"] = node.value
    return found


def test_every_option_that_a_text_names_is_one_of_some_command() -> None:
    every = set().union(*KNOWN.values())
    unknown = {where: name for where, text in texts().items() for name in OPTION.findall(text) if name not in every}
    assert unknown == {}
    assert len(texts()) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_names_options_of_its_command_or_says_whose_they_are(command: str) -> None:
    for where, text in texts().items():
        said = str(fitting(ConversionError("no", do=text), command))
        for name in OPTION.findall(text):
            others = [other for other in COMMANDS if name in KNOWN[other]]
            told = f"{name} is an option of layoutx {', '.join(others)}" in said
            called = any(f"layoutx {other}" in text for other in others)
            assert name in KNOWN[command] or told or called, (where, name)
            assert not (name in KNOWN[command] and told), (where, name)


def test_all_commands_that_join_two_models_take_the_same_words() -> None:
    shared = {"--map", "--pair", "--form", "--set", "--backend", "--running-std", "--skip", "--only", "--specs"}
    shared |= {"--ignore-key", "--keep-order"}
    assert {command for command in (*JOINING, "port", "convert") if shared - KNOWN[command]} == set()


def test_problems_stay_of_their_class_and_an_error_that_fits_stays_as_it_is() -> None:
    error = ConsentError("rounded", do="allow it with --allow rounds")
    assert fitting(error, "convert") is error
    several = fitting(Problems([error, error]), "validate")
    assert isinstance(several, ConsentError)
    assert str(several).count("--allow is an option of layoutx convert, port, transfer") == 2


def test_what_a_file_leaves_open_is_said_to_every_command_that_reads_it(tmp_path: Path) -> None:
    """A Keras file of weights alone, whose model is in another one: matched and related as a whole model is."""
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    inputs = keras.Input((6, 5, 2))
    x = keras.layers.Flatten()(keras.layers.Conv2D(3, 2, name="conv")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(7, name="fc")(x))
    model.save(tmp_path / "whole.keras")
    model.save_weights(tmp_path / "alone.weights.h5")
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(60, 7)).eval()
    layoutx.port(model, net)
    alone, config = tmp_path / "alone.weights.h5", tmp_path / "whole.keras"
    assert layoutx.match(alone, net, config=config).complete
    found = layoutx.relate(alone, net, config=config)
    assert "as the registry says" in str(found)
    assert layoutx.diff(alone, net, config=config).paired
    target = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(60, 7)).eval()
    layoutx.transfer(alone, target, config=config)
    assert torch.equal(target[2].weight, net[2].weight)
    for call in (layoutx.match, layoutx.relate, layoutx.diff):
        with pytest.raises(layoutx.UsageError, match="lacks a config"):
            call(config, net, config=config)
        with pytest.raises(layoutx.UsageError, match="says nothing about"):
            call(net, net, input_shape=(3, 4))
