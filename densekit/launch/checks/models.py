"""Whether a model's folder holds what densekit trains, by its config.json: no torch, no weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError, DensekitError
from densekit.files.json_files import read_object
from densekit.files.safetensors_header import read_header
from densekit.files.weight_files import StoredTensor, read_weight_files
from densekit.spec.architectures import TowerShape, tower_shape
from densekit.spec.config_numbers import CONFIG, is_count, most
from densekit.spec.mining import normalisation_of, read_conv_tower, tower_files
from densekit.spec.roots import Roots

NATIVE = (
    *("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral"),
    *("olmo2", "phi", "phi3", "qwen2", "qwen3", "stablelm"),
)
"""Types that transformers builds without a folder's own Python, whatever its `auto_map` says."""
COUNTS = (
    "hidden_size",
    "n_embd",
    "intermediate_size",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
DTYPES = ("float32", "float16", "bfloat16", "auto")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
"""How the input embedding's name ends."""


def language_model_problems(folder: Path, field: str, get: str) -> tuple[list[str], dict[str, Any]]:
    """Everything that is wrong with the folder of a language model, and its config.json ({} where
    that cannot be used). `get`: what to do where there is no model.
    """
    problems: list[str] = []
    config = _config(folder, field, get, problems)
    if config is None:
        return problems, {}
    where = f"{field}: {folder / CONFIG}"
    whole = _whole_model(config)
    if whole:
        return [f"{where}: {whole}"], {}
    problems += [f"{where}: {problem}" for problem in _config_problems(config)]
    tensors, found = read_weight_files(folder)
    problems += [f"{field}: {problem}" for problem in found]
    problems += [f"{field}: {folder}: {problem}" for problem in _embedding(config, tensors)]
    return problems, config


def tower_problems(
    reference: str, roots: Roots, field: str, get: str
) -> tuple[list[str], TowerShape | None]:
    """Everything that is wrong with the folder of a vision tower, and its shape where that is
    known.
    """
    folder = roots.resolve(reference)
    problems: list[str] = []
    config = _config(folder, field, get, problems)
    if config is None:
        return problems, None
    vision = config.get("vision_config")
    if any(isinstance(each, dict) and each.get("quantization_config") for each in (config, vision)):
        problems.append(f"{field}: {folder / CONFIG}: {QUANTISED}")
    problems += [f"{field}: {problem}" for problem in read_weight_files(folder)[1]]
    shape = None
    try:
        shape = tower_shape(reference, roots)
    except DensekitError as error:
        problems.append(str(error) if str(error).startswith(field) else f"{field}: {error}")
    if shape and shape.hidden % shape.heads:
        problems.append(
            f"{field}: {folder / CONFIG}: hidden_size {shape.hidden} is not a multiple of "
            f"num_attention_heads {shape.heads}; download the file again"
        )
    if shape and not 0 < shape.patch_size <= shape.image_size:
        problems.append(
            f"{field}: {folder / CONFIG}: patch_size {shape.patch_size} is larger than image_size "
            f"{shape.image_size}; download the file again"
        )
    if not (folder / "preprocessor_config.json").is_file():
        problems.append(
            f"{field}: {folder}/preprocessor_config.json is missing; copy it from the tower's "
            "repository"
        )
        return problems, shape
    try:
        size = ImageProcessor.from_pretrained(folder, "square").size
        if shape and size != shape.image_size:
            problems.append(
                f"{field}: {folder}/preprocessor_config.json makes images of {size} pixels, the "
                f"tower takes {shape.image_size} (image_size in {CONFIG}); use the file of the "
                "tower's own repository"
            )
    except DataError as error:
        problems.append(f"{field}: {error}")
    return problems, shape


GIVE = "the connector.safetensors of a run or of `densekit import`, or an mm_projector.bin"
"""What `models.connector` takes."""


def projector_problems(
    path: Path, *, width: int | None, hidden: int | None, field: str
) -> list[str]:
    """What is wrong with a file of projector weights; `width` channels come in, `hidden` go out
    (None: not known).
    """
    if not path.is_file():
        return [f"{field}: {path} does not exist; give {GIVE}"]
    try:
        tensors = read_header(path)
    except (DataError, OSError) as error:
        return [f"{field}: {error}"]
    wanted = {
        "0.weight": (hidden, width),
        "0.bias": (hidden,),
        "2.weight": (hidden, hidden),
        "2.bias": (hidden,),
    }
    problems = []
    for name, shape in wanted.items():
        if name not in tensors:
            found = ", ".join(list(tensors)[:8]) or "no tensor"
            return [f"{field}: {path} has no {name}; it holds {found}: give {GIVE}"]
        found_shape = tensors[name].shape
        if len(found_shape) != len(shape) or any(
            size not in (None, there) for size, there in zip(shape, found_shape, strict=True)
        ):
            sizes = " x ".join("?" if size is None else str(size) for size in shape)
            there = " x ".join(map(str, found_shape))
            problems.append(
                f"{field}: {path}: {name} is {there}, this recipe's models and connector need "
                f"{sizes}"
            )
    return problems


QUANTISED = (
    "the weights are quantised (quantization_config), which cannot be trained; use the model's "
    "unquantised repository"
)


def second_problems(folder: Path, field: str, get: str) -> list[str]:
    """Everything that is wrong with the folder of a high-resolution tower, by its headers."""
    if not folder.is_dir():
        return [f"{field}: {folder} is not a folder: {get}"]
    problems = tower_files(folder)[1]
    for read in (normalisation_of, *(() if problems else (read_conv_tower,))):
        try:
            read(folder)
        except DataError as error:
            problems.append(str(error))
    return [f"{field}: {problem}" for problem in problems]


def _config(folder: Path, field: str, get: str, problems: list[str]) -> dict[str, Any] | None:
    """config.json of a folder; None where it cannot be read, which is noted."""
    if not (folder / CONFIG).exists():
        problems.append(f"{field}: no model in {folder} ({CONFIG} is missing); {get}")
        return None
    try:
        return read_object(folder / CONFIG)
    except DataError as error:
        problems.append(f"{field}: {error}")
        return None


def _whole_model(config: Mapping[str, Any]) -> str | None:
    """Why this is not a language model alone; None where it is."""
    kind = config.get("model_type")
    parts = [key for key in ("text_config", "vision_config") if isinstance(config.get(key), dict)]
    parts += [key for key in config if key.startswith("mm_")][:1]
    if not parts and "llava" not in str(kind).lower():
        return None
    return (
        f"model_type {str(kind)[:60]} is a whole multimodal model, not a language model; give the "
        "language model that it was made from, or save its language model alone into a folder of "
        "its own (`model.language_model` in transformers) and its projector as models.connector"
    )


def _config_problems(config: Mapping[str, Any]) -> list[str]:
    kind = config.get("model_type")
    problems = []
    if not isinstance(kind, str) or not kind:
        problems.append(f"model_type is {str(kind)[:60]}; a type that transformers knows is needed")
    elif config.get("auto_map") and kind not in NATIVE:
        problems.append(
            f"model_type {kind[:60]} needs Python code from the folder itself (auto_map), which is "
            "never run; use a model that transformers builds by itself"
        )
    if config.get("quantization_config") is not None:
        problems.append(QUANTISED)
    if config.get("is_encoder_decoder"):
        problems.append("is an encoder-decoder; a decoder-only language model is needed")
    for key in COUNTS:
        value = config.get(key)
        if value is not None and not is_count(key, value):
            problems.append(
                f"{key} must be a positive integer, not {str(value)[:60]} (at most {most(key)})"
            )
    for key, value in config.items():
        given = key.endswith(("dropout", "pdrop")) and value is not None
        if given and not (isinstance(value, int | float) and 0 <= value < 1):
            problems.append(f"{key} must be a number from 0 up to 1, not {str(value)[:60]}")
    if not problems:
        problems += _divisions(config)
    for key in ("dtype", "torch_dtype"):
        if config.get(key) not in (None, *DTYPES):
            problems.append(
                f"{key} is {str(config[key])[:60]}; weights in one of {', '.join(DTYPES[:3])} can "
                "be trained"
            )
    return problems


def _divisions(config: Mapping[str, Any]) -> list[str]:
    hidden = config.get("hidden_size") or config.get("n_embd")
    heads = config.get("num_attention_heads") or config.get("n_head")
    kv_heads = config.get("num_key_value_heads")
    problems = []
    if hidden and heads and not config.get("head_dim") and hidden % heads:
        problems.append(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}; download the "
            "file again"
        )
    if heads and kv_heads and heads % kv_heads:
        problems.append(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}; "
            "download the file again"
        )
    return problems


def _embedding(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> list[str]:
    """What contradicts config.json in the shape of the input embedding, where it is found."""
    found = [found.entry.shape for name, found in tensors.items() if name.endswith(EMBEDDINGS)]
    vocab, hidden = config.get("vocab_size"), config.get("hidden_size") or config.get("n_embd")
    hidden = config.get("word_embed_proj_dim") or hidden  # OPT's, which a Linear widens
    if len(found) != 1 or vocab is None or hidden is None or found[0] == (vocab, hidden):
        return []
    there = " x ".join(map(str, found[0]))
    return [
        f"the embedding in the weights is {there}, {CONFIG} says {vocab} x {hidden} (vocab_size x "
        "hidden_size); the two files belong to different models: download the folder again"
    ]
