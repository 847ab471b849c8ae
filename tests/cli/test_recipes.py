"""`densekit recipes`, `show` and `pin`."""

import json
import re
from pathlib import Path

import pytest
import yaml

from densekit.cli.output import wrapped
from densekit.errors import DataError
from densekit.recipes.load import recipe_names
from densekit.spec.recipe import Recipe
from tests.support.command_line import Cli


def test_recipes_lists_every_recipe(run_cli: Cli) -> None:
    listed = json.loads(run_cli("recipes", "--json").out)
    assert [item["name"] for item in listed] == recipe_names()
    assert {"title", "paper", "stage", "needs"} <= listed[0].keys()
    described = {"name", "title", "paper", "stage", "needs"}
    assert listed[0].keys() == described | {"scores", "here"}
    result = run_cli("recipes").out
    assert "Table 4: language models\n" in result and "  phi2_stage1 -> phi2_stage2\n" in result
    for line in result.splitlines():
        parts = wrapped(line, 80)
        assert max(map(len, parts)) <= 80 and " ".join(" ".join(parts).split()) == " ".join(
            line.split()
        )
        assert len(parts) == 1 or not re.search(r"\d +\d", line), "no line of a table is broken"


def test_show_sources(run_cli: Cli) -> None:
    result = run_cli("show", "yi34b_stage2_lora", "--sources", "--set", "seed=7").out.splitlines()
    assert "seed = 7  [--set seed=7]" in result
    place = result.index("lora.r = 128  [recipes/base/large_stage2_lora.yaml:4]")
    source = (
        "paper section 4.1 (r 128, alpha 256); official LoRA script (also dropout 0.05, no bias)"
    )
    assert result[place + 1] == f"    {source}"
    assert "models.tokenizer = null  [schema default]" in result
    values = json.loads(run_cli("show", "yi34b_stage2_lora", "--sources", "--json").out)
    assert {tuple(value) for value in values} == {("field", "value", "place", "source", "meaning")}
    whole = json.loads(run_cli("show", "yi34b_stage2_lora", "--json").out)
    assert len(values) > len(whole) and {
        value["field"].partition(".")[0] for value in values
    } == whole.keys() - {
        "sources",
        "notes",
    }


def test_show_keeps_no_source_for_a_value_that_was_overridden(run_cli: Cli, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: vicuna7b_clip_stage2\noptimizer: {learning_rate: 1.0e-3}\n")
    before = yaml.safe_load(run_cli("show", "vicuna7b_clip_stage2").out)["sources"]
    key = "optimizer.learning_rate"
    override = ("show", "vicuna7b_clip_stage2", "--set", f"{key}=1e-3")
    for command in (override, ("show", str(child))):
        sources = yaml.safe_load(run_cli(*command).out)["sources"]
        assert sources == {name: text for name, text in before.items() if name != key}
        told = json.loads(run_cli(*command, "--sources", "--json").out)
        assert [value["source"] for value in told if value["field"] == key] == [None]


def test_show_keeps_the_source_of_a_section_for_what_was_not_overridden(run_cli: Cli) -> None:
    before = yaml.safe_load(run_cli("show", "yi34b_stage2_lora").out)
    after = yaml.safe_load(run_cli("show", "yi34b_stage2_lora", "--set", "lora.r=7").out)
    assert "lora" in before["sources"] and "lora" not in after["sources"]
    kept = {name: after["sources"].get(f"lora.{name}") for name in ("r", "alpha", "dropout")}
    text = before["sources"]["lora"]
    assert kept == {"r": None, "alpha": text, "dropout": text}


def test_show_keeps_no_source_for_the_parts_of_a_replaced_section(
    run_cli: Cli, tmp_path: Path
) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: vicuna7b_clip_stage2\nconnector: {kind: none}\n")
    override = ("show", "vicuna7b_clip_stage2", "--set", "connector={kind: none}")
    for command in (override, ("show", str(child))):
        sources = yaml.safe_load(run_cli(*command).out)["sources"]
        assert not [name for name in sources if name.startswith("connector")]
        assert "optimizer.learning_rate" in sources
    told = json.loads(run_cli(*override, "--sources", "--json").out)
    assert {value["place"] for value in told if value["field"] == "connector.kind"} == {
        "--set connector={kind: none}"
    }


def test_schema_and_lint_speak_json_and_text(run_cli: Cli, tmp_path: Path) -> None:
    assert "extends" in json.loads(run_cli("schema").out)["properties"]
    assert "runs_dir" in json.loads(run_cli("schema", "site").out)["properties"]
    assert run_cli("schema", "paper").code == 2
    (tmp_path / "mine.yaml").write_text("extends: tiny_stage9\n")
    result = run_cli("lint", "mine.yaml")
    assert result.code == 1 and result.out.startswith("fail  mine.yaml: ")
    assert json.loads(run_cli("lint", "mine.yaml", "--json").out)["ok"] is False


def test_pin_without_a_network(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from densekit.recipes import revisions

    before = revisions.REVISIONS_FILE.read_bytes()
    monkeypatch.setattr(revisions, "HuggingFaceHub", lambda: NoHub())
    result = run_cli("pin")
    assert (result.code, result.out) == (
        3,
        "",
    ) and "densekit: lmsys/vicuna-7b-v1.5: nobody there" in result.err
    assert run_cli("pin", "microsoft/phi-3").code == 2
    assert revisions.REVISIONS_FILE.read_bytes() == before


class NoHub:
    """A hub that is out of reach."""

    def commit(self, repo: str, kind: str) -> str:
        raise DataError(f"{repo}: nobody there")


@pytest.mark.parametrize("name", recipe_names())
def test_what_show_prints_is_a_recipe(run_cli: Cli, name: str) -> None:
    values = json.loads(run_cli("show", name, "--json").out)
    assert values == yaml.safe_load(run_cli("show", name).out)
    assert Recipe.model_validate(values).name == name


def test_show_prints_groups_as_lists_of_numbers(run_cli: Cli) -> None:
    lines = run_cli("show", "vicuna7b_clip_stage2").out.splitlines()
    assert (
        "  - [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]" in lines and "  betas: [0.9, 0.999]" in lines
    )


def test_show_follows_overrides(run_cli: Cli) -> None:
    shown = run_cli(
        "show", "tiny_stage1", "--set", "seed=3", "--set", "title=\u00e9t\u00e9 \u00d7", "--json"
    )
    assert (json.loads(shown.out)["seed"], json.loads(shown.out)["title"]) == (
        3,
        "\u00e9t\u00e9 \u00d7",
    )


def test_new_writes_both_stages_and_says_what_is_next(run_cli: Cli, tmp_path: Path) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps([{"id": number} for number in range(7)]), encoding="utf-8")
    to = tmp_path / "mine"
    given = ("--captions", str(captions), "--images", str(tmp_path), "--to", str(to))
    out = run_cli("new", "my_stage1", "--from", "vicuna7b_stage1", *given).out
    assert f"written {to}/my_stage2.yaml" in out and f"densekit lint {to}" in out
    shown = yaml.safe_load(run_cli("show", f"{to}/my_stage1.yaml").out)
    assert shown["data"]["samples"] == 7 and shown["data"]["annotations"] == str(captions)
    assert "my_stage2 on 8 x a100-40g" in run_cli("plan", f"{to}/my_stage2.yaml").out
    again = run_cli("new", "my_stage1", "--from", "vicuna7b_stage1", *given)
    assert again.code == 2 and "exists" in again.err
    wrong = run_cli("new", "other", "--from", "vicuna7b_stage1", "--captions", str(tmp_path))
    assert wrong.code == 3 and str(tmp_path) in wrong.err
