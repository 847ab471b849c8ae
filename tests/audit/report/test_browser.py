"""Reports as a browser shows them: narrow and wide, light and dark, without a complaint."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from densekit.audit.report.write import write_comparison, write_index, write_report
from tests.support.browser import SCHEMES, WIDTHS, a_browser, look
from tests.support.evaluations import answered
from tests.support.runs import make_world, train

pytestmark = [pytest.mark.system, pytest.mark.slow]
LAYOUTS = Path(__file__).with_name("layouts.txt")
"""How pages are laid out, by page and width; a line a box."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    with a_browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a run with answers about its pictures, of two side by side, and of all."""
    folder = tmp_path_factory.mktemp("pages")
    world = make_world(folder / "world")
    first = train(world, folder / "runs")
    other = train(world, folder / "runs", recipe={"seed": 43})
    images = [world / "data" / f"photo {number}.png" for number in range(6)]
    for number, image in enumerate(images):
        Image.new("RGB", (2000, 900 + number), (200, 30 * number, 30)).save(image)
    for run in (first, other):
        answered(
            run, [("Which colour?", "red", image, f"an answer of {image.stem}") for image in images]
        )
    return {
        "run": write_report(first, folder / "run.html"),
        "comparison": write_comparison([first, other], folder / "comparison.html"),
        "index": write_index(folder / "runs", folder / "index.html"),
    }


def brightness(colour: str) -> int:
    """Of `rgb(r, g, b)`: the sum."""
    return sum(int(number) for number in re.findall(r"\d+", colour)[:3])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "comparison", "index"])
def test_a_page_shows_what_it_holds(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    seen = look(browser, pages[name], width=width, scheme=scheme)
    assert seen.complaints == []
    assert seen.found["broken"] == [], "pictures that did not load"
    assert seen.found["scrolls"] <= 0, f"wider than {width}: {seen.found['wider'][:5]}"
    dark = brightness(seen.found["background"]) < brightness(seen.found["colour"])
    assert dark == (scheme == "dark")
    if name == "run":
        assert seen.found["images"] > 0, "sample predictions beside their pictures"
    if name != "index":
        assert seen.found["drawings"] > 0, "curves"


def test_pages_are_laid_out_as_they_were(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    lines = []
    for name, page in pages.items():
        for width in WIDTHS:
            lines.append(f"{name}, {width} pixels wide")
            lines += look(browser, page, width=width, scheme="light").found["layout"]
    found = tmp_path / LAYOUTS.name
    found.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert found.read_text() == LAYOUTS.read_text(), f"if that is meant: cp {found} {LAYOUTS}"


def test_a_page_that_asks_for_something_is_noticed(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="gone.png" alt="gone"><div style="width:2000px">wide</div>'
        "<script>console.error('oh')</script>"
    )
    seen = look(browser, page, width=400, scheme="light")
    assert any("oh" in complaint for complaint in seen.complaints)
    assert seen.found["broken"] == ["gone"] and seen.found["scrolls"] > 0
