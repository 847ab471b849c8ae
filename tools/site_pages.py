"""What mkdocs asks while it builds the site: pages that lie outside docs/ (README and its like),
and the reference, one page for each room of the package, made of its docstrings.

A link out of the site, to a recipe or a test, becomes the file's name: a built site has no checkout
beside it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "densekit"
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
"""File of the checkout -> page of the site."""
WITHOUT_REFERENCE = ("cli", "ranks", "shipped")
"""Rooms that nobody imports from."""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def rooms() -> list[str]:
    """Folders of the package, in order."""
    found = (path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    return sorted(name for name in found if name not in WITHOUT_REFERENCE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for room in rooms():
        text = (
            f"# densekit.{room}\n\n::: densekit.{room}\n    options: {{show_root_heading: false}}\n"
        )
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the pages of the reference in the navigation."""
    for section in config.nav or []:
        for title, pages in section.items():
            if isinstance(pages, list):
                section[title] = [_with_reference(page) for page in pages]
    return config


def _with_reference(page: object) -> object:
    if page == {"Reference": "reference/"}:
        return {"Reference": [{f"densekit.{room}": f"reference/{room}.md"} for room in rooms()]}
    return page


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they hold on the site."""
    name = page.file.src_uri
    source = next((path for path, to in OUTSIDE.items() if to == name), f"docs/{name}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = OUTSIDE.get(path) or (path.removeprefix("docs/") if path[:5] == "docs/" else None)
        if inside is None or files.get_file_from_path(inside) is None:
            return text if text.startswith("`") else f"{text} (`{path}`)"
        return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(name) or '.')}{anchor})"

    return LINK.sub(link, markdown)
