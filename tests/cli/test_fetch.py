"""`densekit fetch` and `densekit run --fetch`: what is typed, what is said, and the paper's two
stages in small from nothing to a trained model.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from densekit.exchange.convert import convert_folder
from densekit.launch.launchers.local import Local
from densekit.model.inspection import inspect
from densekit.spec.conversion import ConversionReport, ConversionRequest
from densekit.spec.execution import Execution
from tests.support.command_line import Cli
from tests.support.http_double import serving
from tests.support.hub_double import HubDouble
from tests.support.paper_in_small import LANGUAGE, TOWER, publish
from tests.support.published import tree
from tests.support.workplace import Forked, Workplace


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were converted, in this process: a process of its own imports torch again."""
    folders: list[Path] = []

    def convert(self: Local, request: ConversionRequest, execution: Execution) -> ConversionReport:
        folders.append(request.folder)
        return convert_folder(request.folder, request.to)

    monkeypatch.setattr(Local, "convert", convert)
    return folders


@pytest.fixture
def published(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubDouble]:
    with serving(HubDouble()) as server:
        assert isinstance(server, HubDouble)
        tiny = workplace.root / ".cache" / "densekit" / "tiny"
        variables = publish(server, tiny, tmp_path)
        for name in ("DENSEKIT_CATALOG", "HF_ENDPOINT"):
            monkeypatch.setenv(name, variables[name])
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", variables["HF_HUB_CACHE"])
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_one_command_fetches_checks_and_trains_both_stages(
    published: HubDouble,
    converted: list[Path],
    run_cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Local, "launch", Forked.launch)
    monkeypatch.setattr(Local, "inspect", lambda self, parts, execution: inspect(parts))
    refused = run_cli("run", "small_stage2.yaml", "--device", "cpu")
    assert refused.code == 3 and not list(tmp_path.glob("runs/*"))
    assert "`densekit fetch small_stage2.yaml` gets what is missing, or add --fetch" in refused.err
    assert not published.requests, "without --fetch nothing is asked for"

    done = run_cli("run", "small_stage2.yaml", "--fetch", "--device", "cpu")
    assert done.code == 0, done.err
    assert "needed in" in done.err and f"fetched   {LANGUAGE} to" in done.err
    assert done.err.count("nothing that training refuses") == 2, "both data sets were verified"
    for name in ("small_stage1", "small_stage2"):
        (status,) = tmp_path.glob(f"runs/{name}-*/status.json")
        assert json.loads(status.read_text(encoding="utf-8"))["state"] == "complete"
    (manifest,) = tmp_path.glob("runs/small_stage2-*/manifest.json")
    assert published.commit in manifest.read_text(encoding="utf-8")
    models = [tmp_path.resolve() / "models" / name for name in (LANGUAGE, TOWER)]
    assert converted == models
    for model in models:
        (model / "pytorch_model.bin").unlink()

    asked = len(published.requests)
    again = run_cli("run", "small_stage2.yaml", "--fetch", "--device", "cpu")
    assert "already complete" in again.out
    assert len(published.requests) == asked, "pickles may go once they are converted"


def test_the_command_that_a_refused_run_names_gets_what_it_lacks(
    published: HubDouble, converted: list[Path], run_cli: Cli, tmp_path: Path
) -> None:
    own = tmp_path / "my own" / "mine.yaml"
    own.parent.mkdir()
    own.write_text(f"extends: {tmp_path}/small_stage1.yaml\n", encoding="utf-8")
    words = ("run", own, "--set", f"models.vision_tower=models:{LANGUAGE}", "--models-dir", "m")
    refused = run_cli(*words, "--device", "cpu")
    commands = {words for words in refused.err.split("`") if words.startswith("densekit fetch")}
    assert len(commands) == 1 and str(own) in refused.err
    fetched = run_cli(*shlex.split(commands.pop())[1:], "--only", "models")
    assert fetched.code == 0 and converted == [tmp_path.resolve() / "m" / LANGUAGE]
    assert (tmp_path / "m" / LANGUAGE / "model.safetensors").is_file()


def test_parts_subjects_and_folders_are_chosen(
    published: HubDouble, converted: list[Path], run_cli: Cli, tmp_path: Path
) -> None:
    part = run_cli("fetch", "small_stage2.yaml", "--part", "coco", "--to", "there")
    assert part.code == 0 and "not verified yet: " in part.err
    found = tree(tmp_path / "there")
    assert found and all(name.startswith("data/coco/train2017/") for name in found)
    done = run_cli("fetch", "small_stage2.yaml", "--only", "models", "--models-dir", "m")
    assert done.code == 0
    assert {name.rpartition("/")[0] for name in tree(tmp_path / "m")} == {LANGUAGE, TOWER}
    assert len(converted) == 2
    again = run_cli("fetch", "small_stage2.yaml", "--only", "models", "--models-dir", "m")
    assert f"complete  {LANGUAGE}" in again.err and "to download" not in again.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nothing_stage2",), 2, "no recipe named 'nothing_stage2'"),
        (
            ("vicuna7b_clip_stage2", "--part", "cocoa"),
            2,
            "has no such part; there is lmsys/vicuna-7b",
        ),
        (("vicuna7b_clip_stage2", "--only", "all"), 2, "--only"),
        (
            ("vicuna7b_clip_stage2", "--from", "nowhere"),
            2,
            "--from nowhere: there is no",
        ),
        (("vicuna7b_clip_stage2", "--to", "a", "--data-dir", "b"), 2, "omit --data-dir"),
    ],
)
def test_wrong_words_are_named(
    run_cli: Cli, words: tuple[str, ...], code: int, message: str
) -> None:
    found = run_cli("fetch", *words)
    assert found.code == code and message in found.err


def test_what_densekit_makes_is_not_fetched(run_cli: Cli) -> None:
    assert "tiny_stage2: nothing to fetch" in run_cli("fetch", "tiny_stage2").out
