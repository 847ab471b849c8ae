"""What a response to MathVista's questions answers: the official rules, and rules in place of the
retired judge that they fall back on.
"""

import re
from collections.abc import Sequence

STATED = re.compile(r'The answer is "(.*)"\.')
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?|-?\.\d+")
LIST = re.compile(r"\[[^\[\]]*\]")
LAST = {"integer": NUMBER, "float": NUMBER, "list": LIST}


def extract(
    response: str, *, choices: Sequence[str] | None, answer_type: str, quick: bool = False
) -> str | None:
    """The official extraction without its judge; None: the judge would have been asked.

    `choices` None: a free-form question. `quick`: the runner's option --quick_extract.
    """
    if not response:
        return ""
    if choices is not None and response in choices:
        return response
    try:
        if answer_type == "integer":
            return str(int(response))
        if answer_type == "float":
            return str(float(response))
    except ValueError:
        pass
    stated = STATED.search(response) if quick else None
    return str(stated[1]) if stated else None


def by_rule(response: str, *, choices: Sequence[str] | None, answer_type: str) -> str:
    """In place of the judge: the stated answer, else the last number or list of a free-form
    response, else the response itself (of which the nearest choice is taken).
    """
    stated = STATED.search(response)
    if stated:
        return str(stated[1])
    rule = LAST.get(answer_type) if choices is None else None
    found: list[str] = rule.findall(response) if rule else []
    if not found:
        return response
    return found[-1] if rule is LIST else found[-1].replace(",", "")
