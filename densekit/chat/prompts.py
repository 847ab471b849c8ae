"""Files of prompts: a JSON object per line with `prompt`, `image` or `video`, and `id`."""

from collections.abc import Iterator
from pathlib import Path

from densekit.errors import DataError
from densekit.files.json_files import parse_json, read_file
from densekit.spec.part import read_part
from densekit.spec.talk import GenerateRequest, PromptLine
from densekit.text.conversation import with_tag

REMEDY = (
    'a line is {"prompt": "...", "image": "FILE", "id": ...}, or "video" in the place of "image"; '
    "all but the prompt as you like"
)


def read_prompts(request: GenerateRequest) -> list[PromptLine]:
    """The prompts of a request and of its file, images as absolute paths. Raises DataError that
    names the line.
    """
    found = [*request.prompts]
    for line in found:
        with_tag(line.prompt, has_image=line.shown is not None)
    if request.file is not None:
        found += _in_file(request.file)
    if not found:
        raise DataError(f"{request.file} holds no prompts: {REMEDY}")
    return found


def _in_file(path: Path) -> Iterator[PromptLine]:
    data = read_file(path, remedy=REMEDY)
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            raise DataError(f"{place}: {error}; {REMEDY}") from None
        prompt = read_part(PromptLine, value, source=place, remedy=REMEDY)
        try:
            with_tag(prompt.prompt, has_image=prompt.shown is not None)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        for kind in ("image", "video"):
            if (named := getattr(prompt, kind)) is not None:
                file = path.absolute().parent / named
                if not file.is_file():
                    raise DataError(f"{place}: {kind} {file} does not exist: correct the path")
                prompt = prompt.model_copy(update={kind: str(file)})
        yield prompt
