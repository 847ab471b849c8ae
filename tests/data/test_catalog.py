"""The catalog of published data sets: sizes, what recipes find in it, and wrong entries."""

from pathlib import Path

import pytest

from densekit.data.catalog import FileObject, data_set_of, data_sets, load_catalog
from densekit.errors import DataError
from densekit.recipes.load import load_recipe, recipe_names

ENTRY = (
    "- {name: x, description: d, url: u, kind: training, license: {text: t, source: s}, "
    "annotations: a.json, root: x, "
)


@pytest.mark.parametrize(
    ("size", "expected"), [("12 B", 12), ("3 kB", 3e3), ("181 MB", 181e6), ("27.4 GB", 27.4e9)]
)
def test_sizes_are_read_in_decimal_units(size: str, expected: float) -> None:
    file = FileObject(name="a", contentSize=size, source="a list")
    assert file.bytes == pytest.approx(expected)
    assert FileObject(name="a", source="nobody").bytes is None


@pytest.mark.parametrize("name", recipe_names())
def test_every_paper_recipe_finds_its_data_set(name: str) -> None:
    recipe = load_recipe(name)
    data_set = data_set_of(recipe.data.annotations)
    assert (data_set is None) == (recipe.assets is not None)


def test_data_set_is_found_by_the_name_of_its_annotation_file() -> None:
    for reference in (
        "llava_v1_5_mix665k.json",
        "data:llava_v1_5_mix665k.json",
        "data:LLaVA-Instruct-150K/llava_v1_5_mix665k.json",
        "/anywhere/llava_v1_5_mix665k.json",
    ):
        data_set = data_set_of(reference)
        assert data_set is not None and data_set.name == "LLaVA-Instruct-150K"
    assert data_set_of("data:mine.json") is None


def test_annotation_files_and_parts_are_unique() -> None:
    catalog = load_catalog()
    annotated = [entry.annotations for entry in catalog if entry.annotations]
    assert len(set(annotated)) == len(annotated)
    assert len({entry.name for entry in catalog}) == len(catalog)
    assert all(entry.distribution for entry in catalog)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- [", "cannot be read"),
        ("a: 1", "must hold a list of data sets"),
        ("- name: x", r"entry 0 \(x\): description: Field required"),
        ("- 1", r"entry 0 \(without a name\): "),
        (
            f"{ENTRY}distribution: [{{name: f, contentSize: 3 GiB, source: s}}]}}",
            r"entry 0 \(x\): distribution\.0\.contentSize: ",
        ),
        (
            f"{ENTRY}distribution: [{{name: f, folder: ../f, source: s}}]}}",
            r"distribution\.0\.folder: a name or folder is a relative path",
        ),
        (
            f"{ENTRY}distribution: [{{name: ../f, source: s}}]}}",
            r"distribution\.0\.name: a name or folder is a relative path",
        ),
        (
            f"{ENTRY}distribution: [{{name: f, contentUrl: 'ftp://f', source: s}}]}}",
            r"distribution\.0\.contentUrl: ",
        ),
        (
            f"{ENTRY}distribution: [{{name: f, source: s}}]}}",
            "part f needs a `contentUrl`, `byHand`, or the `repository`",
        ),
        (
            f"{ENTRY}repository: a/b, distribution: [{{name: f, source: s}}, "
            "{name: f, source: s}]}",
            "two parts of `distribution` are called f",
        ),
        (
            f"{ENTRY}distribution: []}}".replace("annotations: a.json, ", ""),
            "a data set for training needs `annotations`",
        ),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"{path}.*{message}"):
        load_catalog(path)


def test_a_catalog_of_ones_own_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEKIT_CATALOG", "nowhere.yaml")
    with pytest.raises(DataError, match=r"DENSEKIT_CATALOG names nowhere\.yaml, and there is no"):
        data_sets()


def test_counts_of_llava_agree_with_each_other() -> None:
    data_set = data_set_of("llava_v1_5_mix665k.json")
    assert data_set is not None and data_set.entries is not None
    entries = data_set.entries
    assert entries.count is not None and entries.text_only is not None
    assert sum(entries.folders.values()) == entries.count - entries.text_only == 624_610
    folders = {file.folder.partition("/")[0] for file in data_set.distribution}
    assert set(entries.folders) <= folders


@pytest.mark.parametrize("name", ["llava_v1_5_mix665k.json", "mgm_instruction.json"])
def test_recorded_repairs_can_be_followed(name: str) -> None:
    """A repair that copies or links says from where."""
    data_set = data_set_of(name)
    assert data_set is not None and data_set.repairs
    for repair in data_set.repairs:
        assert bool(repair.instead) == (repair.action in ("rename", "link")), repair.files


def test_benchmarks_have_questions_and_a_licence_with_its_source() -> None:
    benchmarks = data_sets("benchmark")
    assert {entry.name for entry in benchmarks} >= {"GQA", "POPE", "MMMU", "MathVista", "MME"}
    for entry in benchmarks:
        assert entry.license.text and entry.license.source
        assert entry.questions or entry.name == "Video-QA"


def test_published_logs_are_of_recipes_that_exist() -> None:
    logs = data_sets("trajectory")
    assert {entry.name for entry in logs} >= {"DenseConnector-v1.5-7B", "DenseConnector-v1.5-13B"}
    for entry in logs:
        for name in entry.recipes:
            assert load_recipe(name).stage == 2
        (file,) = entry.distribution
        assert file.file_name == "trainer_state.json" and file.sha256 is None, "nobody measured one"


def test_a_trajectory_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(
        "- {name: x, description: d, url: u, kind: trajectory, license: {text: t, source: s}, "
        "root: x, repository: a/b, distribution: [{name: trainer_state.json, source: s}]}\n",
        encoding="utf-8",
    )
    with pytest.raises(DataError, match="a trajectory, and nothing else, needs the `recipes`"):
        load_catalog(path)
