"""The video benchmarks: questions found, videos planned, answers those of a conversation, and no
score.
"""

import shutil
from pathlib import Path

import pytest
import torch

from densekit.data.video import read_frames
from densekit.errors import DataError
from densekit.evaluate.cross_check.tasks import write_task
from densekit.evaluate.data import in_tiles, present, read_data
from densekit.evaluate.planning import plan_benchmark
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.results import finish
from densekit.evaluate.runner.loading import load_evaluated
from densekit.evaluate.video_files import FILES
from densekit.exchange.official.importing import import_folder
from densekit.exchange.pipeline import load_pipeline
from densekit.files.json_files import read_jsonl, write_json
from densekit.spec.imported import ImportRequest
from densekit.spec.roots import Roots
from tests.support.evaluating import ask
from tests.support.videos import make_video

QA = [
    {"video_name": "a", "question": "what runs?", "question_id": 7},
    {"video_name": "b", "question": "who sings?", "question_id": "v_b_1"},
]
ANSWERS = [{"question_id": 7, "answer": "dog"}, {"question_id": "v_b_1", "answer": "fox"}]
GENERIC = [{"video_name": "a", "Q": "What happens?", "A": "A dog runs."}]
PAIRS = [{"video_name": "b", "Q1": "Who sings?", "Q2": "What does the fox do?", "A": "It sings."}]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    root = tmp_path_factory.mktemp("videos")
    benchmarks = root / "data" / "benchmarks"
    for name in ("msvd", "activitynet", "video_chatgpt"):
        (benchmarks / name / "videos").mkdir(parents=True)
    for name in ("msvd", "activitynet"):
        write_json(benchmarks / name / "test_q.json", QA)
        write_json(benchmarks / name / "test_a.json", ANSWERS)
    written = {"generic_qa": GENERIC, "temporal_qa": GENERIC, "consistency_qa": PAIRS}
    for name, rows in written.items():
        write_json(benchmarks / "video_chatgpt" / f"{name}.json", rows)
    made = [make_video(root / f"{name}.mkv", frames) for name, frames in (("a", 3), ("b", 20))]
    for path in made:
        shutil.copy(path, benchmarks / "msvd" / "videos")
        shutil.copy(path, benchmarks / "video_chatgpt" / "videos")
        shutil.copy(path, benchmarks / "activitynet" / "videos" / f"v_{path.name}")
    return Roots(data=root / "data", models=root, cache=root / "cache")


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"msrvtt"}))
def test_questions_and_videos_are_found(roots: Roots, name: str) -> None:
    data = read_data(name, None, roots)
    asked, plan = plan_benchmark(data, roots, limit=None, batch_size=None)
    video = asked.protocol.video
    assert video is not None and (video.frames, video.pooled) == (8, True)
    assert (asked.batch_size, asked.protocol.decoding.max_new_tokens) == (1, 512)
    found = {line.question_id: (line.asked, line.question["gold"]) for line in plan}
    if name == "video_co":
        assert [*found] == ["0/Q1", "0/Q2"] and found["0/Q2"][0] == "What does the fox do?"
    elif name.startswith("video_"):
        assert found == {"0": ("What happens?", ("A dog runs.",))}
    else:
        assert found == {"7": ("what runs?", ("dog",)), "v_b_1": ("who sings?", ("fox",))}
    assert all(line.image and roots.resolve(line.image).is_file() for line in plan)


def test_what_asks_the_same_is_asked_once(roots: Roots) -> None:
    assert present(None, roots) == ("activitynet", "msvd", "video_ci", "video_co", "video_tu")


def test_what_is_missing_or_of_another_form_is_named(roots: Roots, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"MSRVTT is not in .*msrvtt.jsonl or test_q.json there"):
        read_data("msrvtt", None, roots)
    with pytest.raises(DataError, match="several tiles per image"):
        in_tiles(read_data("msvd", None, roots))
    other = roots.model_copy(update={"data": tmp_path})
    folder = tmp_path / "benchmarks" / "msvd"
    folder.mkdir(parents=True)
    write_json(folder / "test_q.json", QA)
    with pytest.raises(DataError, match=r"MSVD: video [ab] is not in .*videos; put it there"):
        plan_benchmark(read_data("msvd", None, other), other, limit=None, batch_size=None)
    write_json(folder / "test_q.json", [{"video": "a"}])
    with pytest.raises(DataError, match="question 1 has no `question_id`"):
        read_data("msvd", None, other)
    write_json(folder / "test_q.json", {"a": 1})
    with pytest.raises(DataError, match="not a list of questions"):
        read_data("msvd", None, other)


def test_a_task_of_another_harness_has_no_video(roots: Roots, tmp_path: Path) -> None:
    planned = plan_benchmark(read_data("msvd", None, roots), roots, limit=None, batch_size=None)
    with pytest.raises(DataError, match="MSVD asks about videos"):
        write_task(tmp_path / "task", *planned, roots)


@pytest.mark.ranks
def test_answers_are_written_and_no_score(
    roots: Roots, golden_exchange: Path, tmp_path: Path
) -> None:
    place = tmp_path / "imported"
    folder = golden_exchange / "given" / "clip_dci" / "stage2"
    import_folder(ImportRequest(folder=folder, to=place, search=(golden_exchange / "base",)))
    evaluation = ask(place, ["msvd", "video_co"], roots=roots)
    evaluation.attempt(1)
    loaded = load_evaluated(place, evaluation.folder.evaluation, torch.device("cpu"))
    loaded.model.config.text_config.max_position_embeddings = 64
    with pytest.raises(DataError, match=r"8 frames has 64 tokens, .* has 64 positions"):
        loaded.preparer(get_protocol("msvd"), roots)
    pipeline = load_pipeline(place)
    settings = get_protocol("msvd").video
    assert settings is not None
    for name in ("msvd", "video_co"):
        planned = {line["question_id"]: line for line in plan_of(evaluation.folder.questions(name))}
        lines = read_jsonl(evaluation.folder.answers(name))
        assert len(lines) == len(planned) == 2
        for line in lines:
            question = planned[line["question_id"]]
            frames = read_frames(roots.resolve(question["image"]), settings)
            assert len(frames) == (3 if "/a.mkv" in question["image"] else 8)
            prompt = pipeline.video_question(question["asked"], frames, settings)
            (found,) = pipeline.answers([prompt], max_new_tokens=512)
            assert [*found.ids] == line["ids"]
    results = finish(evaluation.folder)
    assert {result.benchmark for result in results} == {"msvd", "video_co"}
    assert all(result.value is None and result.problem for result in results)
    assert all("gpt-3.5-turbo-0125" in str(result.other_protocol) for result in results)


def plan_of(path: Path) -> list[dict]:
    return list(read_jsonl(path))
