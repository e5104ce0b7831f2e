"""The page says what the result says, escapes every name, draws honestly, and is written whole or not at all."""

from __future__ import annotations

import base64
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import UsageError
from layoutx.page.charts import error_bar, histogram, lines
from layoutx.page.heat import heat
from layoutx.page.html import Html, plain, tag
from layoutx.page.write import page

EVIL = 'x"><script>window.evil=1</script><img src=x onerror=alert(1)>'


class Balanced(HTMLParser):
    """Counts scripts and complains about tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.scripts += tag == "script"
        if tag not in ("br", "img", "input", "meta", "link", "hr", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A torch file of two layers, one with a hostile name."""
    rng = np.random.default_rng(0)
    path = tmp_path / "net.safetensors"
    arrays = {"fc.weight": (5, 7), "fc.bias": (5,), f"{EVIL}.weight": (11, 5), f"{EVIL}.bias": (11,)}
    save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}, path)
    return path


def test_a_model_becomes_one_balanced_page_that_loads_nothing(weights: Path) -> None:
    text = page(weights)
    assert checked(text).scripts == 1
    assert "default-src &#x27;none&#x27;" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "url(" not in text
    assert "@import" not in text
    for name in ("weight (output 5, input 7)", "torch.Linear", "keras.Dense"):
        assert name in text


def test_names_are_escaped(weights: Path) -> None:
    text = page(weights)
    assert "<script>window" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_attributes_and_texts_are_escaped_but_markup_is_kept() -> None:
    assert tag("p", "<b>", class_='"') == '<p class="&quot;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "x"), [None, "y"]) == "<p><b>x</b>y</p>"
    assert isinstance(tag("br"), Html)
    assert plain("a\x00\u2028\u202e\u061c\u2066b") == "a�����b"
    assert len(plain("x" * 100_000)) < 5000


def pixels(uri: str, shape: tuple[int, int]) -> np.ndarray:
    data = base64.b64decode(uri.partition(",")[2])
    body = data[data.index(b"IDAT") + 4 :]
    raw = np.frombuffer(zlib.decompressobj().decompress(body), np.uint8)
    return raw.reshape(shape[0], shape[1] + 1)[:, 1:]


def test_one_outlier_survives_the_down_sampling() -> None:
    plane = np.full((2000, 3000), 0.01, np.float32)
    plane[1234, 2345] = -9.0
    drawn = heat(plane)
    shown = pixels(drawn.png, drawn.shape)
    row, column = 1234 // drawn.cell[0], 2345 // drawn.cell[1]
    assert shown[row, column] == shown.min() < 127
    assert np.count_nonzero(shown == shown.min()) == 1
    assert f"largest of {drawn.cell[0]} × {drawn.cell[1]} numbers" in drawn.caption


def test_what_is_not_finite_has_a_colour_of_its_own() -> None:
    plane = np.arange(35.0).reshape(5, 7)
    plane[2, 3] = np.nan
    drawn = heat(plane)
    shown = pixels(drawn.png, drawn.shape)
    assert shown[2, 3] == 255
    assert np.count_nonzero(shown == 255) == 1
    assert "1 NaN or infinite" in drawn.caption
    assert np.all(np.diff(shown[4].astype(int)) >= 0)


def test_charts_take_anything() -> None:
    for values in (np.array([np.nan, np.inf]), np.zeros(3), np.array([-1e300, 1e300]), np.array([5])):
        checked(histogram(values))
    for value in (None, 0.0, 1e-300, 1e300, float("nan")):
        checked(error_bar(value, True))
    checked(lines([("a", [0, 1, 2], [1.0, float("nan"), 0.0]), ("b", [0], [2.0])], "norm", log=True))
    checked(lines([], "nothing"))


def test_a_conversion_shows_every_key_and_the_certificate(tmp_path: Path) -> None:
    source = tmp_path / "net.safetensors"
    rng = np.random.default_rng(1)
    save_file({"fc.weight": rng.normal(size=(5, 7)), "fc.bias": rng.normal(size=5)}, source)
    result = lx.convert(source, tmp_path / "out.msgpack", to="flax", live=False)
    text = page(result, source)
    checked(text)
    assert "2 of 2 source tensors used, 2 of 2 target keys written." in text
    for section in ("Every key", "Certificate", "Layers that were moved", "Where the numbers live"):
        assert f"<h2>{section}</h2>" in text
    assert checked(page(result)).scripts == 1  # without the source's tensors too


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        lx.report(weights, tmp_path / "missing" / "page.html")
    place = tmp_path / "page.html"
    place.write_text("old")
    with pytest.raises(lx.LayoutxError):
        lx.report(tmp_path / "nothing.safetensors", place)
    assert place.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors", "page.html"]


def test_a_page_does_not_take_the_place_of_a_model(weights: Path) -> None:
    before = weights.read_bytes()
    assert main(["report", str(weights), "-o", str(weights)]) == 2
    assert main(["convert", str(weights), "--to", "onnx", "--dry-run", "--report", str(weights)]) == 2
    with pytest.raises(UsageError, match=r"net\.safetensors is no name of a page(.|\n)*end it with \.html"):
        lx.report(weights, weights)
    assert weights.read_bytes() == before


def test_what_has_no_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lx.LayoutxError):
        lx.report(3.5, tmp_path / "page.html")


def test_a_comparison_shows_the_first_that_differs_and_why() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    right, wrong = (
        torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 5)) for _ in range(2)
    )
    wrong.load_state_dict(right.state_dict())
    with torch.no_grad():
        wrong[2].weight.copy_(right[2].weight.T.clone())
    found = lx.diagnose(right, wrong, np.random.default_rng(2).normal(size=(3, 7)))
    text = page(found, right)
    checked(text)
    assert re.search(r"<h3>2 \(torch.Linear\)</h3>.*<b>F2</b>", text)
    assert "← the first that differs" in text
    assert text.count("<h2>Error by layer</h2>") == 1
    only = page(found.validation)
    assert "<h2>Why</h2>" not in only
    assert "<h2>Error by layer</h2>" in only


def test_two_models_that_agree_say_so() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(7, 5))
    text = page(lx.validate(model, model, np.ones((2, 7))))
    assert "they compute the same" in text
    assert 'class="verdict wrong"' not in text


def test_a_history_becomes_lines_and_units(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(7, 5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lx.History(tmp_path / "run.lxh") as history:
        history.watch(model, optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 7)).square().sum().backward()
            optimizer.step()
    text = page(tmp_path / "run.lxh")
    checked(text)
    for section in ("Tensors", "Norms", "Updates", "Units"):
        assert f"<h2>{section}</h2>" in text
    assert "0 weight, by output" in text
    assert text.count('class="line c0"') >= 2


def test_a_line_stops_where_a_value_has_no_place() -> None:
    drawn = str(lines([("a", [0, 1, 2, 3, 4], [1.0, 2.0, float("nan"), 3.0, 4.0])], "norm"))
    path = drawn.partition('class="line ')[0].rpartition(' d="')[2]
    assert (path.count("M"), path.count("L")) == (2, 2), path
    alone = str(lines([("a", [5], [1.0])], "norm"))
    assert "h3" in alone
    assert alone.count(">5</text>") == 1


def test_the_rows_after_a_flatten_are_drawn_as_the_other_framework_flattens_them() -> None:
    digits = Path(__file__).resolve().parents[2] / "examples" / "digits.keras"
    text = page(digits)
    card = text[text.index('id="layer-7"') : text.index('id="layer-8"')]
    assert "dense1" in card
    assert "weight = kernel.reshape(4, 20, 48).transpose(2, 1, 0)" in card
    assert "weight = kernel.T" not in card
