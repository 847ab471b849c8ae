"""Export to stock transformers: LlavaForConditionalGeneration with its processor, of a model of
AnyRes LlavaNextForConditionalGeneration.

Tensors are named as in llava-hf's folders (`vision_tower.vision_model.*`), which transformers 4.57
and 5 both read. The image token is a row of its own behind the vocabulary, never generated.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    AutoTokenizer,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.exchange.export import llava_next
from densekit.exchange.export.stock_projector import stock_projector
from densekit.exchange.export.tensors import (
    ROWS,
    TOWER,
    Fetch,
    LanguageModel,
    cast,
    layouts_of,
    tower_of,
)
from densekit.exchange.shards import ShardWriter
from densekit.exchange.source import Source, read_newline
from densekit.exchange.tokenizer import tokenizer_of
from densekit.files.json_files import read_object, write_json
from densekit.files.safetensors_writer import Layout
from densekit.model.config import read_config
from densekit.model.towers import num_patches, vision_config_of
from densekit.model.weights import read_weights
from densekit.spec.types import IMAGE_TOKEN, Dtype
from densekit.text.answers import end_tokens
from densekit.text.templates import get_template

TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def write_llava_hf(source: Source, folder: Path, *, dtype: Dtype | None) -> None:
    """Write the model into `folder`. Raises DataError for a connector or a merge of tiles that
    stock transformers cannot express, and for a tokenizer that cannot take the image token.
    """
    if source.anyres is not None:
        llava_next.check_merge(source.anyres)
    tower = cast(tower_of(source), dtype)
    vision = _vision_config(source, tower)
    layers, projector = stock_projector(
        source.connector,
        read_weights(source.connector_file),
        tower_layers=vision_config_of(read_config(source.tower, "vision tower")).num_hidden_layers,
    )
    language_model = LanguageModel(source, merge=source.adapter is not None, dtype=dtype)
    if source.anyres is not None:
        projector |= {"image_newline": read_newline(source)}
    types = _write_weights(source, folder, language_model, tower, cast(projector, dtype))
    write_json(folder / "config.json", _config(source, vision, layers, types))
    _write_processor(source, folder, vision)
    ends = [*end_tokens(tokenizer_of(source.tokenizer), source.template)]
    generation = {
        "bos_token_id": source.config.bos_token_id,
        "eos_token_id": ends,
        "pad_token_id": _pad(source, ends),
        "suppress_tokens": [source.vocabulary],
        "do_sample": False,
    }
    write_json(
        folder / "generation_config.json",
        {name: value for name, value in generation.items() if value is not None},
    )


def _pad(source: Source, ends: list[int]) -> int | None:
    pad = getattr(source.config, "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else ends[0] if ends else None


def _write_weights(
    source: Source,
    folder: Path,
    language_model: LanguageModel,
    tower: Mapping[str, Tensor],
    projector: Mapping[str, Tensor],
) -> str:
    """Every tensor, the language model's file by file; returns the type of its tensors."""
    files = language_model.files()
    writer = ShardWriter(folder, len(files) + 1)
    tied = "lm_head.weight" not in source.shapes
    for part in files:
        layouts = {f"language_model.{n}": _longer(n, v, source) for n, v in part.layouts.items()}
        if tied and ROWS[0] in part.layouts:
            layouts["language_model.lm_head.weight"] = layouts[f"language_model.{ROWS[0]}"]
        with language_model.opened(part) as fetch:
            writer.add(layouts, _named(fetch, source, tied))
    rest = {**{f"vision_tower.{name}": value for name, value in tower.items()}, **projector}
    writer.add(layouts_of(rest), rest.__getitem__)
    writer.finish()
    return next(iter(files[0].layouts.values())).dtype


def _longer(name: str, layout: Layout, source: Source) -> Layout:
    if name not in ROWS:
        return layout
    return Layout(dtype=layout.dtype, shape=(source.vocabulary + 1, *layout.shape[1:]))


def _named(fetch: Fetch, source: Source, tied: bool) -> Fetch:
    def tensor(name: str) -> Tensor:
        own = name.removeprefix("language_model.")
        value = fetch(ROWS[0] if tied and own == "lm_head.weight" else own)
        if own not in ROWS:
            return value
        return torch.cat([value[: source.vocabulary], torch.zeros_like(value[:1])])

    return tensor


def _vision_config(source: Source, tower: Mapping[str, Tensor]) -> PreTrainedConfig:
    """The tower's configuration, as far as its tensors go: the copy inside an official checkpoint
    may lack the last layer and the head.
    """
    config = vision_config_of(read_config(source.tower, "vision tower"))
    numbers = [int(name.split(".")[3]) for name in tower if ".encoder.layers." in name]
    config.num_hidden_layers = max(numbers) + 1
    if not any(name.startswith(f"{TOWER}head.") for name in tower) and hasattr(
        config, "vision_use_head"
    ):
        config.vision_use_head = False
    return config


def _config(
    source: Source, vision: PreTrainedConfig, layers: list[int], types: str
) -> dict[str, Any]:
    common: dict[str, Any] = {
        "text_config": source.config.to_dict(),
        "vision_config": vision.to_dict(),
        "image_token_index": source.vocabulary,
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": _strategy(vision),
        "vision_feature_layer": layers[0] if len(layers) == 1 else layers,
        "image_seq_length": num_patches(vision),
        "multimodal_projector_bias": True,
        "tie_word_embeddings": False,
    }
    config: PreTrainedConfig = LlavaConfig(**common)
    architecture = "LlavaForConditionalGeneration"
    if source.anyres is not None:
        sizes = llava_next.pinpoints(source.anyres)
        config = LlavaNextConfig(image_grid_pinpoints=sizes, **common)
        architecture = llava_next.ARCHITECTURE
    value: dict[str, Any] = config.to_dict()
    value |= {"architectures": [architecture], "dtype": TYPES[types]}
    text = value["text_config"]
    text |= {"vocab_size": source.vocabulary + 1, "tie_word_embeddings": False}
    rope = text.get("rope_parameters")
    if isinstance(rope, dict) and rope.get("rope_type") == "default":
        text["rope_theta"] = rope["rope_theta"]  # where transformers 4 looks for it
    for part in (value, text, value["vision_config"]):
        part.pop("_name_or_path", None)
    return value


def _strategy(vision: PreTrainedConfig) -> Literal["default", "full"]:
    """CLIP's states begin with CLS, which `default` drops; SigLIP's do not."""
    return "default" if vision.model_type == "clip_vision_model" else "full"


def _write_processor(source: Source, folder: Path, vision: PreTrainedConfig) -> None:
    """Tokenizer with the image token, image processor that pads as the official code does, and the
    template of conversations.
    """
    made = ImageProcessor.from_pretrained(source.tower, source.image_aspect_ratio, source.anyres)
    square = {"height": made.size, "width": made.size}
    crops = made.resize == "shortest_edge"
    stock: dict[str, Any] = {
        "do_resize": True,
        "size": {"shortest_edge": made.size} if crops else square,
        "do_center_crop": crops,
        "crop_size": square,
        "resample": 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(made.mean),
        "image_std": list(made.std),
        "do_convert_rgb": True,
    }
    images = (
        LlavaImageProcessorPil(do_pad=made.aspect_ratio == "pad", **stock)
        if source.anyres is None
        else llava_next.image_processor(source.anyres, **stock)
    )
    tokenizer = AutoTokenizer.from_pretrained(
        source.tokenizer, local_files_only=True, trust_remote_code=False
    )
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_id != source.vocabulary:
        raise DataError(
            f"the tokenizer in {source.tokenizer} gives {IMAGE_TOKEN} the id {image_id}, and the "
            f"first free row of the embedding is {source.vocabulary}: its files do not agree"
        )
    strategy = _strategy(vision)
    kind = LlavaProcessor if source.anyres is None else LlavaNextProcessor
    processor = kind(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default"),
        image_token=IMAGE_TOKEN,
        chat_template=chat_template(source.template),
    )
    processor.save_pretrained(folder)
    images.save_pretrained(folder)  # where transformers 4 looks for it
    _widen(folder / "tokenizer_config.json")
    if (source.tokenizer / "tokenizer.model").is_file():
        shutil.copyfile(source.tokenizer / "tokenizer.model", folder / "tokenizer.model")


def _widen(path: Path) -> None:
    """Name the special tokens as transformers 4 and 5 both read them, and leave out how they were
    loaded here.
    """
    config = read_object(path)
    for name in ("is_local", "local_files_only"):
        config.pop(name, None)
    special = config.pop("extra_special_tokens", None)
    if special:
        name = "additional_special_tokens" if isinstance(special, list) else "extra_special_tokens"
        config[name] = special
    write_json(path, config)


def chat_template(name: str) -> str:
    """A template of densekit's as transformers' jinja."""
    template = get_template(name)
    human, assistant = template.human, template.header("gpt", "faithful")
    return (
        f"{_quoted(template.system)}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'user' %}}{_quoted(human)}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        f"{_quoted(template.human_end)}{{% else %}}{_quoted(assistant)}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
        f"{_quoted(template.assistant_end)}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{_quoted(assistant.rstrip(' '))}{{% endif %}}"
    )


def _quoted(text: str) -> str:
    """A jinja expression of a text, newlines kept."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"{{{{ '{escaped}' }}}}" if text else ""
