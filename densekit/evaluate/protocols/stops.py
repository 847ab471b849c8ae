"""The token texts that end an answer, beside the model's own end token."""

from densekit.spec.types import Semantics
from densekit.text.templates import get_template

OFFICIAL = {"llama_3": ("<|eot_id|>",)}
"""The official runners give one to this template alone."""


def stop_texts(template: str, semantics: Semantics) -> tuple[str, ...]:
    """Tokens to stop at under a template of densekit.text. Fixed: the template's own end of an
    answer; its text may be the model's end token.

    Raises UsageError for an unknown template.
    """
    ending = get_template(template).assistant_end.strip()
    if semantics == "fixed":
        return (ending,) if ending else ()
    return OFFICIAL.get(template, ())
