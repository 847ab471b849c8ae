"""Cells of MMBench's table, as the official runner reads them: some texts are no text."""

from collections.abc import Iterable, Sequence

from densekit.spec.types import Semantics

READ_AS_EMPTY = {
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
}
"""What pandas, which reads the table, takes for a missing value."""
TAKEN_AS_NONE = {"none", "nan"}
"""In any case: what the runner itself takes for one."""


def read_cell(text: str, semantics: Semantics = "faithful") -> str | None:
    """A cell of the file; None: empty. Fixed: only an empty cell is."""
    empty = READ_AS_EMPTY if semantics == "faithful" else {""}
    return None if text in empty else text


def shown_hint(cell: str | None, semantics: Semantics = "faithful") -> str | None:
    """The hint that is asked with a question; None: there is none."""
    if cell is None or (semantics == "faithful" and cell.lower() in TAKEN_AS_NONE):
        return None
    return cell


def shown_options(
    cells: Sequence[str | None], semantics: Semantics = "faithful"
) -> tuple[str, ...]:
    """The options up to the first missing one; an option `none` or `nan` is missing too (fixed: it
    is an option).
    """
    return tuple(_until_missing(shown_hint(cell, semantics) for cell in cells))


def _until_missing(cells: Iterable[str | None]) -> Iterable[str]:
    for cell in cells:
        if cell is None:
            return
        yield cell
