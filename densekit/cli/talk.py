"""`densekit chat`, `generate`: talking with a trained model; and `talk`, which launchers start."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densekit.cli.models import PANEL
from densekit.cli.options import ADVANCED, SITE, AsJson, DeviceName, LauncherName, complete_runs
from densekit.cli.output import print_json
from densekit.cli.packages import need_training_packages
from densekit.errors import UsageError
from densekit.spec.part import MAX_COUNT
from densekit.spec.types import MAX_TEMPERATURE, Dtype
from densekit.spec.video import FRAMES, MAX_FRAMES

if TYPE_CHECKING:
    from densekit.launch.launchers.base import Launcher
    from densekit.spec.execution import Execution
    from densekit.spec.site import Site

commands = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `chat` and `generate` are both told: a field is an argument or an option of each."""

    model: Annotated[
        str,
        typer.Argument(
            help="Complete run, or folder of `densekit import` or `export --format densekit`",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ]
    image: Annotated[Path | None, typer.Option("--image", help="Picture to talk about")] = None
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", min=1, max=MAX_COUNT, help="Tokens of an answer at most"),
    ] = 512
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0, max=MAX_TEMPERATURE, help="0: greedy; else tokens are sampled"
        ),
    ] = 0.0
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of the sampling")] = 0
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Template of conversations (default: the one it was trained with)",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype",
            help="Of the language model: fp32, bf16, fp16 (default: from the GPU)",
            show_choices=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None
    device: DeviceName = None
    launcher: LauncherName = None
    container_image: Annotated[
        str | None,
        typer.Option(
            "--container-image",
            help="Container image (default: the one for the GPUs found)",
            rich_help_panel=SITE,
        ),
    ] = None

    def settings(self, site: "Site", execution: "Execution") -> dict[str, Any]:
        """The fields that both requests have."""
        from densekit.runs.find import find_run

        return {
            "model": find_run(self.model, site.runs_dir).resolve(),
            "device": execution.device,
            "dtype": execution.dtype,
            "template": self.template,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    def where(self) -> "Execution":
        """Device and dtype; what was chosen is said on stderr."""
        from densekit.launch.talk import where_to_talk

        execution, notes = where_to_talk(self.device, self.dtype)
        for note in notes:
            print(note, file=sys.stderr)
        return execution

    def by(self, site: "Site") -> "Launcher":
        """What starts the process that answers."""
        from densekit.launch.conversion import converter
        from densekit.launch.launchers.options import LauncherOptions

        return converter(self.launcher, LauncherOptions(image=self.container_image), site)


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is an `Asked`, as typer reads it: with a parameter for each
    of its fields instead.
    """

    @functools.wraps(command)
    def told(**values: Any) -> None:
        asked = Asked(**{field.name: values.pop(field.name) for field in fields(Asked)})
        command(asked, **values)

    model, *shared = inspect.signature(Asked).parameters.values()
    own = [*inspect.signature(command).parameters.values()][1:]
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (model, *own, *shared)
    ]
    told.__dict__["__signature__"] = inspect.Signature(parameters)
    told.__annotations__ = {each.name: each.annotation for each in parameters}
    return told


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit chat tiny_stage2 --image picture.png"
)
@_asks
def chat(asked: Asked) -> None:
    """Talk with a trained model about a picture, in the terminal.

    /image FILE looks at another picture, /reset begins anew, Ctrl-C stops an answer, Ctrl-D ends.
    Without a terminal every line of the input is a question.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.talk import resolved_image, talk
    from densekit.spec.talk import ChatRequest, TalkRequest

    site, execution = site_settings(), asked.where()
    request = ChatRequest(
        **asked.settings(site, execution),
        image=None if asked.image is None else resolved_image(asked.image),
        folder=Path.cwd(),
    )
    talk(TalkRequest(chat=request), asked.by(site), execution)


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: densekit generate tiny_stage2 --prompt 'What is shown?' --image picture.png",
)
@_asks
def generate(
    asked: Asked,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Question (repeatable: one by one)")
    ] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="Video to ask about (needs the extra `video`)")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="Questions, a JSON object per line: prompt, image or video, id"
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            "--frames", min=1, max=MAX_FRAMES, help="Of a video: looked at, evenly spread"
        ),
    ] = FRAMES,
    pool: Annotated[
        bool,
        typer.Option(
            "--pool/--no-pool",
            help="Of a video: the largest of every two neighbouring tokens of a frame",
            rich_help_panel=ADVANCED,
        ),
    ] = True,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=4096, help="Questions answered at a time")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Answer questions with a trained model, each by itself.

    With --image or --video every --prompt is about it; a file says its own line by line. --json
    adds the ids of each answer, and whether it ended or was cut off.
    """
    from densekit.cli.site import site_settings
    from densekit.launch.talk import resolved_image, resolved_video, talk
    from densekit.spec.talk import GenerateRequest, PromptLine, TalkRequest
    from densekit.spec.video import VideoSettings

    image = asked.image
    if not prompt and file is None:
        raise UsageError("no question: give --prompt, or --file")
    if image is not None and video is not None:
        raise UsageError("--image and --video: a question is about one of them")
    if video is not None and not prompt:
        raise UsageError("--video goes with --prompt: a file says its videos line by line")
    if image is not None and not prompt:
        raise UsageError("--image goes with --prompt: a file says its pictures line by line")
    if prompt and not all(text.strip() for text in prompt):
        raise UsageError("--prompt is empty: ask something")
    site, execution = site_settings(), asked.where()
    shown = None if image is None else str(resolved_image(image))
    watched = None if video is None else str(resolved_video(video))
    request = GenerateRequest(
        **asked.settings(site, execution),
        prompts=tuple(PromptLine(prompt=text, image=shown, video=watched) for text in prompt or ()),
        video=VideoSettings(frames=frames, pooled=pool),
        file=None if file is None else file.resolve(),
        batch_size=batch_size,
        as_json=as_json,
    )
    talk(TalkRequest(generate=request), asked.by(site), execution)


@commands.command("talk", hidden=True, epilog="Example: densekit talk REQUEST")
def talk_(
    request: Annotated[str, typer.Argument(help="Whom to ask, and what, as JSON")],
) -> None:
    """Answer in this terminal, or print answers (launchers start this)."""
    need_training_packages()
    from densekit.chat.talk import chat as hold
    from densekit.chat.talk import generate as answer
    from densekit.launch.talk import read_request

    asked = read_request(request)
    if asked.chat is not None:
        hold(asked.chat)
        return
    assert asked.generate is not None
    report = answer(asked.generate)
    if asked.generate.as_json:
        print_json(report.model_dump(mode="json"))
        return
    for number, line in enumerate(report.answers, start=1):
        print(line.answer if len(report.answers) == 1 else f"[{number}] {line.answer}")
