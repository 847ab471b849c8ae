"""The page of one run: what it shows, that figures lead to files and hashes, what it hides."""

import getpass
import shutil
import socket
from pathlib import Path

import pytest
from PIL import Image

from densekit.audit.report.write import write_report
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.runs.evaluations import EvaluationFolder, evaluations
from densekit.runs.layout import RunDir
from densekit.runs.verdicts import Line, Verdict, write_verdict
from tests.support.audit import edit, edit_line, edit_manifest, edit_metrics
from tests.support.evaluations import answered
from tests.support.reports import Page
from tests.support.runs import STEPS, make_world, train

BAD = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world; tests train runs of their own in it."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run that no test changes."""
    return train(made, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


def page_of(run: Path, to: Path | None = None) -> Page:
    """The page of a run, written and read."""
    return Page(write_report(run, to))


def test_page_stands_in_the_run_and_needs_nothing_else(run: Path) -> None:
    path = write_report(run)
    page = Page(path)
    assert path == run / "report.html"
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert all(link.startswith(("#", "./")) for link in page.links)
    assert "http://" not in page.source and "url(" not in page.source
    assert "default-src 'none'" in page.source
    for needed in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert needed in page.source
    assert not list(run.glob(".report*"))


def test_page_says_what_ran(run: Path) -> None:
    text = page_of(run).text
    math = read_json(run / "math.json")
    for said in ("made complete", "24 samples", "models:lm", "data:train.json", "seed 42"):
        assert said.replace("24 samples", "samples 24") in text
    assert read_json(run / "manifest.json")["data"]["annotations_sha256"] in text
    assert f"learning rate {math['recipe']['optimizer']['learning_rate']:g}" in text
    assert "damaged" not in text


def test_every_figure_leads_to_a_file_and_its_hash(run: Path) -> None:
    page = page_of(run)
    cited = {link[1:] for link in page.links if link.startswith("#")}
    assert {"f0-metrics.jsonl", "f0-feed.jsonl", "f0-math.json", "f0-manifest.json"} <= cited
    assert cited <= set(page.ids)
    files = [link[2:] for link in page.links if link.startswith("./")]
    assert files
    for name in files:
        assert (run / name).is_file()
        assert file_sha256(run / name) in page.text


def test_page_elsewhere_links_to_no_file(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path / "page.html")
    assert not [link for link in page.links if not link.startswith("#")]


def test_curves_are_drawn_of_every_step(run: Path) -> None:
    page = page_of(run)
    assert page.tags.count("figure") >= 4
    assert page.source.count('<path class="s0') >= 4
    assert f"steps {STEPS}" in page.text


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("metrics.jsonl", "metrics.jsonl is not the file that the run recorded"),
        ("results.json", "results.json is not the file that the run recorded"),
        ("manifest.json", "was edited: its hash does not fit"),
        ("feed.jsonl", "was edited"),
        ("certificate.json", "records other samples than certificate.json certifies"),
    ],
)
def test_an_edited_run_is_marked(run: Path, file: str, problem: str) -> None:
    if file == "metrics.jsonl":
        edit_metrics(run, 3, loss=0.001)
    elif file == "results.json":
        edit(run / file, lambda text: text.replace('"steps": 0', '"steps": 1'))
    elif file == "manifest.json":
        edit(run / file, lambda text: text.replace("c" * 40, "d" * 40))
    elif file == "feed.jsonl":
        edit_line(run / file, 2, samples=["1:x", "2:x", "3:x", "4:x"])
    else:
        write_json(run / file, {**read_json(run / file), "sha256": "0" * 64})
    text = page_of(run).text
    assert "damaged or edited" in text
    assert problem in text


def test_forged_hashes_of_the_manifest_leave_the_chain(run: Path) -> None:
    edit_line(run / "metrics.jsonl", 3, loss=0.001)
    edit_manifest(run, metrics_sha256=file_sha256(run / "metrics.jsonl"))
    assert "does not fit the hash chain" in page_of(run).text


@pytest.mark.parametrize("name", ["math.json", "status.json", "manifest.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"schema": 9}\n'])
def test_a_damaged_run_gives_a_marked_page(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    page = page_of(run)
    if (name, content) != ("metrics.jsonl", b""):
        assert "damaged" in page.text
        assert name in page.text


@pytest.mark.parametrize(
    "name", ["manifest.json", "feed.jsonl", "results.json", "connector.safetensors"]
)
def test_a_missing_file_is_said(run: Path, name: str) -> None:
    (run / name).unlink()
    text = page_of(run).text
    assert "damaged or edited" in text
    assert name in text


def test_an_unfinished_run_says_so(made: Path, tmp_path: Path) -> None:
    run = train(made, tmp_path / "runs", stop_after=3)
    text = page_of(run).text
    assert "unfinished: the run is preempted after 3 steps: asked to stop" in text
    assert "the run is not complete: `densekit run` resumes it" in text
    assert "damaged" not in text


def test_steps_without_a_loss_are_gaps(made: Path, tmp_path: Path) -> None:
    run = train(made, tmp_path / "runs", stop_after=5)
    edit_metrics(run, 2, loss=None, grad_norm=None, updated=False, overflows=1)
    page = page_of(run)
    assert page.source.count('<line class="gap"') >= 2
    assert "steps whose loss is not finite: 1" in page.text
    assert "fp16 overflows: 1" in page.text


def asked_about_pictures(
    run: Path, world: Path, *, answer: str, changed: bool = False
) -> EvaluationFolder:
    """An evaluation of two questions, one with a picture; the picture is replaced afterwards where
    `changed`.
    """
    picture = world / "data" / "photo.png"
    Image.new("RGB", (2000, 1000), (200, 30, 30)).save(picture)
    questions = [("What colour?", "red", picture, answer), (BAD, "yes", None, "no")]
    folder = answered(run, questions)
    if changed:
        Image.new("RGB", (10, 10)).save(picture)
    return folder


def test_predictions_stand_beside_their_pictures(made: Path, run: Path) -> None:
    asked_about_pictures(run, made, answer="red")
    page = page_of(run)
    (image,) = page.images
    assert image.startswith("data:image/jpeg;base64,") and len(image) < 40_000
    assert "What colour? answer: red 1 reference: red" in page.text
    assert "asked without a picture" in page.text
    assert "GQA (made up) 50" in page.text
    assert "answered in fp32, officially fp16" in page.text


def test_edited_answers_are_marked(made: Path, run: Path) -> None:
    folder = asked_about_pictures(run, made, answer="red")
    edit_line(folder.answers("gqa"), 1, text="blue")
    text = page_of(run).text
    assert "damaged or edited" in text
    assert "answers/gqa.jsonl: line 1 does not follow" in text


def judge(run: Path, **changed: object) -> None:
    """A verdict on the run's GQA."""
    line = Line(
        benchmark="gqa",
        title="GQA",
        reported=63.8,
        ours=50.0,
        interval=(48.0, 52.0),
        reach=0.9,
        p=0.001,
        verdict="DIVERGED",
    )
    values = {
        "recipe": "made",
        "runs": (RunDir(run).sha256,),
        "evaluations": tuple(each.path.name for each in evaluations(run)),
        "lines": (line,),
    }
    write_verdict(run, Verdict.model_validate({**values, **changed}))


def test_a_verdict_stands_beside_its_score(made: Path, run: Path) -> None:
    asked_about_pictures(run, made, answer="red")
    judge(run)
    text = page_of(run).text
    assert "GQA (made up) 50 48 to 52 63.8 ± 0.9 DIVERGED" in text
    assert "earlier answers" not in text


def test_a_verdict_on_other_answers_says_so(made: Path, run: Path) -> None:
    asked_about_pictures(run, made, answer="red")
    judge(run, evaluations=("0" * 16,))
    assert "verdict.json is of earlier answers than these of gqa" in page_of(run).text


def test_a_verdict_of_another_run_is_damage(run: Path) -> None:
    judge(run, runs=("0" * 64,))
    text = page_of(run).text
    assert "damaged or edited" in text and "verdict.json is another run's" in text


def test_a_picture_that_changed_is_not_shown(made: Path, run: Path) -> None:
    asked_about_pictures(run, made, answer="red", changed=True)
    page = page_of(run)
    assert page.images == []
    assert "the picture was changed since it was asked about" in page.text


def test_texts_of_others_are_escaped(made: Path, run: Path) -> None:
    asked_about_pictures(run, made, answer=BAD)
    run_math = read_json(run / "math.json")
    run_math["recipe"]["models"]["language_model"] = BAD
    write_json(run / "math.json", run_math)
    write_json(run / "status.json", {"state": "failed", "message": BAD, "attempt": 1})
    page = page_of(run)
    assert "script" not in page.tags
    assert all(image.startswith("data:image/jpeg") for image in page.images)
    assert page.text.count("<script>alert('x')</script>") >= 4


def test_nothing_says_whose_machine_it_was(made: Path, tmp_path: Path) -> None:
    run = train(made, tmp_path / "runs", stop_after=3)
    (run / "math.json").write_text("{", encoding="utf-8")  # its message names the file
    host = "gpu-node-17.cluster.example"
    write_json(run / "attempts/0001/launch.json", {"launcher": "slurm", "host": host})
    message = (
        f"{Path.home()}/data/a.json on {host} ({socket.gethostname()}); see /mnt/alice/b/c.txt"
    )
    write_json(run / "status.json", {"state": "failed", "message": message, "attempt": 1})
    page = page_of(run)
    for private in (str(tmp_path), str(made), "gpu-node-17", "/mnt", "alice", str(Path.home())):
        assert private not in page.source
    if getpass.getuser() != "root":
        assert getpass.getuser() not in page.text
    assert ".../c.txt" in page.text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    from densekit.errors import DataError

    with pytest.raises(DataError, match="is not a run directory"):
        write_report(tmp_path)
