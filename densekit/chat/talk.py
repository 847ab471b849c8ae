"""What the process that launchers start does: load a model, then hold a conversation, or answer
questions in batches.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

import torch
from transformers.utils import logging

from densekit.chat.conversation import Conversation
from densekit.chat.prompts import read_prompts
from densekit.chat.terminal import Terminal
from densekit.data.pixels import open_image
from densekit.data.video import read_frames, require_decoder
from densekit.errors import DataError
from densekit.exchange.pipeline import Answer, Pipeline, Prompt, load_pipeline
from densekit.model.dtypes import TORCH_DTYPES
from densekit.spec.talk import (
    AnswerLine,
    ChatRequest,
    GenerateReport,
    GenerateRequest,
    PromptLine,
    TalkSettings,
)
from densekit.spec.video import VideoSettings


def chat(request: ChatRequest) -> None:
    """Talk in the terminal until there are no more questions. Raises UsageError and DataError as
    `load_pipeline`, and DataError for a picture that cannot be read.
    """
    if request.image is not None:
        open_image(request.image)  # before the model, which takes its time
    pipeline = _load(request)
    conversation = Conversation(
        pipeline, max_new_tokens=request.max_new_tokens, temperature=request.temperature
    )
    about = "no picture: /image FILE names one"
    if request.image is not None:
        conversation.look_at(request.image)
        about = f"about {request.image}"
    connector = pipeline.model.config.connector_spec.kind
    _note(f"connector {connector}, template {pipeline.conversation.template}; {about}; /help")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # refused with the question
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 (lines can be edited and are remembered)
    with _memory_said(request):
        Terminal(conversation, folder=request.folder, seen=request.seen).run()


def generate(request: GenerateRequest) -> GenerateReport:
    """Answer every prompt by itself. Raises as `chat`, and DataError that names the prompt."""
    lines = read_prompts(request)
    if any(line.video is not None for line in lines):
        require_decoder()  # before the model, which takes its time
    pipeline = _load(request)
    answers: list[AnswerLine] = []
    with _memory_said(request):
        for start in range(0, len(lines), request.batch_size):
            batch = lines[start : start + request.batch_size]
            prompts = [
                _prompt(pipeline, number, line, len(lines), request.video)
                for number, line in enumerate(batch, start=start + 1)
            ]
            given = pipeline.answers(
                prompts, max_new_tokens=request.max_new_tokens, temperature=request.temperature
            )
            answers += map(_line, batch, prompts, given)
            if len(lines) > request.batch_size:
                _note(f"answered {len(answers)} of {len(lines)} prompts")
    return GenerateReport(
        model=str(request.model),
        template=pipeline.conversation.template,
        device=request.device,
        dtype=request.dtype,
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        seed=request.seed,
        answers=tuple(answers),
    )


def _prompt(
    pipeline: Pipeline, number: int, line: PromptLine, count: int, settings: VideoSettings
) -> Prompt:
    try:
        if line.video is not None:
            frames = read_frames(Path(line.video), settings)
            return pipeline.video_question(line.prompt, frames, settings)
        image = None if line.image is None else open_image(Path(line.image))
        return pipeline.question(line.prompt, image)
    except DataError as error:
        raise DataError(f"prompt {number}: {error}" if count > 1 else str(error)) from None


def _line(asked: PromptLine, prompt: Prompt, answer: Answer) -> AnswerLine:
    return AnswerLine(
        id=asked.id,
        prompt=asked.prompt,
        image=asked.image,
        video=asked.video,
        frames=prompt.frames,
        answer=answer.text,
        finish="end" if answer.ended else "length",
        prompt_tokens=prompt.tokens,
        new_ids=answer.ids,
    )


def _load(request: TalkSettings) -> Pipeline:
    logging.disable_progress_bar()
    _note(f"loading {request.model} ({request.dtype}, {request.device})")
    torch.manual_seed(request.seed)
    with _memory_said(request):
        return load_pipeline(
            request.model,
            dtype=TORCH_DTYPES[request.dtype],
            device=request.device,
            template=request.template,
        )


@contextmanager
def _memory_said(request: TalkSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        narrower = ", --dtype bf16 or fp16" if request.dtype == "fp32" else ""
        raise DataError(
            f"the memory of the GPU ran out: use a larger GPU{narrower}, a smaller --batch-size "
            "(generate), or --device cpu"
        ) from None


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
