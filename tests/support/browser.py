"""Pages in the chromium of this system, without a window: what it complains about, and shots."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support.needs import needs

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (400, 1200)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MEASURE = """() => ({
    broken: [...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt),
    images: document.images.length,
    drawings: [...document.querySelectorAll('svg')]
        .filter(s => s.getBoundingClientRect().width > 50).length,
    wider: [...document.querySelectorAll('body *')].filter(e => {
        let p = e.parentElement, scrolls = false;
        for (; p && p !== document.body; p = p.parentElement)
            scrolls ||= ['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX);
        return !scrolls && e.getBoundingClientRect().right > innerWidth + 1;
    }).map(e => `${e.tagName} ${e.textContent.slice(0, 40)}`),
    scrolls: document.documentElement.scrollWidth - innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
    colour: getComputedStyle(document.body).color,
    layout: [...document.querySelectorAll('h1, h2, figure, figure > svg, .scroll, .samples')]
        .map(e => [e, e.getBoundingClientRect()])
        .map(([e, box]) => [e.tagName.toLowerCase(), Math.round(box.left), Math.round(box.width),
                            ...(e.tagName === 'H2' ? [e.textContent] : [])].join(' ')),
})"""
"""`layout`: kind, left edge and width of what the style places, in CSS pixels, from top to bottom.
Heights and the widths of tables follow from the fonts of a machine."""


@dataclass
class Seen:
    """One page at one width and in one scheme."""

    found: dict[str, Any]
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, exceptions, requests that failed or left the file."""


@contextmanager
def a_browser() -> Iterator[Any]:
    """A browser of playwright; skips the test where there is none."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        needs("browser", f"none of {', '.join(PROGRAMS)} is on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        needs("browser", "playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


def look(
    browser: Any,
    page: Path,
    *,
    width: int,
    scheme: str,
    shot: Path | None = None,
) -> Seen:
    """Open a page from its file, offline, and measure it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    try:
        opened = context.new_page()
        complaints: list[str] = []
        opened.on("console", lambda said: complaints.append(f"console {said.type}: {said.text}"))
        opened.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        opened.on("requestfailed", lambda asked: complaints.append(f"failed: {asked.url[:80]}"))
        opened.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith(("file:", "data:"))
                else complaints.append(f"asked for {asked.url[:80]}")
            ),
        )
        opened.goto(page.resolve().as_uri())
        if shot is not None:
            opened.screenshot(path=str(shot))
        return Seen(opened.evaluate(MEASURE), complaints)
    finally:
        context.close()
