"""The templates, one module each that defines TEMPLATE; `data.template` of a recipe names it."""

from importlib import import_module

from densekit.errors import UsageError
from densekit.spec.templates import template_names
from densekit.text.template import Template


def get_template(name: str) -> Template:
    """Return a template by name.

    Raises:
        UsageError: there is no such template.
    """
    if name not in template_names():
        raise UsageError(f"unknown template {name!r}; known: {', '.join(template_names())}")
    template: Template = import_module(f"densekit.text.templates.{name}").TEMPLATE
    return template
