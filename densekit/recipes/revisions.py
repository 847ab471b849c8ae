"""Commits of the models and data that recipes read (recipes/revisions.yaml): looked up, resolved,
compared.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, ValidationError

from densekit.errors import DataError, UsageError
from densekit.recipes.yaml_lines import RECIPES_DIR, error_lines, read_document
from densekit.spec.part import Part
from densekit.spec.recipe import Recipe

REVISIONS_FILE = RECIPES_DIR / "revisions.yaml"
Kind = Literal["model", "dataset"]
RepoId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Revisions(Part):
    """recipes/revisions.yaml."""

    models: dict[RepoId, Commit | None]
    datasets: dict[RepoId, Commit | None]
    folders: dict[str, RepoId] = Field(default_factory=dict)
    """Folder below the data root -> repository, where the folder is not named after it."""

    @property
    def commits(self) -> dict[str, str | None]:
        """Commit by repository, models and data together."""
        return {**self.models, **self.datasets}


@dataclass(frozen=True, kw_only=True)
class Repository:
    """One repository that a recipe reads."""

    name: str
    field: str
    """The field of the recipe that refers to it."""
    reference: str
    """Its folder, as a reference to a named root."""
    commit: str | None
    """The pinned commit."""
    listed: bool = True
    """Whether recipes/revisions.yaml has a line for it."""


class Hub(Protocol):
    """Where commits are asked for."""

    def commit(self, repo: str, kind: Kind) -> str:
        """The newest commit of a repository. Raises DataError when it cannot be had."""
        ...


class HuggingFaceHub:
    """The hub itself, through its own client, which reads HF_ENDPOINT, HF_TOKEN and proxies from
    the environment.
    """

    def commit(self, repo: str, kind: Kind) -> str:
        """As `Hub.commit`."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        try:
            found = HfApi().repo_info(repo, repo_type=kind, timeout=30).sha
        except (OSError, ValueError, HTTPError) as error:
            raise DataError(
                f"{repo}: the hub returned no commit: {_first_line(error)}; check the network "
                "(HF_ENDPOINT, proxies) and, for a gated repository, HF_TOKEN; nothing was changed"
            ) from None
        if not found:
            raise DataError(f"{repo}: the hub's response holds no commit; nothing was changed")
        return found


def load_revisions(path: Path = REVISIONS_FILE) -> Revisions:
    """Read the pinned commits. Raises UsageError with file and line."""
    document = read_document(path)
    try:
        return Revisions.model_validate(document.values)
    except ValidationError as error:
        raise UsageError(error_lines(error, document, Revisions)) from None


def pin(
    repos: Sequence[str], *, hub: Hub | None = None, path: Path = REVISIONS_FILE
) -> dict[str, str]:
    """Resolve repositories (by default those without a commit) and write them into the file, all of
    them or none.

    Comments and order of the file stay. Returns the commits by repository. Raises UsageError for a
    repository that the file does not list, DataError when the hub does not answer for one.
    """
    hub = hub or HuggingFaceHub()
    revisions = load_revisions(path)
    unknown = [repo for repo in repos if repo not in revisions.commits]
    if unknown:
        close = difflib.get_close_matches(unknown[0], revisions.commits, n=1)
        hint = f"did you mean {close[0]}?" if close else "add a line for it first"
        raise UsageError(f"{unknown[0]} is not in {path}; {hint}")
    wanted = repos or [repo for repo, commit in revisions.commits.items() if commit is None]
    found = {
        repo: hub.commit(repo, "model" if repo in revisions.models else "dataset")
        for repo in wanted
    }
    if found:
        _write(path, found)
    return found


def repositories(recipe: Recipe, revisions: Revisions | None = None) -> list[Repository]:
    """The repositories that a recipe reads, as far as its references name them: models, and the
    annotation file's.
    """
    revisions = revisions or load_revisions()
    references = {
        "models.language_model": recipe.models.language_model,
        "models.vision_tower": recipe.models.vision_tower,
        "models.high_resolution_tower": recipe.models.high_resolution_tower or "",
        "models.tokenizer": recipe.models.tokenizer or "",
        "data.annotations": recipe.data.annotations,
    }
    by_folder = {repo.rpartition("/")[2]: repo for repo in revisions.datasets} | revisions.folders
    found = []
    for field, reference in references.items():
        root, _, rest = reference.partition(":")
        folder = rest.partition("/")[0]
        if root == "models" and re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
            name = rest
        elif root == "data" and folder in by_folder:
            name, reference = by_folder[folder], f"data:{folder}"
        else:
            continue
        commit, listed = revisions.commits.get(name), name in revisions.commits
        found.append(
            Repository(name=name, field=field, reference=reference, commit=commit, listed=listed)
        )
    return found


def unpinned(recipe: Recipe) -> list[str]:
    """Notes for a plan when a recipe reads repositories without a pinned commit; [] when there are
    none.
    """
    return not_pinned(
        {repo.name: repo.listed for repo in repositories(recipe) if repo.commit is None}
    )


def not_pinned(repos: Mapping[str, bool]) -> list[str]:
    """Notes on repositories without a commit; the values say whether recipes/revisions.yaml has a
    line for them.
    """
    listed = [name for name, is_listed in repos.items() if is_listed]
    others = [name for name, is_listed in repos.items() if not is_listed]
    return [
        *(
            [f"no commit is pinned for {', '.join(listed)}: `densekit pin` resolves them"]
            if listed
            else []
        ),
        *([f"recipes/revisions.yaml has no line to pin {', '.join(others)} in"] if others else []),
    ]


def _write(path: Path, commits: Mapping[str, str]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        entry = re.match(
            r"""^(\s+["']?)([\w.-]+/[\w.-]+)(["']?\s*:\s*)([^\s#]+)(.*)$""", line, re.DOTALL
        )
        if entry and entry[2] in commits:
            lines[number] = f"{entry[1]}{entry[2]}{entry[3]}{commits[entry[2]]}{entry[5]}"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text("".join(lines), encoding="utf-8")
        if any(
            load_revisions(temporary).commits[repo] != commit for repo, commit in commits.items()
        ):
            raise UsageError(
                f"{path}: a repository shares its line with something else; write each as "
                "`owner/name: commit` on a line of its own"
            )
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error}; run `densekit pin` in a checkout you may write to"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
