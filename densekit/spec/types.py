"""The literals of the project, each once."""

from typing import Literal, get_args

Semantics = Literal["faithful", "fixed"]
"""What the official code computes, or what it should (docs/upstream.md)."""
LedgerEntry = Literal["L1", "U8", "U9", "L2"]
"""Entries of docs/upstream.md whose two behaviours both exist in the code: ids and labels, the
weight of a token, the tail of an epoch, and what becomes of a batch whose fp16 gradients overflow.
"""
LEDGER_ENTRIES: tuple[LedgerEntry, ...] = get_args(LedgerEntry)

Positions = Literal["exact", "bf16"]
"""Positions of tokens before the rotary tables: as they are, or rounded to bf16, as published runs
very probably had them (docs/upstream.md, U12).
"""
InitialWeights = Literal["exact", "bf16"]
"""Connector and adapters at step 0: as drawn or read, or rounded to bf16, as published bf16 runs
had them (docs/upstream.md, U13).
"""
AspectRatio = Literal["square", "pad", "anyres"]
"""square: as the tower's processor resizes or crops; pad: first padded to a square with the mean
colour; anyres: the whole image and tiles of it.
"""
Device = Literal["cpu", "cuda"]
Dtype = Literal["fp32", "bf16", "fp16"]
DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
AttentionKernel = Literal["sdpa", "flash", "xformers"]
"""Kernel of packed micro-batches: torch's SDPA sequence by sequence, flash-attn varlen, xformers
block-diagonal.
"""
ContainerRuntime = Literal["none", "pyxis", "apptainer"]
"""What runs containers on a cluster; none: the Python of the driver on every node."""
TrackerName = Literal["tensorboard", "wandb"]
"""Where figures of steps go besides the run's own records."""
ZeroStage = Literal[0, 2, 3]
"""0: one process, or DistributedDataParallel; 2, 3: DeepSpeed ZeRO."""
Trains = Literal["connector", "full", "lora"]
"""What has gradients: the connector alone, with the whole language model, or with LoRA adapters."""
ExportFormat = Literal["llava-hf", "official", "densekit"]
"""Stock transformers' LlavaForConditionalGeneration; a folder of the official code; densekit's own
model class."""
PublishFormat = Literal["llava-hf", "densekit"]
"""Those of safetensors alone, which a hub is given."""

IMAGE_TOKEN = "<image>"
"""Stands in a conversation where the image goes."""
IMAGE_TOKEN_ID = -200
"""Its id in input_ids: no token of any vocabulary."""
IGNORE_INDEX = -100
"""Label of a position that has none (torch's own convention)."""
MAX_TEMPERATURE = 100
"""Of sampling."""
