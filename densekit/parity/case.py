"""A recorded case: the math that its command line spells, and the pieces to run it with densekit's
own trainer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from densekit.batching.run_order import RunOrder
from densekit.batching.steps import Step
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.exchange.official.settings import official_connector
from densekit.files.json_files import read_object
from densekit.model.config import read_config
from densekit.model.init import initial_projector
from densekit.model.towers import num_patches, vision_config_of
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.parity.preprocess import recorded_aspect_ratio
from densekit.parity.recorded_tokens import RecordedEncoder, has_tokenizer
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Data, Lora, Math, Models, Optimizer, Reference
from densekit.spec.mining import STEM, Mining
from densekit.spec.roots import Roots
from densekit.spec.types import LEDGER_ENTRIES
from densekit.text.encode import SampleEncoder
from densekit.train.assembly import build_trainer
from densekit.train.engines.process_group import make_accelerator
from densekit.train.initial_state import load_base, prepare
from densekit.train.inputs import make_encoder
from densekit.train.step_dataset import SampleReader
from densekit.train.trainer import Trainer

DROP_PATH = 0.1
"""Of OpenCLIP's convnext_large_d_320, where a command line does not turn it off."""


def read_argv(argv: list[str]) -> dict[str, str]:
    """`--name value` pairs of a recorded command line."""
    if len(argv) % 2 or not all(name.startswith("--") for name in argv[::2]):
        raise DataError("argv is not a list of --name value pairs")
    return {name[2:]: value for name, value in zip(argv[::2], argv[1::2], strict=True)}


def _anyres(given: dict[str, str]) -> AnyRes | None:
    """Pinpoints as JSON, and the merge type, of a recording with tiles."""
    if given.get("image_aspect_ratio") != "anyres":
        return None
    pinpoints = json.loads(given["image_grid_pinpoints"])
    merge = given.get("mm_patch_merge_type", "flat")
    return AnyRes.model_validate({"pinpoints": pinpoints, "merge": merge})


def _connector(given: dict[str, str], layers: int, patches: int, is_clip: bool) -> Connector:
    """The connector; a recording with two towers has none of the official ones."""
    if "vision_tower_aux" not in given:
        kind = given.get("mm_dense_connector_type", "dci")
        return official_connector(kind, layers, is_clip)
    size = int(given["image_size_aux"])
    rate = 0.0 if given.get("drop_path") == "False" else DROP_PATH
    window = size // STEM // isqrt(patches)
    mining = Mining(image_size=size, window=window, drop_path=rate)
    return Connector(kind="none", mining=mining)


@dataclass(frozen=True)
class Recording:
    """One recorded training of the official code: its JSON and where its inputs lie."""

    root: Path
    record: dict[str, Any]
    arguments: dict[str, str]

    @classmethod
    def read(cls, root: Path, path: Path, *keys: str) -> "Recording":
        """Read stageN.json or lora.json; DataError when it lacks one of `keys`."""
        record = read_object(path, "argv", *keys)
        return cls(root, record, read_argv(record["argv"]))

    @cached_property
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
        tower_rate = given.get("mm_vision_tower_lr")
        reference = Reference(
            gpus=1,
            per_device_batch_size=int(given["per_device_train_batch_size"]),
            grad_accum_steps=int(given.get("gradient_accumulation_steps", 1)),
        )
        return Math(
            name="recorded",
            stage=1 if given.get("tune_mm_mlp_adapter") == "True" else 2,
            needs=None,
            models=Models(
                language_model=str(self.root / given["model_name_or_path"]),
                vision_tower=str(tower),
                high_resolution_tower=given.get("vision_tower_aux"),
            ),
            connector=_connector(given, vision.num_hidden_layers, num_patches(vision), is_clip),
            data=Data(
                annotations=str(self.root / given["data_path"]),
                images=str(self.root / given["image_folder"]),
                template=given["version"],
                image_aspect_ratio=recorded_aspect_ratio(given.get("image_aspect_ratio", "square")),
                anyres=_anyres(given),
                max_length=int(given["model_max_length"]),
                group_by_modality_length=given.get("group_by_modality_length") == "True",
            ),
            optimizer=Optimizer(
                learning_rate=float(given["learning_rate"]),
                connector_learning_rate=float(connector_rate) if connector_rate else None,
                tower_learning_rate=float(tower_rate) if tower_rate else None,
                weight_decay=float(given.get("weight_decay", 0.0)),
                warmup_ratio=float(given.get("warmup_ratio", 0.0)),
                max_grad_norm=float(given.get("max_grad_norm", 1.0)),
                epochs=int(given.get("num_train_epochs", 1)),
                max_steps=int(given["max_steps"]) if "max_steps" in given else None,
            ),
            lora=lora,
            global_batch_size=reference.global_batch_size,
            reference=reference,
            seed=int(given.get("seed", 42)),
            ledger=dict.fromkeys(LEDGER_ENTRIES, "faithful"),
            assets=None,
            probe=None,
        )

    def model(
        self, init: dict[str, Tensor] | None = None
    ) -> DenseConnectorForConditionalGeneration:
        """The model at step 0 from `connector.*` (and `lora.*`) weights, ready to train; without
        any, the connector is drawn from the seed.
        """
        base = load_base(self.math, Roots())
        if init is None:
            drawn = initial_projector(base.projector, self.math.seed)
            init = {f"connector.{name}": value for name, value in drawn.items()}
        return prepare(base, self.math, init)

    def reader(
        self, annotations: Path, model: DenseConnectorForConditionalGeneration
    ) -> SampleReader:
        """The reader of an annotation file under this command line's template, aspect ratio and
        length.
        """
        data = self.math.data
        samples = Annotations.load(annotations)
        return SampleReader(
            samples=samples,
            index=SampleIndex.of(samples),
            encoder=self.encoder(),
            image_folder=Path(data.images),
            processor=ImageProcessor.from_pretrained(
                Path(self.math.models.vision_tower),
                data.image_aspect_ratio,
                data.anyres,
                mining=self.math.connector.mining,
            ),
            layout=model.config.image_layout,
        )

    def encoder(self) -> SampleEncoder | RecordedEncoder:
        """The tokenizer of the recorded language model; recorded ids in a set that leaves the
        tokenizer out.
        """
        if has_tokenizer(self.root, Path(self.math.models.language_model)):
            return make_encoder(self.math, Roots())
        data = self.math.data
        return RecordedEncoder(self.root, template=data.template, max_length=data.max_length)

    def steps(self, samples: Annotations) -> list[Step]:
        """Every optimizer step of the recorded training, in the reconstructed order."""
        return RunOrder(self.math, SampleIndex.of(samples).modality_lengths).steps()


def make_trainer(
    model: DenseConnectorForConditionalGeneration,
    reader: SampleReader,
    steps: list[Step],
    math: Math,
    *,
    activation_checkpointing: bool = False,
) -> Trainer:
    """densekit's trainer over given steps, one process, one micro-batch per reference group."""
    execution = Execution(
        micro_batch_size=max(len(group) for group in steps[0].groups),
        activation_checkpointing=activation_checkpointing,
    )
    return build_trainer(model, reader, steps, math, execution, make_accelerator(execution))


def single_step(samples: Sequence[int]) -> list[Step]:
    """One step with one reference group: these samples of the annotation file."""
    return [Step(index=0, groups=[np.array(samples)], num_groups=1)]
