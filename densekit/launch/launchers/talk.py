"""The process that talks: it takes the place of this one, so that terminal, signals and exit code
are its own.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from densekit.chat.prompts import read_prompts
from densekit.errors import UsageError
from densekit.launch.host_gpus import gpu_variables
from densekit.launch.launchers.exchange import folders_behind
from densekit.launch.launchers.trainer_command import missing_packages
from densekit.spec.execution import Execution
from densekit.spec.talk import TalkRequest


def talk_arguments(request: TalkRequest) -> list[str]:
    """What follows the interpreter."""
    return ["-m", "densekit", "talk", request.model_dump_json(exclude_none=True)]


def talk_variables(execution: Execution) -> dict[str, str]:
    """What it needs besides the variables of this shell."""
    variables = {"TOKENIZERS_PARALLELISM": "false"}
    if execution.device == "cpu":
        return {**variables, "CUDA_VISIBLE_DEVICES": ""}
    return {**variables, **gpu_variables(execution)}


def talk_here(request: TalkRequest, execution: Execution) -> NoReturn:
    """Become the process that talks, in this interpreter. Raises UsageError where the trainer's
    packages are not here.
    """
    if missing := missing_packages():
        raise UsageError(
            f"{', '.join(missing)} not installed: talking with a model needs the trainer's "
            "packages; run `make setup`, or use --launcher docker"
        )
    become([sys.executable, *talk_arguments(request)], talk_variables(execution))


def become(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Run a command in place of this process. Raises UsageError where it is not there."""
    program = shutil.which(command[0])
    if program is None:
        raise UsageError(
            f"{command[0]} is not on PATH, and a conversation needs it: install it, or run this "
            f"where it is: {shlex.join(command)}"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, [*command], {**os.environ, **variables})


def reads(request: TalkRequest) -> Iterator[Path]:
    """The folders that it reads: the model's, and those of files that are named or may be named in
    a conversation. Raises DataError for a record that is damaged, and for a bad file of prompts.
    """
    yield from folders_behind(request.settings.model)
    if request.chat is not None:
        yield from request.chat.seen
    if request.generate is not None:
        if request.generate.file is not None:
            yield request.generate.file.parent
        for line in read_prompts(request.generate):
            if line.shown is not None:
                yield Path(line.shown).resolve().parent


def in_sight(request: TalkRequest) -> TalkRequest:
    """The same where only what is mounted is seen: of a conversation the picture's folder and the
    one that it was started in.
    """
    if request.chat is None:
        return request
    image, folder = request.chat.image, request.chat.folder
    folders = {image.parent} if image is not None else set()
    if folder != Path(folder.anchor):
        folders.add(folder)
    chat = request.chat.model_copy(update={"seen": tuple(sorted(folders))})
    return request.model_copy(update={"chat": chat})
