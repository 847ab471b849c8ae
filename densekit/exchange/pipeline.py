"""A trained model with what its prompts need: questions and pictures in, texts out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.exchange.loading import load_model
from densekit.exchange.own_folder import is_own, load_own, read_conversation, read_mining
from densekit.exchange.source import open_source
from densekit.exchange.tokenizer import tokenizer_of
from densekit.model.answering import Decoding, generate
from densekit.model.frames import TaggedFrames
from densekit.model.preprocess import normalise
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.conversation import ConversationSettings
from densekit.spec.part import MAX_COUNT
from densekit.spec.types import IMAGE_TOKEN
from densekit.spec.video import VideoSettings
from densekit.text.answers import AnswerStream, answer_text, check_ending
from densekit.text.conversation import Turn, check_tags, with_tag
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model gets of a conversation, on the CPU."""

    ids: Tensor
    """[T] int64, the image tag as one id."""
    pixels: Tensor | None
    """[1, 3, S, S], normalised, or [t, 3, S, S] under AnyRes; None without an image."""
    image_size: tuple[int, int] | None
    """Width and height of the image."""
    tokens: int
    """Of the whole prompt, with those of the image."""
    frames: int = 0
    """Of a video, whose frames the pixels are; 0: they are an image's."""
    pooled: bool = False
    """Whether the tokens of its frames are pooled."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said to one prompt."""

    text: str
    ids: tuple[int, ...]
    """With the end token, where there is one."""
    ended: bool
    """By an end token; else the number of new tokens ran out."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A model on its device, with its tokenizer, template and image processor."""

    model: DenseConnectorForConditionalGeneration
    conversation: ConversationSettings
    tokenizer: Tokenizer
    encoder: SampleEncoder
    processor: ImageProcessor

    @cached_property
    def _table(self) -> Tensor:
        return torch.from_numpy(self.processor.lookup_table())

    def question(self, text: str, image: Image.Image | None) -> Prompt:
        """The prompt of a single question, with the image in front of it unless it says where.
        Raises DataError as `prompt`.
        """
        return self.prompt([("human", with_tag(text, has_image=image is not None))], image)

    def prompt(self, turns: Sequence[Turn], image: Image.Image | None) -> Prompt:
        """The prompt of a conversation whose last turn is the human's.

        Raises DataError where image tags and images differ in number, and where the prompt is
        longer than the sequences that the model was trained on.
        """
        tags = sum(text.count(IMAGE_TOKEN) for role, text in turns if role == "human")
        check_tags(tags, has_image=image is not None)
        conversations = [{"from": role, "value": text} for role, text in turns]
        ids = self.encoder.encode_prompt(conversations, has_image=image is not None)
        of_image = 0 if image is None else self.model.config.image_layout.tokens(image.size)
        tokens = len(ids) - tags + of_image
        if tokens > self.conversation.max_length:
            picture = f", {of_image:,} of them the image's" if tags else ""
            raise DataError(
                f"the prompt has {tokens:,} tokens{picture}, and the model was trained on "
                f"{self.conversation.max_length:,} at most: shorten it"
            )
        pixels = None
        if image is not None:
            pixels = normalise(torch.from_numpy(self.processor.views(image)), self._table)
        return Prompt(
            ids=torch.from_numpy(ids),
            pixels=pixels,
            image_size=None if image is None else image.size,
            tokens=tokens,
        )

    def video_question(
        self, text: str, frames: Sequence[Image.Image], settings: VideoSettings
    ) -> Prompt:
        """The prompt of a single question about the frames of a video, which stand in front of it
        unless it says where.

        As long as the language model has positions: the official code measures a video by them and
        an image by data.max_length (docs/how-to/video.md). Raises DataError for a model of several
        views per image, and where tags and videos differ in number.
        """
        if self.conversation.anyres is not None:
            raise DataError(
                "a video is seen as one view per frame, and the model was trained on several "
                "tiles per image (AnyRes): ask a model of one view an image"
            )
        text = with_tag(text, has_image=True)
        tags = text.count(IMAGE_TOKEN)
        check_tags(tags, has_image=True)
        ids = self.encoder.encode_prompt([{"from": "human", "value": text}], has_image=True)
        of_frame = self.model.config.image_layout.tokens(frames[0].size)
        views = np.concatenate([self.processor.views(frame) for frame in frames])
        return Prompt(
            ids=torch.from_numpy(ids),
            pixels=normalise(torch.from_numpy(views), self._table),
            image_size=frames[0].size,
            tokens=len(ids) - tags + settings.tokens(len(frames), of_frame),
            frames=len(frames),
            pooled=settings.pooled,
        )

    def _room(self, prompt: Prompt) -> int:
        """New tokens that the language model has positions for."""
        positions = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if positions is None:
            return MAX_COUNT
        if prompt.tokens >= positions:
            raise DataError(
                f"the prompt has {prompt.tokens:,} tokens, and the language model has "
                f"{positions:,} positions: shorten it"
            )
        return int(positions) - prompt.tokens

    def answers(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Answer]:
        """Answer prompts in one batch, padded on the left. `on_text` gets the text of a single
        answer piece by piece, as it comes.
        """
        room = min(self._room(prompt) for prompt in prompts)
        stream = AnswerStream(self.tokenizer, self.encoder.end_tokens)

        def pass_on(token_id: int) -> None:
            assert on_text is not None
            on_text(stream.add(token_id))

        images = [prompt.pixels for prompt in prompts if prompt.pixels is not None]
        sizes = [prompt.image_size for prompt in prompts if prompt.image_size is not None]
        generated = generate(
            self.model,
            [prompt.ids for prompt in prompts],
            torch.cat(images) if images else None,
            Decoding(
                end_tokens=self.encoder.end_tokens,
                max_new_tokens=min(max_new_tokens, room),
                temperature=temperature,
            ),
            image_sizes=sizes,
            frames=_frames(prompts),
            on_token=None if on_text is None else pass_on,
        )
        if on_text is not None:
            on_text(stream.finish())
        return [
            Answer(
                text=answer_text(self.tokenizer, ids, self.encoder.end_tokens),
                ids=tuple(ids),
                ended=bool(ids) and ids[-1] in self.encoder.end_tokens,
            )
            for ids in generated.ids
        ]


def _frames(prompts: Sequence[Prompt]) -> TaggedFrames | None:
    """Which images of a batch are frames of videos; None without any."""
    seen = [prompt for prompt in prompts if prompt.pixels is not None]
    pooled = {prompt.pooled for prompt in seen if prompt.frames}
    assert len(pooled) <= 1, "the videos of a batch are pooled alike"
    if not pooled:
        return None
    return TaggedFrames(counts=[prompt.frames for prompt in seen], pooled=pooled.pop())


def load_pipeline(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    template: str | None = None,
) -> Pipeline:
    """The model of a complete run, of an imported folder or of one in densekit's own format, ready
    to answer on a device. `template`: of conversations, instead of the one it was trained with.

    Raises UsageError and DataError as `load_model`, and DataError where the tokenizer has no token
    for the end of an answer.
    """
    own = is_own(folder)
    if own:
        conversation, texts, images = read_conversation(folder), folder, folder
        mining = read_mining(folder)
    else:
        source = open_source(folder)
        mining = source.connector.mining
        conversation, texts, images = source.conversation, source.tokenizer, source.tower
    tokenizer = tokenizer_of(texts)
    if template is not None:
        conversation = conversation.model_copy(update={"template": template})
    try:
        check_ending(tokenizer, conversation.template)
    except DataError as error:
        raise DataError(f"{folder}: {error}: choose another with --template") from None
    processor = ImageProcessor.from_pretrained(
        images, conversation.image_aspect_ratio, conversation.anyres, mining=mining
    )
    # Last, because it takes minutes where it is large.
    model = load_own(folder, dtype=dtype) if own else load_model(folder, dtype=dtype)[0]
    return Pipeline(
        model=model.to(device),  # type: ignore[arg-type]  # wrapped by transformers, without self
        conversation=conversation,
        tokenizer=tokenizer,
        encoder=SampleEncoder(
            tokenizer=tokenizer,
            template=conversation.template,
            semantics=conversation.semantics,
            max_length=conversation.max_length,
        ),
        processor=processor,
    )
