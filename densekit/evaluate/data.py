"""Where the questions and images of a benchmark are: below the data root, in the folder of the
catalogue's entry, or as a recipe's `probe` says.
"""

import functools
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from densekit.data.annotations import Annotations
from densekit.data.catalog import load_catalog
from densekit.errors import DataError
from densekit.evaluate import video_files
from densekit.evaluate.hub_rows import has_parquet
from densekit.evaluate.labels import OWN_SUFFIX, read_questions
from densekit.evaluate.protocols import benchmark_names, get_protocol, videos
from densekit.evaluate.questions import Question
from densekit.runs.benchmarks import Protocol
from densekit.spec.math import Math
from densekit.spec.roots import Roots

DATA_SETS = {
    "easy_vqa": "easy-VQA",
    "easy_vqa_yes_no": "easy-VQA",
    "gqa": "GQA",
    "llava_w": "LLaVA-Bench",
    "mathvista": "MathVista",
    "mmb": "MMBench",
    "mmb_cn": "MMBench",
    "mme": "MME",
    "mmmu": "MMMU",
    "mmvet": "MM-Vet",
    "pope": "POPE",
    "seed": "SEED-Bench",
    "sqa": "ScienceQA",
    "textvqa": "TextVQA",
    "vizwiz": "VizWiz-VQA",
    "vqav2": "VQAv2",
}
"""A benchmark's entry in the catalogue."""
PARTS = {"easy_vqa_yes_no": ("easy_vqa", "yes_no")}
"""A benchmark that is a part of another one's questions: that one, and the category."""
OWN_FILES = {
    "gqa": "testdev_balanced_questions.json",
    "pope": "coco_pope_random.json",
    **video_files.FILES,
}
"""A benchmark's own file of questions, where it has all that is asked."""
IMAGE_FOLDERS = ("images", "val2014")
EXTENSIONS = ("", ".jpg", ".png", ".jpeg", ".webp")
"""What a question calls its image is a file's name with or without one of these."""
HELD_OUT = ("held_out", "held_out_shuffled")


@dataclass(frozen=True, kw_only=True)
class BenchmarkData:
    """A benchmark's questions, and the folder that their images are in."""

    protocol: Protocol
    questions: tuple[Question, ...]
    images: str
    """With a root (densekit.spec.roots)."""


def folder_of(benchmark: str) -> str:
    """Where a benchmark is, with the data root: as the catalogue says, where it has an entry."""
    if benchmark not in DATA_SETS:
        return f"data:benchmarks/{video_files.FOLDERS.get(benchmark, benchmark)}"
    return f"data:{_catalogue()[DATA_SETS[benchmark]]}"


@functools.cache
def _catalogue() -> dict[str, str]:
    """Folder of every entry."""
    return {entry.name: entry.root for entry in load_catalog()}


def question_file(benchmark: str, roots: Roots) -> Path | None:
    """The file of a benchmark's questions; None where it is not there."""
    folder = roots.resolve(folder_of(benchmark))
    found = [folder / name for name in _names(benchmark) if (folder / name).is_file()]
    return found[0] if found else None


def _names(benchmark: str) -> tuple[str, ...]:
    """Of the files that would do, the first one first."""
    whole, _ = PARTS.get(benchmark, (benchmark, ""))
    return (f"{whole}{OWN_SUFFIX}", *filter(None, (OWN_FILES.get(benchmark),)))


def present(math: Math | None, roots: Roots) -> tuple[str, ...]:
    """The benchmarks whose questions are here, for a run of the recipe `math`; not those that ask
    what another one asks, for a judge.
    """
    held_out = HELD_OUT if math is not None and math.probe else ()
    others = [name for name in benchmark_names() if name not in (*HELD_OUT, *videos.QUESTIONS)]
    return (*held_out, *(name for name in others if question_file(name, roots)))


def read_data(benchmark: str, math: Math | None, roots: Roots) -> BenchmarkData:
    """The questions of a benchmark. Raises DataError where they are missing, naming the files that
    would do, or of another form.
    """
    protocol = get_protocol(benchmark)
    if benchmark in HELD_OUT:
        if math is None or math.probe is None:
            raise DataError(
                f"{protocol.title}: the recipe of this model has none; give it a `probe` with "
                "questions and images"
            )
        questions = held_out_questions(roots.resolve(math.probe.questions))
        if benchmark == "held_out_shuffled":
            questions = shuffled(questions, math.seed)
        as_trained = {"image_aspect_ratio": math.data.image_aspect_ratio}
        return BenchmarkData(
            protocol=protocol.model_copy(update=as_trained),
            questions=tuple(questions),
            images=math.probe.images,
        )
    folder = folder_of(benchmark)
    file = question_file(benchmark, roots)
    if file is None:
        fetch, place = "", roots.resolve(folder)
        if has_parquet(benchmark, place):
            quoted = shlex.quote(str(place))
            fetch = (
                f"; `densekit data unpack {quoted} --to {quoted} --benchmark {benchmark}` makes "
                "them from the parquet files there"
            )
        elif any(place.rglob("*.parquet")):
            fetch = (
                f"; the parquet files there are not read: write {_names(benchmark)[0]} from them"
            )
        elif benchmark in DATA_SETS:
            fetch = f"; `densekit fetch {DATA_SETS[benchmark]}` fetches what is published"
        raise DataError(
            f"{protocol.title} is not in {roots.resolve(folder)}: its questions are read from "
            f"{' or '.join(_names(benchmark))} there (docs/evaluation.md){fetch}"
        )
    folders = (video_files.VIDEOS,) if protocol.video else IMAGE_FOLDERS
    places = [f"{folder}/{name}" for name in folders]
    _, category = PARTS.get(benchmark, (benchmark, None))
    return BenchmarkData(
        protocol=protocol,
        questions=tuple(
            question
            for question in read_questions(protocol, file)
            if category is None or question.category == category
        ),
        images=next((each for each in places if roots.resolve(each).is_dir()), places[0]),
    )


def in_tiles(data: BenchmarkData) -> BenchmarkData:
    """The same as it is asked of a model that sees an image in tiles: officially the model's own
    configuration decides that. Raises DataError for a benchmark of videos.
    """
    if data.protocol.video is not None:
        raise DataError(
            f"{data.protocol.title}: a video is seen as one view per frame, and the model was "
            "trained on several tiles per image (AnyRes): evaluate a model of one view an image"
        )
    protocol = data.protocol.model_copy(update={"image_aspect_ratio": "anyres"})
    return replace(data, protocol=protocol)


def held_out_questions(path: Path) -> list[Question]:
    """The first question of each sample of an annotation file, and its answer. Raises DataError for
    a sample without image or answer.
    """
    questions = []
    for sample in Annotations.load(path):
        turns = sample.conversations
        if sample.image is None or len(turns) < 2:
            raise DataError(
                f"{path}: entry {sample.index}: a held-out question needs an image and an answer"
            )
        text = turns[0]["value"]
        questions.append(
            Question(
                id=str(sample.index),
                text=text,
                image=sample.image,
                gold=(turns[1]["value"],),
                category=text,
            )
        )
    return questions


def shuffled(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions about each other's images."""
    images = [question.image for question in questions]
    random.Random(seed).shuffle(images)
    return [
        replace(question, image=image) for question, image in zip(questions, images, strict=True)
    ]


def image_path(data: BenchmarkData, image: str, roots: Roots) -> str:
    """The reference of the file of an image or video. Raises DataError where there is none."""
    what = "video" if data.protocol.video else "image"
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
        raise DataError(
            f"{data.protocol.title}: {what} {image} leads out of {data.images}; give a name in it"
        )
    names = [f"{image}{extension}" for extension in EXTENSIONS]
    for name in video_files.video_names(image) if data.protocol.video else names:
        reference = f"{data.images}/{name}"
        if roots.resolve(reference).is_file():
            return reference
    raise DataError(
        f"{data.protocol.title}: {what} {image} is not in {roots.resolve(data.images)}; put it "
        "there"
    )
