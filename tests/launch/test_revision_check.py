"""What `doctor` says about the commits of models and data."""

from pathlib import Path

import pytest

from densekit.launch import revision_check
from densekit.launch.revision_check import check_revisions
from densekit.recipes.load import load_recipe
from densekit.recipes.revisions import Repository
from densekit.spec.roots import Roots

A, B = "a" * 40, "b" * 40


def downloaded(folder: Path, commit: str, name: str = "config.json") -> None:
    path = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{commit}\netag\n0\n", encoding="utf-8")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Repository]:
    repos = [
        Repository(
            name="own/llm", field="models.language_model", reference="models:own/llm", commit=A
        ),
        Repository(name="own/data", field="data.annotations", reference="data:data", commit=A),
    ]
    monkeypatch.setattr(revision_check, "repositories", lambda recipe: repos)
    return repos


def test_unpinned_repositories_warn(tmp_path: Path) -> None:
    recipe, roots = (
        load_recipe("vicuna7b_stage1"),
        Roots(models=tmp_path / "models", data=tmp_path / "data"),
    )
    told = check_revisions(recipe, roots)
    assert (told.name, told.state) == ("vicuna7b_stage1: revisions", "warn")
    names = "lmsys/vicuna-7b-v1.5, google/siglip-so400m-patch14-384, liuhaotian/LLaVA-Pretrain"
    assert told.message == f"no commit is pinned for {names}: `densekit pin` resolves them"
    downloaded(tmp_path / "models/lmsys/vicuna-7b-v1.5", B)
    assert f"for lmsys/vicuna-7b-v1.5 (here: {B}), google" in check_revisions(recipe, roots).message


def test_folder_commit_is_compared_with_the_pin(tmp_path: Path, pinned: list[Repository]) -> None:
    recipe, roots = (
        load_recipe("vicuna7b_stage1"),
        Roots(models=tmp_path / "models", data=tmp_path / "data"),
    )
    told = check_revisions(recipe, roots)
    assert told.state == "ok" and "the commit of own/llm, own/data is not recorded" in told.message
    downloaded(tmp_path / "models/own/llm", A)
    told = check_revisions(recipe, roots)
    assert (
        told.state == "ok"
        and told.message.startswith("1 of 2 are of the pinned commit")
        and "the commit of own/data is not recorded" in told.message
    )
    downloaded(tmp_path / "data/data", B)
    told = check_revisions(recipe, roots)
    assert (
        told.state == "warn"
        and f"is of commit {B}, recipes/revisions.yaml pins {A} for own/data" in told.message
    )
    downloaded(tmp_path / "data/data", A, "other.json")
    assert f"is of commit {A}, {B}, " in check_revisions(recipe, roots).message
