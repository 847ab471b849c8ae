"""Names of the templates: the modules of `densekit/text/templates`, which are not imported here."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "text" / "templates"


def template_names() -> tuple[str, ...]:
    """What `data.template` of a recipe may say, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__"))
