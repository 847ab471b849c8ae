"""Loading a recipe: what a file of one's own inherits, and how each mistake is named with its file
and line.
"""

from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.recipes.load import RECIPES_DIR, find_recipe, load_needed, load_recipe


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path | str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path), overrides)
    return str(caught.value)


HEAD = b"extends: tiny_stage1\n"
BROKEN = {
    "unknown key": (
        b"optimizer:\n  lerning_rate: 1\n",
        3,
        "`optimizer.lerning_rate`: unknown key; did you mean `lear",
    ),
    "unknown key far from any": (
        b"zzz: 1\n",
        2,
        "`zzz`: unknown key; known keys here: name, title",
    ),
    "unknown key in an optional part": (
        b"lora: {r: 1, alpha: 1, rank: 1}\n",
        2,
        "`lora.rank`: unknown key; known keys",
    ),
    "unknown ledger entry": (
        b"ledger: {U7: fixed}\n",
        2,
        "`ledger.U7`: Input should be 'L1', 'U8', 'U9' or 'L2'",
    ),
    "wrong type": (
        b"optimizer:\n\n  epochs: often\n",
        4,
        "`optimizer.epochs`: Input should be a valid integer",
    ),
    "a value for a section": (
        b"connector: dci\n",
        2,
        '`connector`: must be a section of keys (got "dci")',
    ),
    "a section for a value": (b"title: {a: 1}\n", 2, "`title`: Input should be a valid string"),
    "nothing for a section": (
        b"optimizer:\n",
        2,
        "`optimizer`: must be a section of keys (got null)",
    ),
    "connector mismatch": (
        b"connector: {kind: dci, layers: [1]}\n",
        2,
        "`connector`: kind dci takes no `layers`",
    ),
    "missing key": (b"lora: {r: 1}\n", 2, "`lora.alpha`: is missing"),
    "path in the name": (b"name: ../x\n", 2, "`name`: run directories are named after it"),
    "number for a name": (b"name: 5\n", 2, "`name`: Input should be a valid string (got 5)"),
    "number for a key": (b"1: x\n", 2, "`1`: Keys should be strings"),
    "list for a key": (b"[1, 2]: x\n", 2, "a key must be one word"),
    "mapping for a key": (b"? {a: 1}\n: x\n", 2, "a key must be one word"),
    "duplicate key": (b"seed: 1\n\nseed: 2\n", 4, "`seed` is written twice"),
    "duplicate nested key": (
        b"data:\n  images: a\n  images: b\n",
        4,
        "`data.images` is written twice",
    ),
    "bad indentation": (b" a: b: c\n", 2, "not valid YAML"),
    "second document": (b"---\nseed: 1\n", 2, "not valid YAML"),
    "a date of no calendar": (b"paper: 2024-99-99\n", 2, "not valid YAML: month must be"),
    "a number that is none": (b"seed: !!int abc\n", 2, "not valid YAML: invalid literal"),
    "a number in octal": (b"seed: 010\n", 2, "YAML reads 010 as 8: write the decimal number"),
    "a number to base 60": (b"seed: 1:30\n", 2, "YAML reads 1:30 as 90: write the decimal"),
    "a fraction to base 60": (b"optimizer: {eps: 1:0.5}\n", 2, "YAML reads 1:0.5 as 60.5"),
    "a truth that is none": (b"seed: !!bool abc\n", 2, "not valid YAML"),
    "a python object": (
        b"title: !!python/object:os.system x\n",
        2,
        "not valid YAML: could not determine",
    ),
    "half a character": (b'title: "\\ud800"\n', 2, "not valid YAML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, name: str) -> None:
    text, line, message = BROKEN[name]
    path = write(tmp_path, "mine.yaml", HEAD + text)
    told = refusal(path)
    assert told.startswith(f"{path}:{line}: ") and message in told
    assert "\n" not in told


UNREADABLE = {
    "empty": (b"", "a mapping of keys to values"),
    "only a comment": (b"# later\n", "a mapping of keys to values"),
    "a list": (b"- a\n", "a mapping of keys to values"),
    "a word": (b"hello\n", "a mapping of keys to values"),
    "binary": (bytes(range(128, 256)), "cannot be read as UTF-8 text"),
    "latin-1": (b"title: \xe9t\xe9\n", "cannot be read as UTF-8 text"),
    "zero bytes": (b"\0\1", "not valid YAML"),
    "too deep": (b"a: " + b"[" * 1500, "nested too deeply"),
    "an anchor inside itself": (b"a: &a {b: *a}\n", "an alias refers to the anchor it is in"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, name: str) -> None:
    text, message = UNREADABLE[name]
    path = write(tmp_path, "mine.yaml", text)
    told = refusal(path)
    assert told.startswith(str(path)) and message in told


def test_all_mistakes_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", HEAD + b"seed: x\noptimizer: {epochs: 0}\nzeed: 1\n")
    lines = refusal(path).splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [
        f"{path}:{number}" for number in (2, 3, 4)
    ]


def test_mistake_of_the_parent_is_named_in_the_parent(tmp_path: Path) -> None:
    parent = write(tmp_path, "parent.yaml", HEAD + b"optimizer: {epochs: 0}\n")
    child = write(tmp_path, "child.yaml", "extends: parent\nseed: 1\n")
    assert refusal(child).startswith(f"{parent}:2: `optimizer.epochs`")


def test_shortened_list_is_named_in_the_child(tmp_path: Path) -> None:
    child = write(tmp_path, "child.yaml", "extends: vicuna7b_stage1\noptimizer:\n  betas: [0.9]\n")
    assert refusal(child).startswith(f"{child}:3: `optimizer.betas.1`: is missing")


def test_reference_must_give_the_global_batch(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", HEAD + b"global_batch_size: 24\n")
    assert refusal(path).startswith(
        f"{path}: `recipe`: reference 1 x 16 x 1 = 16 is not global_batch_size 24"
    )


def test_stage_2_needs_a_start(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", HEAD + b"stage: 2\n")
    assert "`needs` (the stage-1 recipe) or `models.connector`" in refusal(path)


def test_unknown_names_suggest_close_ones() -> None:
    assert "no recipe named 'tiny_stage3'; did you mean tiny_stage" in refusal("tiny_stage3")
    assert "`densekit recipes` lists them" in refusal("zzz")
    for name in ("paper", "revisions", "", ".", "..", "\u00e9t\u00e9", "a\0b"):
        assert "no recipe named" in refusal(name)


def test_missing_recipe_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml is a folder, not a YAML file" in refusal("folder.yaml")
    assert (
        "nope.yaml does not exist; correct the path, or give a name that `densekit recipes` "
        in (refusal("nope.yaml"))
    )
    assert "tiny_stage1.yaml does not exist; did you mean tiny_stage1?" in refusal(
        "tiny_stage1.yaml"
    )
    for name in ("~nobody-at-all/x.yaml", "a\0b/x.yaml", "/"):
        assert "recipe file" in refusal(name)
    Path("loop.yaml").symlink_to("loop.yaml")
    assert "does not exist" in refusal("loop.yaml")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine": "extends: mine\n"}, "circular: mine.yaml -> mine.yaml"),
        (
            {"mine": "extends: other\n", "other": "extends: ./mine.yaml\n"},
            "circular: mine.yaml -> other.yaml -> mine.y",
        ),
        (
            {"mine": "extends: [a, b]\n"},
            "mine.yaml:1: `extends` takes the name or path of one recipe",
        ),
        (
            {"mine": "\nextends: tiny_stage9\n"},
            "mine.yaml:2: `extends`: no recipe named 'tiny_stage9'; did you mean",
        ),
        ({"mine": "extends: ../nope.yaml\n"}, "mine.yaml:1: `extends`: recipe file"),
        ({"mine": 'extends: ""\n'}, "mine.yaml:1: `extends`: no recipe named ''"),
    ],
)
def test_wrong_extends_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path, f"{name}.yaml", text)
    assert message in refusal(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "parent", ["tiny_stage1", "./near", "near", "near.yaml", "sub/far", "base/llava15_stage1"]
)
def test_parent_is_found_by_name_or_path(tmp_path: Path, parent: str) -> None:
    write(tmp_path, "near.yaml", "extends: tiny_stage1\nname: near-name\n")
    write(tmp_path, "sub/far.yaml", "extends: ../near\n")
    recipe = load_recipe(str(write(tmp_path, "mine.yaml", f"extends: {parent}\nseed: 3\n")))
    assert (recipe.name, recipe.seed) == ("mine", 3)
    assert recipe.data.template == "plain"


def test_child_overrides_keys_and_replaces_the_connector_section(tmp_path: Path) -> None:
    text = "extends: tiny_stage2\noptimizer: {epochs: 5}\nconnector: {kind: sti, layers: [1, 3]}\n"
    recipe = load_recipe(str(write(tmp_path, "mine.yaml", text)))
    parent = load_recipe("tiny_stage2")
    assert (recipe.optimizer.epochs, recipe.optimizer.learning_rate) == (
        5,
        parent.optimizer.learning_rate,
    )
    assert (recipe.connector.kind, recipe.connector.layers, recipe.connector.groups) == (
        "sti",
        (1, 3),
        (),
    )
    assert load_recipe("tiny_stage2") == parent


def test_paths_start_from_the_folder_of_the_file_that_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = (
        "extends: tiny_stage1\ndata: {annotations: a.json, images: ../pictures}\n"
        "models: {tokenizer: /t}\n"
    )
    write(tmp_path, "parents/parent.yaml", parent)
    write(
        tmp_path,
        "mine/child.yaml",
        "extends: ../parents/parent\ndata: {images: 'data:x'}\nmodels: {tokenizer: t}\n",
    )
    monkeypatch.chdir(tmp_path / "mine")
    child, parent_recipe = load_recipe("child.yaml"), load_recipe("../parents/parent.yaml")
    assert parent_recipe.data.images == str(tmp_path / "pictures")
    assert parent_recipe.models.tokenizer == "/t"
    assert child.data.annotations == str(tmp_path / "parents/a.json")
    assert child.data.images == "data:x"
    assert child.models.tokenizer == str(tmp_path / "mine/t")
    assert child.models.language_model == "cache:tiny/language_model"


def test_every_path_field_is_made_absolute(tmp_path: Path) -> None:
    text = """extends: tiny_stage2
needs: null
models: {language_model: a, vision_tower: a, tokenizer: a, connector: a}
data: {annotations: a, images: a}
probe: {questions: a, images: a}
"""
    recipe = load_recipe(str(write(tmp_path, "mine.yaml", text)))
    parts = (recipe.models, recipe.data, recipe.probe)
    values = [value for part in parts if part for value in part.model_dump().values()]
    assert values.count(str(tmp_path / "a")) == 8 and "a" not in values


@pytest.mark.parametrize("path", ["~nobody-at-all/x", "loop/x"])
def test_unresolvable_path_stays_a_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    text = f'extends: tiny_stage1\ndata: {{annotations: "{path}"}}\n'
    recipe = load_recipe(str(write(tmp_path, "mine.yaml", text)))
    assert not Path(recipe.data.annotations).is_file()


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path, "sub/mine.yaml", "extends: tiny_stage1\ndata: {annotations: ~/a.json}\n")
    assert load_recipe("~/sub/mine.yaml").data.annotations == str(tmp_path / "a.json")
    assert find_recipe("~/sub/mine.yaml") == path


def test_overrides_come_last_and_name_themselves_in_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(
        "tiny_stage1",
        [
            "optimizer.learning_rate=1e-4",
            "seed=1",
            "seed=2",
            "data.annotations=a.json",
            "lora=null",
            "data.samples=",
        ],
    )
    assert (recipe.optimizer.learning_rate, recipe.seed, recipe.data.samples) == (1e-4, 2, None)
    assert recipe.data.annotations == str(tmp_path / "a.json")
    assert load_recipe("tiny_stage2", ["lora.r=4", "lora.alpha=8"]).lora is not None
    whole = load_recipe("tiny_stage1", ["connector={kind: sci, layers: [2]}"]).connector
    assert (whole.kind, whole.layers) == ("sci", (2,))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lerning_rate=1",
            "`optimizer.lerning_rate`: unknown key; did you mean `learning_rate`?",
        ),
        ("foo.bar=1", "`foo`: unknown key"),
        ("seed", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("", "write it as key=value"),
        (".=1", "write it as key=value"),
        ("optimizer.=1", "write it as key=value"),
        ("optimizer.learning_rate.x=1", "`learning_rate` is a value, not a section"),
        ("seed=[1", "the value is not valid YAML"),
        ("paper=2024-99-99", "the value is not valid YAML"),
        ("seed=" + "[" * 1500, "the value is not valid YAML"),
        ("title=\udcff", "the value is not valid YAML"),
        ("optimizer.epochs=0", "`optimizer.epochs`: Input should be greater than 0 (got 0)"),
        ("connector={kind: sci, layers: [7, 7, 7]}", "`layers` lists hidden_states index 7 twice"),
        ("connector={kind: dci, groups: [[1, 1]]}", "`groups` lists hidden_states index 1 twice"),
        ("data.anyres={pinpoints: 5, merge: flat}", "`data.anyres.pinpoints`: Input should be a l"),
        ("data.anyres={pinpoints: [], merge: flat}", "List should have at least 1 item, not 0"),
        ("seed=0x" + "f" * 5000, "an integer that no float holds"),
        ("seed=&a [*a]", "the value is not valid YAML"),
        ("name=../x", "`name`: run directories are named after it"),
        ("extends=tiny_stage2", "`extends`: unknown key"),
    ],
)
def test_wrong_overrides_are_refused(override: str, message: str) -> None:
    told = refusal("tiny_stage1", override)
    assert told.startswith("--set ") and message in told


def test_a_wrong_value_of_a_list_is_named_once() -> None:
    told = refusal("tiny_stage1", "data.anyres={pinpoints: [[336]], merge: flat}")
    assert told.endswith("`data.anyres.pinpoints.0.1`: is missing") and "\n" not in told


def bomb(levels: int) -> str:
    """YAML whose aliases stand for 10 to the power of `levels` values."""
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, levels):
        lines.append(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("levels", [6, 40])
def test_aliases_are_counted_before_they_are_written_out(tmp_path: Path, levels: int) -> None:
    path = write(tmp_path, "a", bomb(levels))
    for refused in (
        lambda: refusal(str(path)),
        lambda: refusal("tiny_stage1", f"title={path.read_text()}"),
    ):
        told = refused()
        assert "values with every alias written out; at most" in told
        assert len(told) < 1000


def test_merged_mappings_are_counted_too(tmp_path: Path) -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(100)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 8)]
    assert "with every alias written out" in refusal(str(write(tmp_path, "a", "\n".join(lines))))


def test_values_in_messages_are_short(tmp_path: Path) -> None:
    for told in (
        refusal("tiny_stage1", "seed=[" + "1," * 10_000 + "1]"),
        refusal(str(write(tmp_path, "a", "extends: tiny_stage1\nseed: [" + "1," * 10_000 + "1]"))),
    ):
        assert "characters)" in told and len(told) < 1000


def test_a_recipe_is_a_short_regular_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "#" * (1 << 18) + "\n")
    assert "is larger than 256 KiB" in refusal(str(path))


def test_needs_is_found_beside_the_recipe_first(tmp_path: Path) -> None:
    own = "extends: tiny_stage1\ntitle: mine\n"
    write(
        tmp_path, "tiny_stage1.yaml", own.replace("tiny_stage1", str(RECIPES_DIR / "tiny_stage1"))
    )
    path = write(tmp_path, "two.yaml", "extends: tiny_stage2\nneeds: tiny_stage1\n")
    assert load_needed(load_recipe(str(path)), str(path)).title == "mine"
    alone = write(tmp_path / "alone", "two.yaml", "extends: tiny_stage2\n")
    assert load_needed(load_recipe(str(alone)), str(alone)) == load_recipe("tiny_stage1")


def test_inherited_needs_is_found_beside_the_file_that_wrote_it(tmp_path: Path) -> None:
    write(tmp_path, "parents/one.yaml", "extends: tiny_stage1\ntitle: mine\n")
    write(tmp_path, "parents/two.yaml", "extends: tiny_stage2\nneeds: one\n")
    child = write(tmp_path, "mine/child.yaml", "extends: ../parents/two\n")
    assert load_needed(load_recipe(str(child)), str(child)).title == "mine"


def test_missing_needs_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "two.yaml", "extends: tiny_stage2\nneeds: nope\n")
    with pytest.raises(UsageError, match="no recipe named 'nope'"):
        load_needed(load_recipe(str(path)), str(path))
