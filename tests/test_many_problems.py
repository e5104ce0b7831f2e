"""Thousands of problems and of layers: one is shown for all that are alike, and none is lost where programs read."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import MOST_KINDS, MOST_SHOWN, ConsentError, ConversionError, Problems, UsageError
from layoutx.show.errors import error_json, error_text


def _many(count: int) -> Problems:
    return Problems(
        [
            ConversionError("there is no form", where=f"layer blocks.{n}.fc\x1b[{n}", do=f"--form {n}")
            for n in range(count)
        ],
        f"{count} layers",
    )


def test_a_few_problems_are_all_shown() -> None:
    error = _many(MOST_SHOWN)
    assert str(error).count("there is no form") == MOST_SHOWN == error_text(error).count("there is no form")
    assert "more like it" not in str(error)


def test_many_that_differ_in_numbers_only_are_shown_as_one() -> None:
    error = Problems([*_many(90_000).problems, UsageError("and this")])
    text = error_text(error)
    assert len(text.split("\n")) < 12
    assert "blocks.0.fc" in text
    assert "89,999 more like it, the last: layer blocks.89999.fc\\x1b[89999" in text
    assert "\x1b" not in text
    assert "UsageError: and this" in text
    assert "89,999 more like it" in str(error)


def test_layers_of_other_names_are_alike_where_nothing_else_differs() -> None:
    """A checkpoint of a few blocks: its projections and its norms are two problems, not forty."""
    parts = {"q_proj": "Linear", "k_proj": "Linear", "norm": "LayerNorm, RMSNorm", "mlp.up_proj": "Linear"}
    layers = [(f"model.layers.{n}.{part}", fit) for n in range(5) for part, fit in parts.items()]
    error = Problems(
        [ConversionError(f"layer {name}: no form", why=f"fits {fit}", do=f"--form {name}=FORM") for name, fit in layers]
    )
    assert str(error).count("ConversionError") == 2
    assert "and 14 more like it, the last: layer model.layers.4.mlp.up_proj: no form" in str(error)
    assert "and 4 more like it, the last: layer model.layers.4.norm: no form" in error_text(error)


def test_many_kinds_of_problems_are_cut() -> None:
    error = Problems([ConversionError("no " + "x" * n) for n in range(3 * MOST_KINDS)])
    assert str(error).count("ConversionError") == MOST_KINDS
    assert f"{2 * MOST_KINDS} more problems, of {2 * MOST_KINDS} other kinds" in str(error)


def test_json_holds_them_all() -> None:
    found = json.loads(error_json(_many(3 * MOST_SHOWN)))
    assert len(found["error"]["problems"]) == 3 * MOST_SHOWN


def test_problems_of_one_class_are_caught_by_it(tmp_path) -> None:
    """Two layers that need consent say so like one: who catches `ConsentError` asks the user for both."""
    rng = np.random.default_rng(2)
    gates = {"weight_ih": (20, 7), "weight_hh": (20, 5), "bias_ih": (20,), "bias_hh": (20,)}
    lstm = {f"{k}_l0": rng.normal(size=shape).astype("f4") for k, shape in gates.items()}
    np.savez(tmp_path / "two.npz", **{f"{name}.{k}": a for name in ("first", "second") for k, a in lstm.items()})
    with pytest.raises(ConsentError) as caught:
        lx.convert(tmp_path / "two.npz", tmp_path / "two.msgpack", from_="torch", to="flax")
    assert isinstance(caught.value, Problems)
    assert len(caught.value.problems) == 2


def test_problems_are_of_the_nearest_class_that_all_share() -> None:
    consents = [ConsentError("no"), ConsentError("nor this")]
    again = pickle.loads(pickle.dumps(Problems(consents, "two")))
    assert isinstance(again, ConsentError)
    assert isinstance(again.at("here"), ConsentError)
    mixed = Problems([*consents, ConversionError("never")])
    assert isinstance(mixed, ConversionError)
    assert not isinstance(mixed, ConsentError)
    assert not isinstance(Problems([*consents, UsageError("wrong")]), ConversionError)
    assert type(mixed).__name__ == "Problems"
