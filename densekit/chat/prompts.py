"""Files of prompts: a JSON object per line with `prompt`, `image` and `id`."""

from collections.abc import Iterator
from pathlib import Path

from densekit.errors import DataError
from densekit.files.json_files import parse_json, read_file
from densekit.spec.part import read_part
from densekit.spec.talk import GenerateRequest, PromptLine
from densekit.text.conversation import with_tag

REMEDY = 'a line is {"prompt": "...", "image": "FILE", "id": ...}, the last two as you like'


def read_prompts(request: GenerateRequest) -> list[PromptLine]:
    """The prompts of a request and of its file, images as absolute paths. Raises DataError that
    names the line.
    """
    found = [*request.prompts]
    for line in found:
        with_tag(line.prompt, has_image=line.image is not None)
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
            with_tag(prompt.prompt, has_image=prompt.image is not None)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        if prompt.image is not None:
            image = path.absolute().parent / prompt.image
            if not image.is_file():
                raise DataError(f"{place}: image {image} does not exist: correct the path")
            prompt = prompt.model_copy(update={"image": str(image)})
        yield prompt
