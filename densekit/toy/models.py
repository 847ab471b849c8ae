"""The tiny recipes' assets: rendered data, a tokenizer trained on its text, a language model
trained on it, a tower.
"""

import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_json, write_json
from densekit.files.permissions import follow_umask
from densekit.model.init import named_generator
from densekit.runs.progress import Progress
from densekit.spec.math import Assets
from densekit.text.templates import get_template
from densekit.text.tokenizers.base import Tokenizer, load_tokenizer
from densekit.toy.dataset import make_shapes

RECIPE_VERSION = 1  # of this file: a change of what is made must change it
VOCABULARY = 512
IMAGE_SIZE, PATCH_SIZE = 56, 8
BATCH_SIZE = 32
SYSTEM_LINES = 200


def ensure_tiny(folder: Path, assets: Assets, *, show: bool = True) -> None:
    """Make `folder`/{data,language_model,vision_tower} unless they are there, made from the same
    settings.

    `assets` is the recipe's section. Everything is a function of it. Another process making the
    same assets is waited for; the folder appears whole, and one made from other settings is
    replaced.
    """
    wanted = {"version": RECIPE_VERSION, **assets.model_dump(mode="json")}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        marker = folder / "tiny.json"
        if marker.is_file() and read_json(marker) == wanted:
            return
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _make(made, assets, show)
            write_json(made / "tiny.json", wanted)
            if folder.exists():
                shutil.rmtree(folder)
            follow_umask(made)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def ensure_models(folder: Path, dialogues: Path, *, seed: int, steps: int) -> None:
    """Make `folder`/{language_model,vision_tower} from a file of conversations, one a line, unless
    they are there, made from the same; it appears whole.

    Raises DataError when `folder` is something else.
    """
    wanted = {
        "version": RECIPE_VERSION,
        "dialogues": file_sha256(dialogues),
        "seed": seed,
        "steps": steps,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        marker = folder / "made.json"
        if folder.exists():
            if marker.is_file() and read_json(marker) == wanted:
                return
            raise DataError(
                f"{folder} is there and was made otherwise: remove it, or choose another folder"
            )
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            print(f"making a tokenizer and tiny models in {folder}", flush=True)
            lines = dialogues.read_text(encoding="utf-8").splitlines()
            make_models(made, lines, seed, steps, show=True)
            write_json(made / marker.name, wanted)
            follow_umask(made)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _make(folder: Path, assets: Assets, show: bool) -> None:
    data = folder / "data"
    if show:
        print(f"making the tiny data set, tokenizer and models in {folder.parent}", flush=True)
    make_shapes(
        data,
        seed=assets.seed,
        stage1=assets.stage1_samples,
        stage2=assets.stage2_samples,
        held_out=assets.held_out,
    )
    dialogues = (data / "text.txt").read_text(encoding="utf-8").splitlines()
    make_models(folder, dialogues, assets.seed, assets.language_model_steps, show)


def make_models(folder: Path, dialogues: Sequence[str], seed: int, steps: int, show: bool) -> None:
    """Write `folder`/{language_model,vision_tower}: a tokenizer and a language model trained on the
    text of conversations, and a drawn tower.
    """
    language_model = folder / "language_model"
    language_model.mkdir()
    # The stage-2 template opens every conversation with its system text, so tokenizer and model
    # must know it.
    system = get_template("v1").system.strip()
    lines = [f"{system} {dialogue}" for dialogue in dialogues]
    train_tokenizer([*dialogues, *lines[:SYSTEM_LINES]], language_model)
    tokenizer = load_tokenizer(language_model)
    train_language_model(lines, tokenizer, language_model, seed, steps, show)
    make_tower(folder / "vision_tower", seed)


def train_tokenizer(lines: list[str], folder: Path) -> None:
    """A sentencepiece BPE tokenizer with byte fallback and Llama-2's special tokens, trained on
    text lines.
    """
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        # False would need a vocabulary that holds USER without a space; else the official count is
        # off.
        "legacy": True,
        "model_max_length": 512,
    }
    write_json(folder / "tokenizer_config.json", config)


def train_language_model(
    lines: list[str], tokenizer: Tokenizer, folder: Path, seed: int, steps: int, show: bool
) -> None:
    """Train a three-layer Llama on text lines and save it: a frozen random one would make stage 1
    meaningless.
    """
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.unk_id,
    )
    model = LlamaForCausalLM(config)
    _redraw(model, named_generator(seed, "tiny language model"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    progress = Progress("tiny language model", steps, enabled=show)
    for step, batch in enumerate(itertools.islice(_text_batches(lines, tokenizer, seed), steps)):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        logits = model(input_ids=batch, use_cache=False).logits
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), ignore_index=tokenizer.unk_id or 0
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.update(step + 1, partial(_shown_loss, loss))
    model.save_pretrained(folder)


def _shown_loss(loss: Tensor) -> list[str]:
    return [f"loss {loss.item():.4g}"]


def _text_batches(lines: list[str], tokenizer: Tokenizer, seed: int) -> Iterator[Tensor]:
    order = random.Random(seed)
    pad, end = tokenizer.unk_id or 0, tokenizer.eos_id or 0
    rows = [[*tokenizer.encode(line).ids, end] for line in lines]
    while True:
        chosen = [order.choice(rows) for _ in range(BATCH_SIZE)]
        longest = max(len(row) for row in chosen)
        yield torch.tensor([row + [pad] * (longest - len(row)) for row in chosen])


def make_tower(folder: Path, seed: int) -> None:
    """A CLIP vision model of six layers with drawn weights: frozen random features keep colour and
    shape.
    """
    config = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    model = CLIPVisionModel(config)
    _redraw(model, named_generator(seed, "tiny vision tower"), gain=0.5)
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": IMAGE_SIZE},
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    write_json(folder / "preprocessor_config.json", preprocessor)


@torch.no_grad()
def _redraw(model: torch.nn.Module, generator: torch.Generator, gain: float = 1.0) -> None:
    """Draw matrices and embeddings from one generator: normal, 0.02 for token embeddings, else gain
    / sqrt(fan_in).
    """
    for name, parameter in sorted(model.named_parameters()):
        drawn = parameter.dim() >= 2 or name.endswith(
            "class_embedding"
        )  # biases and norms keep their constants
        if not drawn:
            continue
        fan_in = parameter.numel() if parameter.dim() < 2 else parameter[0].numel()
        scale = 0.02 if "embed_tokens" in name else gain * fan_in**-0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
