"""Whether a recipe's tokenizer loads, fits its template, and gives only ids that the language model
has rows for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densekit.errors import DataError, DensekitError
from densekit.spec.recipe import Recipe
from densekit.text.answers import check_ending
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer


def tokenizer_problems(
    recipe: Recipe, folder: Path, config: Mapping[str, Any]
) -> tuple[list[str], str | None]:
    """What is wrong with the tokenizer in `folder` for a language model with this config.json ({}:
    not known); and what is odd and no problem: a template whose end of an answer is no token.
    """
    field = "models.tokenizer" if recipe.models.tokenizer else "models.language_model"
    try:
        tokenizer = load_tokenizer(folder)
        SampleEncoder(
            tokenizer=tokenizer,
            template=recipe.data.template,
            semantics=recipe.semantics_of("L1"),
            max_length=recipe.data.max_length,
        )
    except DensekitError as error:
        return [f"{field}: {error}"], None
    note = None
    if recipe.stage == 2:
        try:
            check_ending(tokenizer, recipe.data.template)
        except DataError as error:
            note = f"{field}: {error} in {folder}: generation will not see where an answer ends"
    rows = config.get("vocab_size")
    if not isinstance(rows, int) or tokenizer.vocab_size <= rows:
        return [], note
    surplus = tokenizer.vocab_size - rows
    ids = f"id {rows}" if surplus == 1 else f"ids {rows} to {tokenizer.vocab_size - 1}"
    return [
        f"{field}: the tokenizer in {folder} has {ids}, but the embedding of "
        f"{recipe.models.language_model} has {rows} rows (vocab_size), for ids 0 to {rows - 1}: "
        "take the tokenizer of that model, or take the surplus tokens out of added_tokens.json and "
        "tokenizer_config.json"
    ], note
