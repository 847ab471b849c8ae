"""Whether the samples of a recipe can be trained on: the whole annotation file under the recipe's
template, and every image by its header.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from densekit.data.annotations import Annotations
from densekit.data.catalog import data_set_of
from densekit.data.images import Images, find_images
from densekit.errors import DataError
from densekit.files.hashing import json_sha256
from densekit.launch.checks.answers import check_answers_fit
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.text.lengths import modality_length
from densekit.text.source import text_source_sha256
from densekit.text.templates import get_template

NAMED = 10
"""Of the entries with the same kind of problem, so many are named."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was found."""

    sha256: str | None
    """Of the annotation file; None where it cannot be read."""
    problems: list[str]
    """With the annotation file."""
    images: Images | None
    """None where the annotation file cannot be read, or the images are made later."""
    count: int = 0
    """Entries of the annotation file."""
    note: str | None = None
    """What is odd about the annotation file and is no problem."""


def look_at(recipe: Recipe, roots: Roots, get: str) -> Samples:
    """Read a recipe's annotation file and look at its images. `get`: what to do where there is no
    file.
    """
    data = recipe.data
    path = roots.resolve(data.annotations)
    if not path.exists():
        return Samples(
            sha256=None, problems=[f"data.annotations: {path} is missing; {get}"], images=None
        )
    try:
        annotations = Annotations.load(
            path, cache=roots.cache, require_tag=data.template == "plain"
        )
    except DataError as error:
        return Samples(sha256=None, problems=[f"data.annotations: {error}"], images=None)
    problems = []
    if data.samples not in (None, len(annotations)):
        problems.append(
            f"data.annotations: {path} has {len(annotations)} entries, recipe {recipe.name} "
            f"expects {data.samples}: it is not the published file (--set data.samples=null trains "
            "on it)"
        )
    problems += template_problems(recipe, annotations, roots.cache)
    try:
        check_answers_fit(recipe, annotations, roots)
    except DataError as error:
        problems.append(str(error))
    images = None
    if not recipe.makes(data.images):
        images = find_images(annotations, roots.resolve(data.images), roots.cache)
    note = None
    if annotations.form:
        count = len(annotations)
        note = f"data.annotations: {path} is {annotations.form}: its {count} entries are read"
    return Samples(
        sha256=annotations.sha256,
        problems=problems,
        images=images,
        count=len(annotations),
        note=note,
    )


def template_problems(recipe: Recipe, annotations: Annotations, cache: Path) -> list[str]:
    """Entries that the recipe's template does not take, in one line; [] when there are none, which
    is kept in the cache: every entry has to be parsed to find out.
    """
    template, semantics = get_template(recipe.data.template), recipe.semantics_of("L1")
    if template.official_labels is None:
        semantics = "fixed"
    tagged = template.always_tagged
    key = [annotations.sha256, recipe.data.template, semantics, tagged, text_source_sha256()]
    good = cache / "templates" / f"{json_sha256(key)}.good"
    if good.is_file():
        return []
    refused: list[tuple[int, str]] = []
    for sample in annotations:
        has_image = sample.image is not None
        try:
            if tagged and not has_image:
                raise DataError(
                    f"template {recipe.data.template} needs an image, and the entry has none"
                )
            template.turns(sample.conversations, has_image=has_image, semantics=semantics)
            modality_length(sample.conversations, has_image)
        except DataError as error:
            refused.append((sample.index, str(error)))
    if not refused:
        with suppress(OSError):  # it can be found out again
            good.parent.mkdir(parents=True, exist_ok=True)
            good.touch()
        return []
    index, problem = refused[0]
    others = _entries([index for index, _ in refused[1:]])
    more = f" ({others} refused too)" if others else ""
    return [
        f"data.annotations: {annotations.path}: entry {index}: {problem}{more}; correct the "
        "entries, or use another `data.template`"
    ]


def image_problem(
    recipe: Recipe, images: Images, annotations: Path, cache: Path, *, field: str = "data.images"
) -> str | None:
    """Images that cannot be used, in one line that counts them and names the first (None: there are
    none); where there are many, a file in the cache lists all.
    """
    if not images.bad:
        return None
    first = images.bad[0]
    total = len(images.bad)
    line = (
        f"{field}: {annotations}: entry {first.index}: image {images.folder / first.image} "
        f"{first.reason}; "
        f"{total} {'entry lacks a usable image' if total == 1 else 'entries lack a usable image'}"
    )
    if total > 1:
        named = [f"{bad.index} ({bad.image[:80]}: {bad.reason})" for bad in images.bad[1:NAMED]]
        more = ""
        if total > NAMED:
            more = f", and {total - NAMED} more{_listed(images, cache, recipe.name)}"
        line += f": also {', '.join(named)}{more}"
    data_set = data_set_of(recipe.data.annotations)
    source = f" ({data_set.url})" if data_set else ""
    return f"{line}; check the folder and that the archives were unpacked completely{source}"


def _listed(images: Images, cache: Path, name: str) -> str:
    """Where all bad images are listed, in words; "" where that cannot be written."""
    place = cache / "images" / f"{name}_bad.txt"
    lines = [f"{bad.index}\t{bad.image}\t{bad.reason}\n" for bad in images.bad]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""
    return f" (all of them: {place})"


def deep_problem(images: Images) -> str:
    """Images of more than 8 bits a channel, in one line."""
    total = len(images.deep)
    entries = "1 entry has an image" if total == 1 else f"{total} entries have images"
    named = ", ".join(map(str, images.deep[:NAMED])) + (", ..." if total > NAMED else "")
    return (
        f"data.images: {entries} of more than 8 bits a channel (entry {named}), which the official "
        "code cuts off (docs/upstream.md, 1.10)"
    )


def outside_problem(images: Images, roots: Roots, recipe: Recipe) -> str | None:
    """Where images are that a container would not see; None where it sees all of them."""
    seen = [images.folder, roots.data, roots.models]
    mounted = [folder.resolve() for folder in seen]
    hidden = [
        folder
        for folder in images.outside
        if not any(folder.is_relative_to(mount) for mount in mounted)
    ]
    if not hidden:
        return None
    named = ", ".join(map(str, hidden[:3])) + (", ..." if len(hidden) > 3 else "")
    return (
        f"data.images: images of {recipe.name} are outside {images.folder}, in {named}, which a "
        "container does not see: name the images relative to `data.images` and give a folder that "
        "holds them, or use --launcher local"
    )


def held_out_problems(recipe: Recipe, roots: Roots) -> list[str]:
    """What is wrong with the held-out questions of a recipe's probe."""
    assert recipe.probe is not None
    path = roots.resolve(recipe.probe.questions)
    try:
        questions = Annotations.load(path, cache=roots.cache)
    except DataError as error:
        return [f"probe.questions: {error}"]
    unfit = [
        sample.index
        for sample in questions
        if sample.image is None or len(sample.conversations) < 2
    ]
    problems = []
    if unfit:
        problems.append(
            f"probe.questions: {path}: entry {unfit[0]}: a held-out question needs an image and an "
            "answer"
        )
    if not recipe.makes(recipe.probe.images):
        images = find_images(questions, roots.resolve(recipe.probe.images), roots.cache)
        problem = image_problem(recipe, images, path, roots.cache, field="probe.images")
        problems += [] if problem is None else [problem]
    return problems


def _entries(indices: list[int]) -> str:
    if not indices:
        return ""
    named = ", ".join(map(str, indices[:NAMED])) + (", ..." if len(indices) > NAMED else "")
    return f"{len(indices)} more: {named}"
