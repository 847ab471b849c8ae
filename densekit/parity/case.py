"""A recorded case: which recipe its command line spells, and the pieces to run it with densekit's
own trainer.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.batching.order import OfficialOrder, ReferenceTopology
from densekit.batching.steps import Step, iterate_steps
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.model.config import read_config
from densekit.model.micro_batch import MicroBatch
from densekit.model.preprocess import normalise
from densekit.model.towers import vision_config_of
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.parity.tokens import RecordedEncoder, has_tokenizer
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Data, Lora, Math, Models, Optimizer, Reference
from densekit.spec.roots import Roots
from densekit.spec.types import LEDGER_ENTRIES
from densekit.text.encode import SampleEncoder
from densekit.text.lengths import modality_length
from densekit.text.tokenizers.base import load_tokenizer
from densekit.train.assembly import build_trainer
from densekit.train.engines.process_group import make_accelerator
from densekit.train.initial_state import load_base, prepare
from densekit.train.step_dataset import SampleReader
from densekit.train.trainer import Trainer

SHALLOW_LAYERS = (7, 15)  # sti, sci: the paper's layers 8 and 16 (facts: connector definitions)


def official_connector(kind: str, blocks: int, is_clip: bool) -> Connector:
    """The connector of the official code as indices: two equal groups for dci, layers 7 and 15 for
    sti and sci.

    CLIP groups its states 0..L-1; SigLIP, whose last block is deleted, 0..L-2. Any other kind is
    the plain path.
    """
    if kind in ("sti", "sci"):
        return Connector(kind=kind, layers=SHALLOW_LAYERS)
    if kind == "dci":
        half = (blocks if is_clip else blocks - 1) // 2
        groups = (tuple(range(half)), tuple(range(half, 2 * half)))
        return Connector(kind=kind, groups=groups)
    return Connector(kind="none")


def read_argv(argv: list[str]) -> dict[str, str]:
    """`--name value` pairs of a recorded command line."""
    if len(argv) % 2 or not all(name.startswith("--") for name in argv[::2]):
        raise DataError("argv is not a list of --name value pairs")
    return {name[2:]: value for name, value in zip(argv[::2], argv[1::2], strict=True)}


@dataclass(frozen=True)
class Recording:
    """One recorded training of the official code: its JSON and where its inputs lie."""

    root: Path
    record: dict[str, Any]
    arguments: dict[str, str]

    @classmethod
    def read(cls, root: Path, path: Path) -> "Recording":
        """Read stageN.json or lora.json."""
        record = read_json(path)
        return cls(root, record, read_argv(record["argv"]))

    @property
    def stage(self) -> int:
        """1 when only the connector was tuned."""
        return 1 if self.arguments.get("tune_mm_mlp_adapter") == "True" else 2

    @property
    def math(self) -> Math:
        """The math that this command line spells."""
        given = self.arguments
        tower = self.root / given["vision_tower"]
        vision = vision_config_of(read_config(tower, "vision tower"))
        is_clip = vision.model_type == "clip_vision_model"
        lora = None
        if given.get("lora_enable") == "True":
            lora = Lora(
                r=int(given.get("lora_r", 64)),
                alpha=int(given.get("lora_alpha", 16)),
                dropout=float(given.get("lora_dropout", 0.05)),
            )
        connector_rate = given.get("mm_projector_lr")
        reference = Reference(
            gpus=1,
            per_device_batch_size=int(given["per_device_train_batch_size"]),
            grad_accum_steps=int(given.get("gradient_accumulation_steps", 1)),
        )
        return Math(
            name="recorded",
            stage=1 if self.stage == 1 else 2,
            needs=None,
            models=Models(
                language_model=str(self.root / given["model_name_or_path"]),
                vision_tower=str(tower),
            ),
            connector=official_connector(
                given.get("mm_dense_connector_type", "dci"), vision.num_hidden_layers, is_clip
            ),
            data=Data(
                annotations=str(self.root / given["data_path"]),
                images=str(self.root / given["image_folder"]),
                template=given["version"],  # type: ignore[arg-type]  # checked by the type
                image_aspect_ratio="pad" if given.get("image_aspect_ratio") == "pad" else "square",
                max_length=self.max_length,
                group_by_modality_length=given.get("group_by_modality_length") == "True",
            ),
            optimizer=Optimizer(
                learning_rate=float(given["learning_rate"]),
                connector_learning_rate=float(connector_rate) if connector_rate else None,
                weight_decay=float(given.get("weight_decay", 0.0)),
                warmup_ratio=float(given.get("warmup_ratio", 0.0)),
                max_grad_norm=float(given.get("max_grad_norm", 1.0)),
                max_steps=int(given["max_steps"]),
            ),
            lora=lora,
            global_batch_size=reference.global_batch_size,
            reference=reference,
            seed=int(given.get("seed", 42)),
            ledger=dict.fromkeys(LEDGER_ENTRIES, "faithful"),
            assets=None,
            probe=None,
        )

    def model(self, init: dict[str, Tensor]) -> DenseConnectorForConditionalGeneration:
        """The model at step 0 from `connector.*` (and `lora.*`) weights, ready to train."""
        return prepare(load_base(self.math, Roots()), self.math, init)

    def reader(
        self, annotations: Path, model: DenseConnectorForConditionalGeneration
    ) -> SampleReader:
        """The reader of an annotation file under this command line's template, aspect ratio and
        length.
        """
        given = self.arguments
        samples = Annotations.load(annotations)
        return SampleReader(
            samples=samples,
            index=SampleIndex.of(samples),
            encoder=self.encoder(),
            image_folder=self.root / given["image_folder"],
            processor=ImageProcessor.from_pretrained(
                self.root / given["vision_tower"],
                "pad" if given.get("image_aspect_ratio") == "pad" else "square",
            ),
            image_tokens=model.config.image_layout.max_tokens,
        )

    def encoder(self) -> SampleEncoder | RecordedEncoder:
        """The tokenizer of the recorded language model; recorded ids in a set that leaves the
        tokenizer out.
        """
        folder = self.root / self.arguments["model_name_or_path"]
        if not has_tokenizer(self.root, folder):
            return RecordedEncoder(
                self.root, template=self.arguments["version"], max_length=self.max_length
            )
        return SampleEncoder(
            tokenizer=load_tokenizer(folder),
            template=self.arguments["version"],
            semantics="faithful",
            max_length=self.max_length,
        )

    @property
    def max_length(self) -> int:
        """model_max_length."""
        return int(self.arguments["model_max_length"])

    def steps(self, samples: Annotations) -> list[Step]:
        """Every optimiser step of the recorded training, in the reconstructed order."""
        given = self.arguments
        lengths = [
            modality_length(sample.conversations, sample.image is not None) for sample in samples
        ]
        order = OfficialOrder(
            modality_lengths=np.array(lengths, dtype=np.int64),
            topology=ReferenceTopology(
                world_size=1,
                per_device_batch_size=int(given["per_device_train_batch_size"]),
                grad_accum_steps=int(given.get("gradient_accumulation_steps", 1)),
            ),
            seed=int(given.get("seed", 42)),
            group_by_modality=given.get("group_by_modality_length") == "True",
        )
        return list(iterate_steps(order, max_steps=int(given["max_steps"])))


def make_trainer(
    model: DenseConnectorForConditionalGeneration,
    reader: SampleReader,
    steps: list[Step],
    math: Math,
) -> Trainer:
    """densekit's trainer over given steps, one process, one micro-batch per reference group."""
    execution = Execution(micro_batch_size=max(len(group) for group in steps[0].groups))
    return build_trainer(model, reader, steps, math, execution, make_accelerator(execution))


def single_step(samples: int) -> list[Step]:
    """One step whose only group is the whole recorded batch."""
    return [Step(index=0, groups=[np.arange(samples)], num_groups=1)]


def official_name(name: str) -> str:
    """densekit's parameter name -> the official one (projector.0.weight ->
    model.mm_projector.0.weight).
    """
    if name.startswith("projector."):
        return "model.mm_projector." + name.removeprefix("projector.")
    return name.removeprefix("language_model.")


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters under their official names."""
    return {official_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def normalised_pixels(reader: SampleReader, index: int) -> Tensor:
    """Float pixels [1, 3, S, S] of a sample as the official batch holds them: zeros for a text-only
    one.
    """
    image = reader.image(index)
    if image is None:
        return torch.zeros(1, 3, reader.processor.size, reader.processor.size)
    return normalise(
        torch.from_numpy(image.pixels)[None], torch.from_numpy(reader.processor.lookup_table())
    )


@torch.no_grad()
def run_everywhere(
    model: DenseConnectorForConditionalGeneration, micro_batch: MicroBatch, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings [T, H] and float64 logits [T, V] at every position of a micro-batch, not only
    where there is a label.
    """
    embeddings = model.trainable_part.embed(micro_batch, model.encode_images(images))
    tokens = len(micro_batch.input_ids)
    everywhere = replace(
        micro_batch,
        label_positions=torch.arange(tokens),
        targets=torch.zeros(tokens, dtype=torch.int64),
        weights=torch.zeros(tokens),
    )
    return embeddings, model(everywhere, images).logits.double()
