"""`densekit publish`: the card says what the run recorded and nothing of the machine, the hub takes
it once, and everything that cannot be published is refused before anything is exported.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from densekit.errors import DataError, UsageError
from densekit.exchange.export.llava_next import check_merge
from densekit.exchange.export.stock_projector import NAMES, stock_projector
from densekit.exchange.publish.card import check_card, model_card
from densekit.exchange.publish.leaks import check_leaks
from densekit.exchange.publish.record import Publication
from densekit.exchange.publish.subject import read_subject
from densekit.files.hashing import check_seal
from densekit.files.json_files import read_json, write_json
from densekit.launch.launchers.local import Local
from densekit.launch.publishing import PublishRequest, publish, usual_format
from densekit.recipes.load import load_recipe, recipe_names
from densekit.runs.manifest import Manifest
from densekit.runs.results import RESULTS_FILE, Results, Summary
from densekit.runs.verdicts import Line, Verdict, write_verdict
from densekit.spec.exchange import ExchangeReport, ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.spec.saved_file import SavedFile
from tests.support.evaluations import result as stored_result
from tests.support.evaluations import store
from tests.support.http_double import serving
from tests.support.hub_writes import WritableHub
from tests.support.runs import make_world, train

NAME = "my-lab/dense-7b"
RECIPE: dict[str, Any] = {
    "name": "vicuna7b_clip_stage2",
    "needs": "vicuna7b_clip_stage1",
    "models": {
        "language_model": "models:lmsys/vicuna-7b-v1.5",
        "vision_tower": "models:openai/clip-vit-large-patch14-336",
    },
    "data": {"annotations": "data:LLaVA-Instruct-150K/llava_v1_5_mix665k.json"},
    "ledger": dict.fromkeys(("L1", "U8", "U9", "L2"), "faithful"),
}

SAVED = SavedFile(sha256="0" * 64, bytes=1)


class Exporting(Local):
    """Exports files of a few bytes, and notes the requests."""

    def __init__(self) -> None:
        self.requests: list[ExchangeRequest] = []

    def exchange(self, request: ExchangeRequest, execution: Execution) -> ExchangeReport:
        self.requests.append(request)
        folder = request.to
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llava"}')
        (folder / "model.safetensors").write_bytes(b"weights")
        return ExchangeReport(lines=(f"{folder}: exported",))


def trained(folder: Path, recipe: dict[str, Any]) -> Path:
    """A complete run on a file of the name that the recipe's data are published under."""
    world = make_world(folder / "world")
    annotations = world / "data" / "LLaVA-Instruct-150K" / "llava_v1_5_mix665k.json"
    annotations.parent.mkdir()
    annotations.write_bytes((world / "data" / "train.json").read_bytes())
    return train(world, folder / "runs", recipe=recipe)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run of a recipe that ships, at another learning rate, with held-out scores."""
    made = trained(tmp_path, RECIPE)
    Results(summary=Summary(steps=6, masked_samples=3)).write(made)
    held_out = stored_result(benchmark="held_out", title="held-out questions")
    control = stored_result(benchmark="held_out_shuffled", value=20.0)
    store(made, [held_out, control])
    _reseal(made)
    return made


def _reseal(run: Path) -> None:
    """Record the results file as it is now."""
    from densekit.files.hashing import file_sha256, sealed

    value = read_json(run / "manifest.json")
    value["outputs"][RESULTS_FILE] = file_sha256(run / RESULTS_FILE)
    write_json(run / "manifest.json", sealed(value))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with serving(WritableHub()) as server:
        assert isinstance(server, WritableHub)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server


def asked(run: Path, **options: Any) -> PublishRequest:
    folder = run.parent.parent / "published"
    return PublishRequest(**{"run": run, "to": NAME, "roots": Roots(), "folder": folder, **options})


def published(request: PublishRequest, launcher: Local | None = None) -> list[str]:
    return publish(request, launcher or Exporting(), say=lambda line: None)


def test_the_card_says_what_the_run_recorded(run: Path) -> None:
    lines = published(asked(run, dry_run=True))
    assert lines[0].endswith("exported") and "valid" in lines[-1]
    folder = run.parent.parent / "published"
    card = ModelCard((folder / "README.md").read_text())
    metadata = card.data.to_dict()
    assert metadata["license"] == "llama2"
    assert metadata["base_model"][0] == "lmsys/vicuna-7b-v1.5"
    assert metadata["datasets"] == ["liuhaotian/LLaVA-Instruct-150K"]
    assert [result.metric_value for result in card.data.eval_results or []] == [50.0]
    manifest = read_json(run / "manifest.json")
    for said in (
        "`vicuna7b_clip_stage2`",
        "Table 1, DCI (1-12)(13-24)",
        "`optimizer.learning_rate` is 0.001, and 2e-05 in the recipe",
        "3 samples had no label position",
        "L1 faithful",
        manifest["run"],
        manifest["sha256"],
        manifest["certificate"]["sha256"],
        manifest["data"]["annotations_sha256"],
        manifest["chain"]["sha256"],
        "Llama 2 Community License Agreement",
        "OpenAI's terms of use for the annotation file",
        "No verdict",
    ):
        assert said in card.text, said
    assert str(run.parent.parent) not in card.text
    # Sealed records without a path; the manifest can be read as one.
    stripped = read_json(folder / "manifest.json")
    assert check_seal(stripped) and str(run.parent.parent) not in json.dumps(stripped)
    assert Manifest.model_validate(stripped).execution["roots"]["data"] == "data"
    publication = Publication.model_validate(read_json(folder / "publication.json"))
    assert publication.files.keys() >= {"model.safetensors", "manifest.json", "math.json"}
    assert publication.manifest_sha256 == manifest["sha256"]


def test_the_card_names_a_second_tower_and_what_the_connector_does(tmp_path: Path) -> None:
    tower = "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
    mining = {"image_size": 768, "window": 8, "drop_path": 0.1}
    recipe = RECIPE | {
        "name": "vicuna7b_clip_convnext_mgm_stage2",
        "models": RECIPE["models"] | {"high_resolution_tower": f"models:{tower}"},
        "connector": {"mining": mining},
    }
    subject = read_subject(trained(tmp_path, recipe))
    text = model_card(
        subject, name=NAME, format_="densekit", dtype=None, license_=None, files={"a": SAVED}
    )
    card = ModelCard(text)
    assert tower in card.data.to_dict()["base_model"]
    for said in (
        f"| High-resolution tower | [{tower}](https://huggingface.co/{tower})",
        f"- High-resolution tower {tower}: MIT (source: ",
        "`mining`: image_size 768, window 8, drop_path 0.1",
    ):
        assert said in card.text, said


@pytest.mark.parametrize(
    ("name", "overrides", "format_"),
    [
        ("vicuna7b_clip_stage2", [], "llava-hf"),
        ("vicuna7b_clip_tuned_stage2", [], "llava-hf"),
        ("vicuna7b_clip_anyres_stage2", [], "llava-hf"),
        ("vicuna7b_clip_anyres_stage2", ["data.anyres.merge=flat"], "densekit"),
        ("vicuna7b_clip_sti_stage2", [], "densekit"),
        ("vicuna7b_clip_sti_conv_stage2", [], "densekit"),
        ("vicuna7b_clip_dci_linear_stage2", [], "densekit"),
        ("vicuna7b_clip_efficient_stage2", [], "densekit"),
        ("vicuna7b_clip_convnext_mgm_stage2", [], "densekit"),
    ],
)
def test_what_stock_transformers_cannot_express_is_published_in_densekits_format(
    name: str, overrides: list[str], format_: str
) -> None:
    assert usual_format(load_recipe(name, overrides).math()) == format_


def written_for_stock_transformers(math: Math) -> bool:
    """What the exporter says, of a projector of four channels a layer."""
    connector, anyres = math.connector, math.data.anyres
    weight = torch.zeros(3, connector.width(4))
    try:
        stock_projector(connector, dict.fromkeys(NAMES, weight), tower_layers=27)
        if anyres is not None:
            check_merge(anyres)
    except DataError:
        return False
    return True


def test_a_format_is_chosen_that_the_exporter_writes() -> None:
    found = set()
    for name in recipe_names():
        math = load_recipe(name).math()
        stock = written_for_stock_transformers(math)
        assert (usual_format(math) == "llava-hf") == stock, name
        found.add(stock)
    assert found == {True, False}


def test_the_card_of_tiles_names_the_class_that_merges_them(tmp_path: Path) -> None:
    tiles = {"pinpoints": [[336, 672]], "merge": "spatial_unpad"}
    data = RECIPE["data"] | {"image_aspect_ratio": "anyres", "anyres": tiles}
    made = trained(tmp_path, RECIPE | {"data": data})
    options = {"name": NAME, "dtype": None, "license_": None, "files": {"a": SAVED}}
    card = model_card(read_subject(made), format_="llava-hf", **options)
    assert "import AutoProcessor, LlavaNextForConditionalGeneration\n" in card
    assert "anyres: tiles of 336 x 672, merged as spatial_unpad" in card


def test_verdicts_are_in_the_card(run: Path) -> None:
    lines = (
        Line(benchmark="gqa", title="GQA", reported=63.8, ours=63.5, verdict="COMPATIBLE"),
        Line(benchmark="pope", title="POPE", reported=86.6, verdict="INCOMPLETE", note="no data"),
    )
    run_hash = read_json(run / "manifest.json")["run"]
    verdict = Verdict(recipe="x", runs=(run_hash,), evaluations=(), lines=lines)
    write_verdict(run, verdict)
    published(asked(run, dry_run=True))
    card = (run.parent.parent / "published" / "README.md").read_text()
    assert "| GQA | 63.8 | 63.5 | COMPATIBLE |  |" in card
    assert "| POPE | 86.6 |  | INCOMPLETE | no data |" in card
    assert "calibration: none" in card


def test_what_a_dry_run_left_is_uploaded_once(run: Path, hub: WritableHub) -> None:
    launcher = Exporting()
    published(asked(run, dry_run=True), launcher)
    assert not hub.requests  # a dry run asks nothing
    folder = run.parent.parent / "published"
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nA sentence of the publisher.\n")
    lines = published(asked(run, private=True), launcher)
    assert len(launcher.requests) == 1 and lines[0].endswith("as an earlier call left it")
    assert lines[-1].startswith(f"published: {hub.url}/{NAME}/commit/")
    uploaded = hub.repositories["model", NAME]
    assert uploaded["model.safetensors"] == b"weights"
    assert b"A sentence of the publisher." in uploaded["README.md"]
    assert uploaded.keys() == {path.name for path in folder.iterdir()}
    assert hub.created == [{"name": "dense-7b", "organization": "my-lab", "visibility": "private"}]
    with pytest.raises(DataError, match=r"is not empty: .* and 3 more; nothing"):
        published(asked(run), launcher)


def test_a_folder_that_changed_is_not_uploaded(run: Path, hub: WritableHub) -> None:
    published(asked(run, dry_run=True))
    folder = run.parent.parent / "published"
    with pytest.raises(UsageError, match="in another format or dtype"):
        published(asked(run, dtype="bf16"))
    (folder / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(DataError, match=r"model\.safetensors is not as the dry run left it"):
        published(asked(run))
    (folder / "publication.json").unlink()
    with pytest.raises(UsageError, match="is not empty and not what a dry run left"):
        published(asked(run))
    assert ("model", NAME) not in hub.repositories


def test_the_hub_is_asked_before_anything_is_exported(
    run: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Exporting()
    hub.repositories["model", NAME] = {"weights.bin": b"x", ".gitattributes": b"x"}
    with pytest.raises(DataError, match=r"is not empty: it holds weights\.bin; nothing"):
        published(asked(run), launcher)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(DataError, match=f"no token: open {hub.url}/settings/tokens"):
        published(asked(run), launcher)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        published(asked(run), launcher)
    for name in ("only-a-name", "a/b/c", "a/b c", "-a/b"):
        with pytest.raises(UsageError, match="is not ORG/NAME"):
            published(asked(run, to=name, dry_run=True), launcher)
    assert not launcher.requests


def test_what_the_hub_refuses_is_told(
    run: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["model", NAME] = {".gitattributes": b"x"}
    hub.card_errors = ["license is not known"]
    with pytest.raises(DataError, match=r"refuses the card: .*license is not known"):
        published(asked(run))
    hub.card_errors = []
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(DataError, match=f"may not write there: open {hub.url}/settings/tokens"):
        published(asked(run))
    assert hub.repositories["model", NAME].keys() == {".gitattributes"}


def test_only_complete_runs_are_published(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        published(asked(tmp_path / "world", dry_run=True))
    imported = tmp_path / "imported"
    imported.mkdir()
    (imported / "import.json").touch()
    with pytest.raises(UsageError, match="is an imported checkpoint"):
        published(asked(imported, dry_run=True))
    stopped = train(tmp_path / "world", tmp_path / "runs2", recipe=RECIPE, stop_after=2)
    with pytest.raises(DataError, match="is preempted, not complete"):
        published(asked(stopped, dry_run=True))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("see {home}/runs", "of this machine"),
        ("trained on {host}.", "the host {host}"),
        ("trained on {host}.lab.example.", "the host {host}.lab.example"),
        ("in {root}/somebody/models", "the path {root}/somebody"),
    ],
)
def test_a_card_that_tells_of_the_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node-17.lab.example")
    words = {"home": Path.home(), "host": "gpu-node-17", "root": "/" + "home"}
    card = tmp_path / "README.md"
    card.write_text("A model. https://example.org/data/x is no path of this machine.")
    check_leaks(tmp_path, name=NAME)
    card.write_text(said.format(**words))
    with pytest.raises(DataError, match=found.format(**words)):
        check_leaks(tmp_path, name=NAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("license: llama2\n", ""), "lacks `license`"),
        (("license: llama2", "license: other"), "needs a `license_name`"),
        (("license: llama2", "license: [llama2"), "cannot be read"),
        (("    dataset:\n", "    data:\n"), "cannot be read"),
        (("---", ""), "lacks `license`"),
    ],
)
def test_an_edited_card_is_checked(run: Path, change: tuple[str, str], message: str) -> None:
    published(asked(run, dry_run=True))
    card = run.parent.parent / "published" / "README.md"
    text = card.read_text()
    check_card(text, card)
    assert change[0] in text
    card.write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        published(asked(run, dry_run=True))


def test_licence_and_format_follow_the_request(run: Path) -> None:
    launcher = Exporting()
    request = asked(run, dry_run=True, license="cc-by-nc-4.0", format="densekit", dtype="bf16")
    published(request, launcher)
    (sent,) = launcher.requests
    assert sent.export is not None and (sent.export.format, sent.export.dtype) == (
        "densekit",
        "bf16",
    )
    card = ModelCard((run.parent.parent / "published" / "README.md").read_text())
    assert card.data.license == "cc-by-nc-4.0" and "AutoModelForImageTextToText" in card.text
    published(
        replace(request, license="mit"), launcher
    )  # the card that is there is the publisher's
    assert len(launcher.requests) == 1
