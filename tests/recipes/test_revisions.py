"""Pinned commits: resolving them with a pretend hub, what the file keeps, and what a downloaded
folder tells.
"""

import shutil
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.recipes.load import load_recipe, recipe_names
from densekit.recipes.revisions import (
    REVISIONS_FILE,
    HuggingFaceHub,
    Kind,
    load_revisions,
    pin,
    repositories,
    unpinned,
)

A, B = "a" * 40, "b" * 40
VICUNA, PRETRAIN = "lmsys/vicuna-7b-v1.5", "liuhaotian/LLaVA-Pretrain"


class PretendHub:
    """Answers every repository with one commit; `down` is unreachable."""

    def __init__(self, commit: str = A, down: str | None = None) -> None:
        self.answer, self.down = commit, down
        self.asked: list[tuple[str, Kind]] = []

    def commit(self, repo: str, kind: Kind) -> str:
        self.asked.append((repo, kind))
        if repo == self.down:
            raise DataError(f"{repo}: the hub returned no commit")
        return self.answer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(REVISIONS_FILE, tmp_path / "revisions.yaml"))


def test_every_repository_of_a_recipe_is_listed() -> None:
    """Each paper recipe reads three: language model, tower, annotations; Mini-Gemini's a second
    tower too.
    """
    for name in recipe_names():
        recipe = load_recipe(name)
        fields = [repo.field for repo in repositories(recipe)]
        expected = ["models.language_model", "models.vision_tower", "data.annotations"]
        if recipe.connector.mining:
            expected.insert(2, "models.high_resolution_tower")
        assert fields == ([] if name.startswith("tiny") else expected), name
    listed = set(load_revisions().commits)
    assert {
        repo.name for name in recipe_names() for repo in repositories(load_recipe(name))
    } == listed


def test_folder_mapped_to_another_repository() -> None:
    (data,) = (
        repo
        for repo in repositories(load_recipe("vicuna7b_mgm_stage2"))
        if repo.field == "data.annotations"
    )
    assert (data.name, data.reference) == ("YanweiLi/MGM-Instruction", "data:MGM-Finetune")


def test_pin_fills_in_missing_commits_only(file: Path) -> None:
    before = file.read_text(encoding="utf-8").splitlines()
    hub = PretendHub()
    assert pin([VICUNA, PRETRAIN], hub=hub, path=file) == {VICUNA: A, PRETRAIN: A}
    assert hub.asked == [(VICUNA, "model"), (PRETRAIN, "dataset")]
    after = file.read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [
        (f"  {VICUNA}: ~", f"  {VICUNA}: {A}"),
        (f"  {PRETRAIN}: ~", f"  {PRETRAIN}: {A}"),
    ]
    assert load_revisions(file).commits[VICUNA] == A

    others = PretendHub(B)
    found = pin([], hub=others, path=file)
    assert VICUNA not in found and set(found) == set(load_revisions(file).commits) - {
        VICUNA,
        PRETRAIN,
    }
    assert pin([], hub=PretendHub(), path=file) == {}
    assert pin([VICUNA], hub=PretendHub(B), path=file) == {VICUNA: B}, (
        "one that is named is asked for again"
    )
    assert list(file.parent.iterdir()) == [file]


def test_pin_keeps_quotes_and_comments(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace(
        f"  {VICUNA}: ~", f'  "{VICUNA}" : null   # the small one'
    )
    file.write_text(text, encoding="utf-8")
    pin([VICUNA], hub=PretendHub(), path=file)
    assert f'  "{VICUNA}" : {A}   # the small one\n' in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("repos", [[], [VICUNA, PRETRAIN]])
def test_unreachable_hub_changes_nothing(file: Path, repos: list[str]) -> None:
    before = file.read_bytes()
    with pytest.raises(DataError, match=PRETRAIN):
        pin(repos, hub=PretendHub(down=PRETRAIN), path=file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_response_without_a_commit_changes_nothing(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(UsageError, match="String should match pattern"):
        pin([VICUNA], hub=PretendHub("main"), path=file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_unlisted_repository_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean lmsys/vicuna-7b-v1\.5"):
        pin(["lmsys/vicuna-7b"], hub=PretendHub(), path=file)
    with pytest.raises(UsageError, match="add a line for it first"):
        pin(["zzz/zzz"], hub=PretendHub(), path=file)


def test_entries_that_share_a_line_are_refused_whole(file: Path) -> None:
    text = f"models: {{{VICUNA}: ~}}\ndatasets: {{}}\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="shares its line with something else"):
        pin([VICUNA], hub=PretendHub(), path=file)
    assert file.read_text(encoding="utf-8") == text


def test_unwritable_file_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose recipes belong to somebody else."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(
        DataError, match=r"cannot be written: .*Permission denied; run `densekit pin` in a checkout"
    ):
        pin([VICUNA], hub=PretendHub(), path=file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_real_hub_client_reports_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own errors become one message: an offline client, and an address where nobody
    listens.
    """
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(
        DataError, match=f"{VICUNA}: the hub returned no commit: .*HF_TOKEN; nothing was changed"
    ):
        HuggingFaceHub().commit(VICUNA, "model")


@pytest.mark.parametrize(
    "text",
    ["models: {a/b: main}\ndatasets: {}\n", "models: {ab: ~}\ndatasets: {}\n", "models: {}\n"],
)
def test_wrong_revisions_yaml_is_refused(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=str(file)):
        load_revisions(file)


def test_plan_notes_unpinned_repositories(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    recipe = load_recipe("vicuna7b_stage2")
    (note,) = unpinned(recipe)
    assert note.startswith(
        f"no commit is pinned for {VICUNA}, google/siglip-so400m-patch14-384, "
        "liuhaotian/LLaVA-Instruct"
    )
    pin([], hub=PretendHub(), path=file)
    pinned = load_revisions(file)
    monkeypatch.setattr("densekit.recipes.revisions.load_revisions", lambda: pinned)
    assert unpinned(recipe) == [] == unpinned(load_recipe("tiny_stage2"))
    mine = load_recipe("vicuna7b_stage2", ["models.language_model=models:me/mymodel"])
    assert unpinned(mine) == ["recipes/revisions.yaml has no line to pin me/mymodel in"]
