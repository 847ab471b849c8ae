"""The reported scores: what each recipe should score, where sources disagree, and what the file
refuses.
"""

import re
from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.recipes.listing import as_json, configurations, list_lines
from densekit.recipes.load import load_recipe, recipe_names
from densekit.recipes.paper import PAPER_FILE, Paper, agree, load_paper

TEXT = PAPER_FILE.read_text(encoding="utf-8")
STI = "recipe: vicuna7b_clip_sti_stage2"
COLUMNS = "columns: [gqa, vqav2, sqa, textvqa, pope,"
DCI_ROW = "values: [63.8, 79.5, 69.5, 59.2, 86.6, 66.8, 32.7, 66.1]"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


def test_scores_of_a_recipe(paper: Paper) -> None:
    scores = paper.scores("vicuna7b_clip_stage2")
    values = {name: score.value for name, score in scores.items()}
    assert values == {
        "gqa": 63.8,
        "vqav2": 79.5,
        "sqa": 69.5,
        "textvqa": 59.2,
        "pope": 86.6,
        "mmb": 66.8,
        "mmvet": 32.7,
        "llava_w": 66.1,
        "mmmu": 34.8,
        "mathvista": 26.9,
    }
    assert (
        scores["gqa"].sources == {"T1": 63.8, "T2": 63.8, "T8": 63.8}
        and scores["gqa"].conflict is None
    )
    assert "testdev-balanced" in paper.protocols[scores["gqa"].protocol].text
    assert paper.scores("tiny_stage2") == {}


def test_disagreeing_sources_are_listed(paper: Paper) -> None:
    score = paper.scores("vicuna7b_stage2")["gqa"]
    assert score.conflict is not None
    assert (score.value, {score.sources["T2"], score.sources["T8"]}) == (64.4, {64.2})
    assert {
        (conflict.subject, conflict.benchmark, conflict.take) for conflict in paper.conflicts
    } == {
        ("vicuna7b_stage2", "gqa", 64.4),
        ("vicuna13b_mgm_stage2", "mmvet", 47.8),
        ("vicuna7b_mgm_anyres_stage2", "mmmu", 36.4),
        ("vicuna13b_mgm_anyres_stage2", "mmmu", 36.8),
        ("yi34b_mgm_anyres_stage2", "mmmu", 51.8),
        ("vicuna13b_mgm_anyres_stage2", "sqa", 75.2),
        ("vicuna13b_clip_none_stage2", "mmb", 67.7),
        ("MGM-7B", "sqa", 70.4),
        ("Qwen-VL-Chat", "sqa", 68.2),
    }
    rounded = paper.scores("vicuna7b_stage2")["mme"]
    assert (rounded.value, rounded.sources, rounded.conflict) == (
        1523.2,
        {"T4": 1523, "F": 1523.2},
        None,
    )


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ([1523, 1523.2], True),
        ([1522, 1523.2], False),
        ([62.0, 62.4], False),
        ([62.0, 62.0], True),
        ([0.6, 0.7], False),
    ],
)
def test_rounded_values_agree(values: list[float], same: bool) -> None:
    assert agree(values) == same


def test_every_configuration_has_scores_and_its_table(paper: Paper) -> None:
    names = {table.name for table in paper.tables.values()}
    for name in recipe_names():
        recipe = load_recipe(name)
        if recipe.stage == 1 or name.startswith("tiny"):
            assert not paper.scores(name)
        elif recipe.paper and recipe.paper.startswith(("Official scripts,", "Variant,")):
            assert not paper.scores(name), "no score was published"
        else:
            assert len(paper.scores(name)) >= 5, name
            assert (recipe.paper or "").partition(",")[0] in names, name


BROKEN = {
    "unknown recipe": (STI, "recipe: vicuna7b_stj", "no recipe of that name: vicuna7b_stj"),
    "a row twice": (STI, "recipe: vicuna7b_clip_stage2", "vicuna7b_clip_stage2 has two rows"),
    "a cell short": (DCI_ROW, DCI_ROW.replace("63.8, ", ""), "has 7 values for 8 columns"),
    "out of range": (
        DCI_ROW,
        DCI_ROW.replace("63.8", "638"),
        "T1: vicuna7b_clip_stage2: gqa 638 is not bet",
    ),
    "a slip in one table": (
        DCI_ROW,
        DCI_ROW.replace("63.8", "63.9"),
        "disagree and are not in `conflicts`",
    ),
    "a whole number": (DCI_ROW, DCI_ROW.replace("69.5", "70"), None),
    "a word": (DCI_ROW, DCI_ROW.replace("63.8", "high"), "(got 'high')"),
    "unknown column": (COLUMNS, COLUMNS.replace("gqa", "gqq"), "T1: gqq"),
    "a column twice": (COLUMNS, COLUMNS.replace("vqav2", "gqa"), "is there twice"),
    "unknown protocol": ("protocol: pope}", "protocol: pop}", "pope: no protocol named 'pop'"),
    "unknown key": ("reruns:", "rerun:", "`rerun`: unknown key; did you mean `reruns`?"),
    "taken from nowhere": ("take: 64.4", "take: 64.3", "take 64.3: no source has that value"),
    "a conflict message wrong": ("Z: 64.4}", "Z: 64.2}", "vicuna7b_stage2: gqa: the tables have"),
    "a conflict that is none": ("T2: 64.2, T4: 64.4, T7", "T4: 64.4, T7", "the tables have"),
    "a conflict of nobody": (
        "subject: MGM-7B",
        "subject: MGM-9B",
        "MGM-7B: sqa: T2 70.4, Z 60.4 disagree and are not",
    ),
    "no subject": ("model: MGM-7B, values: [62.6", "values: [62.6", "a `recipe` or to a `model`"),
    "unknown rerun": (
        "values: {gqa: 63.08}",
        "values: {gqa: 163.08}",
        "gqa 163.08 is not between 0 and 100",
    ),
    "a table twice": ("  T2:\n", "  T1:\n", "`tables.T1` is written twice"),
    "a column of nobody": (
        "measured_by_authors: [mathvista]",
        "measured_by_authors: [mme]",
        "names no column of this",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_in_paper_yaml_are_named(tmp_path: Path, name: str) -> None:
    before, after, message = BROKEN[name]
    assert before in TEXT
    path = tmp_path / "paper.yaml"
    path.write_text(TEXT.replace(before, after, 1), encoding="utf-8")
    if message is None:
        load_paper(path)  # 70 and 69.5 are one number as far as 70 says
        return
    with pytest.raises(UsageError) as caught:
        load_paper(path)
    message = str(caught.value)
    assert all(line.startswith(f"{path}") for line in message.splitlines()) and message in message


def test_mistakes_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text(TEXT.replace(DCI_ROW, DCI_ROW.replace("63.8", "high")), encoding="utf-8")
    line = next(number for number, text in enumerate(TEXT.splitlines(), start=1) if DCI_ROW in text)
    with pytest.raises(UsageError) as caught:
        load_paper(path)
    assert str(caught.value).startswith(f"{path}:{line}: `tables.T1.rows.7.values.0")


def test_list_has_every_recipe_once_and_tables_within_80_columns() -> None:
    lines = list_lines({})
    tables = [line for line in lines if re.search(r"\d +\d|->|not supported", line)]
    assert len(tables) > 80 and max(map(len, tables)) <= 80
    first = {row.first.name for row in configurations() if row.first}
    second = [row.recipe.name for row in configurations()]
    assert sorted({*first, *second}) == recipe_names()
    arrows = [line.split("-> ")[1].split()[0] for line in lines if " -> " in line]
    assert sorted(arrows) == sorted(second)


def test_lines_of_the_list() -> None:
    lines = list_lines({})
    number = next(
        index
        for index, line in enumerate(lines)
        if line.endswith("-> vicuna7b_clip_sti_8_16_20_24_stage2")
    )
    message = " ".join(lines[number - 1].split())
    assert message == "STI 8,16,20,24 63.0 79.1 68.0 58.8 85.9 67.6 30.8 65.7 never"
    assert (
        next(line for line in lines if "yi34b_stage2_lora" in line)
        == "  yi34b_stage1 -> yi34b_stage2_lora"
    )
    assert "  every row: LLM Vicuna-7B, tower CLIP-L, data LLaVA-1.5, tuning full" in lines
    number = next(
        index
        for index, line in enumerate(lines)
        if line.endswith("-> vicuna7b_clip_convnext_mgm_stage2")
    )
    assert lines[number - 2] == "Vicuna-7B  CLIP-L+ConvNeXt DCI (1-12)(13-24) MGM"
    assert not [line for line in lines if "not supported" in line]
    legend = " ".join(lines)
    for code in ("CI", "DO", "CU", "TU", "CO", "/5 is", "STI", "SCI", "DCI", "SQA-I", "MME-P"):
        assert f" {code} " in legend
    number = next(index for index, line in enumerate(lines) if line.endswith("-> vicuna7b_stage2"))
    assert lines[number - 1].endswith(" 64.4! never")
    assert (
        "  vicuna7b_stage2, GQA: taken 64.4 (Table 4, Table 7, Teaser figure, Model zoo); "
        "64.2 (Table 2, Table 8)" in lines
    )
    number = lines.index("  vicuna7b_stage2")
    assert "Table 5: zero-shot video, scores of recipes listed above" in lines[:number]
    assert " 2.80 " in lines[number - 1], "all cells of a column have the same decimals"


def test_video_scores_belong_to_the_headline_rows(paper: Paper) -> None:
    """FreeVA trains nothing: the same weights answer questions about frames."""
    for recipe, value in (
        ("vicuna7b_stage2", 75.0),
        ("vicuna13b_stage2", 75.1),
        ("yi34b_stage2_lora", 77.4),
    ):
        assert paper.scores(recipe)["msvd"].value == value
    assert not [name for name in recipe_names() if "video" in name]
    text = paper.protocols["freeva"].text
    assert "8 frames" in text and "SigLIP" in text


def test_how_scores_were_made(paper: Paper) -> None:
    assert "MMMU's, which are sampled" in paper.evaluation and "retired" in paper.evaluation
    texts = {name: protocol.text for name, protocol in paper.protocols.items()}
    assert texts["vqav2"].startswith("test-dev") and texts["vizwiz"].startswith("test,")
    assert "beams" in texts["mmmu"] and "closed" in texts["mmb"]
    judges = [protocol.judge for protocol in paper.protocols.values() if protocol.judge]
    assert len(judges) == 4 and all("retired" in judge for judge in judges)
    sources = {rerun.recipe: rerun.source for rerun in paper.reruns}
    assert sources["vicuna7b_clip_none_stage2"].startswith("haotian-liu/LLaVA issue 680 ")


def test_list_as_json() -> None:
    listed = {entry["name"]: entry for entry in as_json({"phi2_stage2": "COMPATIBLE"})}
    assert list(listed) == recipe_names()
    score = listed["vicuna7b_stage2"]["scores"]["gqa"]
    assert score["value"] == 64.4 and score["conflict"]["values"]["T2"] == 64.2
    assert (listed["phi2_stage2"]["here"], listed["tiny_stage1"]["here"]) == ("COMPATIBLE", "never")


@pytest.mark.parametrize("word", ["COMPATIBLE", "OTHER PROTOCOL"])
def test_the_verdict_on_runs_here_stands_beside_the_scores(word: str) -> None:
    lines = list_lines({"vicuna7b_clip_stage2": word, "tiny_stage2": "no verdict"})
    number = next(at for at, line in enumerate(lines) if line.endswith("-> vicuna7b_clip_stage2"))
    assert lines[number - 1].endswith(f" 66.1 {word}")
    assert max(map(len, lines[: lines.index("")])) <= 80
    assert any(line.endswith(" no verdict") for line in lines)


PASSAGES = [
    ("noise:\n  gqa:", "noise:\n  gpa:", "no benchmark of that name: gpa"),
    ("decoding_source: LLaVA issue 927 (", "# ", "`decoding_sd` and `decoding_source` belong"),
    ("than: MGM-7B,", "than: MGM-8B,", "`baselines`: no table has MGM-8B"),
    ("[vicuna13b_stage2]", "[vicuna7b_stage2]", "`baselines` lists a recipe twice"),
    (
        "mmb, value: 64.3, tolerance: 1,",
        "mmc, value: 1, tolerance: 1,",
        "mmc",
    ),
]


@pytest.mark.parametrize(("old", "new", "problem"), PASSAGES)
def test_yardsticks_name_what_there_is(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "paper.yaml"
    assert TEXT.count(old) == 1
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(problem)):
        load_paper(path)


def test_gains_over_baselines(paper: Paper) -> None:
    assert paper.baseline("vicuna7b_clip_stage2") == "vicuna7b_clip_none_stage2"
    assert paper.gain("vicuna7b_clip_stage2", "gqa") == 1.8
    assert paper.gain("vicuna7b_clip_stage2", "mmmu") == -0.5
    assert paper.gain("vicuna7b_clip_anyres_stage2", "mmmu") == 2.2
    assert paper.gain("vicuna7b_mgm_stage2", "gqa") == 1.2, "over a model of others"
    assert paper.baseline("vicuna7b_clip_none_stage2") is None
    assert paper.gain("vicuna7b_clip_none_stage2", "gqa") is None
    assert paper.gain("vicuna7b_clip_stage2", "mme") is None
