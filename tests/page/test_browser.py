"""The page in a real browser: opened, searched, folded, sorted, a picture compared; nothing on the console."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import layoutx as lx

PATIENCE = 180  # seconds for a browser, which a busy machine keeps waiting
EVIL = 'x"><img src=x onerror="window.evil=1"><script>window.evil=1</script>'
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu"]
        opened = running.chromium.launch(executable_path=CHROMIUM, args=options, timeout=1000 * PATIENCE)
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`new_page(**settings)`: a page with all the time that it needs."""
    pages: list[Any] = []

    def opened(**settings: Any) -> Any:
        pages.append(browser.new_page(**settings))
        pages[-1].set_default_timeout(1000 * PATIENCE)
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture
def tab(new_page: Callable[..., Any]) -> Iterator[Any]:
    """A tab that fails the test where the console says anything, or something is fetched."""
    page = new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    yield page
    page.close()  # what is left to say is said by then
    assert said == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model with ResNet50's 320 tensors and 25 million numbers."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(3)
    arrays: dict[str, np.ndarray] = {}
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            into = 64 if stage == 1 and block == 0 else 4 * width if block else 2 * width
            shapes = [(width, into, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            shapes += [(4 * width, into, 1, 1)] if block == 0 else []
            for number, shape in enumerate(shapes, 1):
                name = f"layer{stage}.{block}.conv{number}"
                arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * 0.02
                for key in ("weight", "bias", "running_mean", "running_var"):
                    arrays[f"layer{stage}.{block}.bn{number}.{key}"] = rng.random(shape[0], np.float32)
    arrays["fc.weight"], arrays["fc.bias"] = rng.standard_normal((1000, 2048), np.float32), rng.random(1000, np.float32)
    arrays[f"{EVIL}.weight"] = rng.standard_normal((7, 5), np.float32)
    save_file(arrays, folder / "resnet.safetensors")
    lx.report(folder / "resnet.safetensors", folder / "page.html")
    return folder / "page.html"


def test_it_is_small_and_opens_in_two_seconds(tab: Any, large: Path) -> None:
    assert large.stat().st_size < 5_000_000
    took: list[float] = []
    for pause in (0, 1, 3, 9):  # the machine may have been busy; a page that is slow is slow every time
        if min(took, default=9.0) >= 2:
            time.sleep(pause)
            start = time.perf_counter()
            tab.goto(large.as_uri())
            tab.locator("tbody tr").first.wait_for()
            took.append(time.perf_counter() - start)
    assert min(took) < (10 if os.environ.get("CI") else 2)  # a shared machine is no stopwatch
    assert tab.evaluate("window.evil") is None


def test_search_finds_layers_and_tells_how_many(tab: Any, large: Path) -> None:
    tab.goto(large.as_uri())
    total = tab.locator("#layers tbody tr").count()
    tab.keyboard.press("/")
    tab.keyboard.type("layer3.0 conv1")
    assert tab.locator("#layers tbody tr:visible").count() == 1
    assert tab.locator("#found").inner_text() == f"1 of {total} layers"
    tab.keyboard.press("Escape")
    assert tab.locator("#layers tbody tr:visible").count() == total


def test_columns_sort_both_ways_from_the_keyboard(tab: Any, large: Path) -> None:
    tab.goto(large.as_uri())
    head = tab.locator("#layers th", has_text="numbers")
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    shown = tab.locator("#layers tbody tr td:nth-child(4)").all_inner_texts()
    counts = [int(text.replace(",", "")) for text in shown]
    assert counts == sorted(counts, reverse=True)


def test_a_link_opens_its_card_and_cards_fold(tab: Any, large: Path) -> None:
    tab.goto(large.as_uri())
    tab.locator("#layers tbody tr").nth(2).locator("a").click()
    tab.locator("details.card[open]").first.wait_for()  # the page hears of it after the click
    assert tab.locator("details.card[open]").count() == 1
    tab.get_by_role("button", name="Open all").click()
    assert tab.locator("details.card[open]").count() == tab.locator("details.card").count()
    tab.get_by_role("button", name="Fold all").click()
    assert tab.locator("details.card[open]").count() == 0


def test_the_tree_folds(tab: Any, large: Path) -> None:
    tab.goto(large.as_uri())
    branch = tab.locator(".tree > details", has_text="layer2").first
    opened = branch.get_attribute("open") is not None
    branch.locator("summary").first.click()
    assert (branch.get_attribute("open") is not None) != opened


def test_the_heat_map_shows_the_numbers(tab: Any, tmp_path: Path) -> None:
    """Left half negative, right half positive, one number NaN: the pixels on the screen say so."""
    weight = np.where(np.arange(24) < 12, -1.0, 1.0) * np.linspace(0.9, 1.0, 16)[:, None]
    weight[15, 23] = np.nan
    save_file({"fc.weight": weight}, tmp_path / "net.safetensors")
    lx.report(tmp_path / "net.safetensors", tmp_path / "page.html")
    tab.goto((tmp_path / "page.html").as_uri())
    tab.get_by_role("button", name="Open all").click()
    script = """img => { const c = document.createElement('canvas');
      [c.width, c.height] = [img.naturalWidth, img.naturalHeight];
      const g = c.getContext('2d', {willReadFrequently: true}); g.drawImage(img, 0, 0);
      return [[2, 3], [20, 3], [23, 15]].map(([x, y]) => [...g.getImageData(x, y, 1, 1).data]); }"""
    image = tab.locator("img.heat").first
    image.wait_for()
    image.scroll_into_view_if_needed()
    tab.wait_for_function("img => img.complete && img.naturalWidth", arg=image.element_handle())
    (red, _, blue, _), (warm, _, cold, _), strange = image.evaluate(script)
    assert blue > red
    assert warm > cold
    assert strange[:3] == [214, 51, 108]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(new_page: Callable[..., Any], large: Path, scheme: str) -> None:
    page = new_page(color_scheme=scheme)
    page.goto(large.as_uri())
    style = "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    for element in ("h1", "#layers td", ".answer .dim", "a"):
        ink, paper = (luminance(text) for text in page.locator(element).first.evaluate(style))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, element


def test_nothing_is_wider_than_a_telephone(new_page: Callable[..., Any], large: Path) -> None:
    page = new_page(viewport={"width": 400, "height": 800})
    page.goto(large.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def luminance(colour: str) -> float:
    """The relative luminance of `rgb(1, 2, 3)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
