"""The model that is asked, on its device, with tokenizer, template and image processor."""

from dataclasses import dataclass
from pathlib import Path

import torch

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.evaluate.protocols.common import PADDED_AS_STORED
from densekit.evaluate.protocols.stops import stop_texts
from densekit.evaluate.runner.batches import Preparer
from densekit.exchange.loading import load_model
from densekit.exchange.source import Source
from densekit.exchange.tokenizer import tokenizer_of
from densekit.model.answering import Decoding
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.runs.benchmarks import Protocol
from densekit.runs.evaluations import Evaluation
from densekit.spec.roots import Roots
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import Tokenizer

SAMPLED_FROM = 50
"""Likeliest tokens that an answer is sampled from where a protocol samples: transformers' default,
which the official runner leaves as it is.
"""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A model ready to be asked."""

    model: DenseConnectorForConditionalGeneration
    source: Source
    tokenizer: Tokenizer
    encoder: SampleEncoder

    def preparer(self, protocol: Protocol, roots: Roots) -> Preparer:
        """What makes batches: the tower's processor with the aspect ratio of the protocol as it was
        planned, not of any configuration. Raises DataError where a video alone has more tokens than
        the language model has positions.
        """
        if protocol.video is not None and self._positions is not None:
            of_frame = self.model.config.image_layout.max_tokens
            tokens = protocol.video.tokens(protocol.video.frames, of_frame)
            if tokens >= self._positions:
                raise DataError(
                    f"{protocol.title}: a video of {protocol.video.frames} frames has {tokens:,} "
                    f"tokens, and the language model of {self.source.path} has "
                    f"{self._positions:,} positions: no question would be left behind it; "
                    "`densekit generate --video FILE --frames N` asks about fewer frames"
                )
        return Preparer(
            self.encoder,
            ImageProcessor.from_pretrained(
                self.source.tower,
                protocol.image_aspect_ratio,
                self.source.anyres,
                mining=self.source.connector.mining,
            ),
            roots,
            padded_as_stored=PADDED_AS_STORED in protocol.quirks,
            video=protocol.video,
        )

    def decoding(self, protocol: Protocol) -> Decoding:
        """How answers are generated. Raises DataError where nothing could end one."""
        tokenizer, template = self.tokenizer, self.source.template
        stops = [tokenizer.token_id(text) for text in stop_texts(template, "faithful")]
        ends = tuple(id_ for id_ in (tokenizer.eos_id, *stops) if id_ is not None)
        if not ends:
            raise DataError(
                f"{self.source.path}: its tokenizer has no end token, so that no answer would end; "
                "add `eos_token` to tokenizer_config.json"
            )
        asked = protocol.decoding
        return Decoding(
            end_tokens=ends,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature if asked.do_sample else 0.0,
            top_k=SAMPLED_FROM,
            num_beams=asked.num_beams,
            max_prompt=self.source.max_length if protocol.video is None else self._positions,
        )

    @property
    def _positions(self) -> int | None:
        """Of the language model: what officially cuts a prompt with a video (docs/how-to/video.md);
        None where its configuration states none.
        """
        return getattr(self.model.config.text_config, "max_position_embeddings", None)


def load_evaluated(source: Path, evaluation: Evaluation, device: torch.device) -> Evaluated:
    """The model of a run or an import. Raises UsageError and DataError as `load_model`, and
    DataError where its template is not the one that was planned.
    """
    dtype = TORCH_DTYPES[evaluation.dtype]
    model, found = load_model(source, dtype=dtype)
    if found.template != evaluation.model.template:
        raise DataError(
            f"{source} is asked in template {found.template}, and {evaluation.model.template} was "
            "planned: it changed since; evaluate it again"
        )
    tokenizer = tokenizer_of(found.tokenizer)
    torch.nn.Module.to(model, device=device, dtype=dtype)
    return Evaluated(
        model=model,
        source=found,
        tokenizer=tokenizer,
        encoder=SampleEncoder(
            tokenizer=tokenizer,
            template=found.template,
            semantics=found.semantics,
            max_length=found.max_length,
        ),
    )
