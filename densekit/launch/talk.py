"""`densekit chat` and `generate`: the request that a launcher carries out, on the GPU of this host
with the least memory in use, or on its CPU.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from densekit.chat.prompts import read_prompts
from densekit.errors import DataError, UsageError
from densekit.launch.host_gpus import find_gpus, kind_of, pick
from densekit.launch.launchers.base import Launcher
from densekit.planner.kernel import choose_kernel
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.talk import TalkRequest
from densekit.spec.templates import template_names
from densekit.spec.types import Device, Dtype


def where_to_talk(device: Device | None, dtype: Dtype | None) -> tuple[Execution, list[str]]:
    """Device and dtype as asked for, or a GPU and its dtype where there is one; with a note on what
    was chosen. Raises UsageError for a dtype that the GPU does not have, and for no GPU.
    """
    found = find_gpus() if device != "cpu" else []
    chosen: Device = device or ("cuda" if found else "cpu")
    capability = kind_of(pick(found, 1)).capability if chosen == "cuda" else None
    asked = ExecutionRequest(dtype=dtype, attention="sdpa")
    settled, _, notes = choose_kernel(asked, chosen, capability)
    return Execution(device=chosen, dtype=settled), notes


def talk(request: TalkRequest, launcher: Launcher, execution: Execution) -> NoReturn:
    """Become the process that answers. Raises UsageError or DataError for what is wrong before."""
    settings = request.settings
    if not settings.model.is_dir():
        raise UsageError(f"{settings.model} is not a folder: give a run, an import or an export")
    if settings.template is not None and settings.template not in template_names():
        raise UsageError(
            f"--template {settings.template} is not one of {', '.join(template_names())}"
        )
    pictures = [request.chat.image] if request.chat is not None else []
    if request.generate is not None:
        lines = read_prompts(request.generate)
        pictures = [Path(line.image) for line in lines if line.image is not None]
    _check_pictures(pictures)
    launcher.talk(request, execution)


def _check_pictures(pictures: Sequence[Path | None]) -> None:
    """Raises DataError for the first whose header cannot be read: the model takes its time."""
    from densekit.data.decoding import examine

    for picture in dict.fromkeys(pictures):
        if picture is not None:
            try:
                examine(picture)
            except DataError as error:
                raise DataError(f"image {picture} cannot be read ({error})") from None


def resolved_image(path: Path) -> Path:
    """The path of a picture, whatever the folder of who reads it. Raises DataError where there is
    no such file.
    """
    return _resolved(path, "--image", "a picture")


def resolved_video(path: Path) -> Path:
    """The same of a video."""
    return _resolved(path, "--video", "a video")


def _resolved(path: Path, option: str, what: str) -> Path:
    if not path.is_file():
        raise DataError(f"{option} {path} is not a file: give {what}")
    return path.resolve()


def read_request(text: str) -> TalkRequest:
    """The argument of `densekit talk`. Raises UsageError for anything else."""
    try:
        return TalkRequest.model_validate_json(text)
    except ValidationError:
        raise UsageError("`densekit talk` takes a request as JSON") from None
