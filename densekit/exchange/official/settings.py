"""What the config.json of an official checkpoint says, and what of it densekit does not compute.

A checkpoint is known by its `mm_*` keys: its folder's name says nothing, and its model type is
`llava_llama`, `llava` (LLaVA 1.5, a name that transformers now uses for something else) or, of
folders by third parties, anything.
"""

from ast import literal_eval
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.part import Part, PositiveInt
from densekit.spec.types import AspectRatio

CONFIG = "config.json"
SHALLOW_LAYERS = (7, 15)
"""hidden_states indices that the official code reads for sti and sci (docs/upstream.md, Q10): the
paper's layers 8 and 16.
"""
MAX_SHOWN = 200
"""Characters of a value or a reason in a message."""
MAX_LENGTH = 2048
"""Where config.json states no tokenizer_model_max_length."""
KNOWN = (
    *("mm_vision_tower", "mm_dense_connector_type", "mm_hidden_size", "mm_projector_type"),
    *("mm_projector_lr", "mm_vision_tower_lr", "mm_tunable_parts", "mm_vision_select_layer"),
    *("mm_vision_select_feature", "mm_patch_merge_type", "mm_use_im_start_end"),
    *("mm_use_im_patch_token",),
)
"""Keys of the official code and of LLaVA's that are read, or say nothing about the model."""
OF_THE_WHOLE = (
    *("tune_mm_mlp_adapter", "freeze_mm_mlp_adapter", "use_mm_proj", "is_video"),
    *("image_aspect_ratio", "image_grid_pinpoints", "image_crop_resolution"),
    *("image_split_resolution", "tokenizer_padding_side", "tokenizer_model_max_length"),
    *("unfreeze_mm_vision_tower", "vision_config", "text_config", "auto_map", "torch_dtype"),
    *("_name_or_path", "architectures", "transformers_version", "model_type"),
)
"""Keys that are not the language model's, beside those that begin with `mm_`."""


class OfficialSettings(Part):
    """What an official checkpoint says of itself."""

    place: str
    """Its config.json, for messages."""
    tower: str
    """mm_vision_tower: a path, or a name on the hub, as it was typed."""
    base: str | None
    """_name_or_path: the language model that training started from."""
    kind: str
    """Of the connector: mm_dense_connector_type, `none` where there is no such key (LLaVA)."""
    mm_hidden_size: PositiveInt | None
    image_aspect_ratio: AspectRatio
    anyres: AnyRes | None
    """image_grid_pinpoints and mm_patch_merge_type, where images have several tiles."""
    max_length: PositiveInt
    tower_trained: bool
    """unfreeze_mm_vision_tower: the tower in the checkpoint is another than the one it names."""
    language_model: dict[str, Any]
    """config.json of the language model alone."""
    notes: tuple[str, ...]
    """What it states and nothing here reads."""

    @property
    def names_siglip(self) -> bool:
        """Which class the official code takes for the tower: it goes by the path."""
        return "siglip" in self.tower.lower()


def read_settings(folder: Path) -> OfficialSettings:
    """The settings of a checkpoint. Raises DataError for a config.json that is no official
    checkpoint's, and for what densekit does not compute, by its name.
    """
    path = folder / CONFIG
    raw = read_object(path, remedy="copy it from where the checkpoint is from")
    _check_known(raw, path)
    kind = raw.get("mm_dense_connector_type")
    aspect = raw.get("image_aspect_ratio")
    base = raw.get("_name_or_path")
    return OfficialSettings(
        place=str(path),
        tower=str(raw["mm_vision_tower"]),
        base=base if isinstance(base, str) and base else None,
        kind=kind if kind in ("sti", "sci", "dci") else "none",
        mm_hidden_size=_count(raw, "mm_hidden_size", path),
        image_aspect_ratio=aspect if aspect in ("pad", "anyres") else "square",
        anyres=_anyres(raw, path) if aspect == "anyres" else None,
        max_length=_max_length(raw, path),
        tower_trained=bool(raw.get("unfreeze_mm_vision_tower")),
        language_model=_language_model(raw, path),
        notes=tuple(
            f"{CONFIG} states {name} {str(value)[:MAX_SHOWN]}, which is not known here and not "
            "followed: compare the answers with those of the code that trained it"
            for name, value in raw.items()
            if name.startswith("mm_") and name not in KNOWN and value
        ),
    )


def official_connector(kind: str, blocks: int, is_clip: bool) -> Connector:
    """The connector of the official code as hidden_states indices: two equal groups for dci, layers
    7 and 15 for sti and sci (docs/upstream.md, Q10).

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


def _check_known(raw: dict[str, Any], path: Path) -> None:
    """Refuse what is no LLaVA-style checkpoint, or one of a kind that is not computed here."""
    if not isinstance(raw.get("mm_vision_tower"), str) or not raw["mm_vision_tower"]:
        hint = ""
        if isinstance(raw.get("vision_config"), dict):
            hint = " (it is in the format of transformers' own multimodal models)"
        raise DataError(
            f"{path} names no mm_vision_tower: it is no checkpoint of the official code or of "
            f"LLaVA's{hint}; give the folder that their training wrote"
        )
    if "mm_vision_tower_aux" in raw or "image_size_aux" in raw:
        raise DataError(
            f"{path} is of a Mini-Gemini (MGM) model, with a second tower (mm_vision_tower_aux): "
            "not supported yet; give a model with one tower"
        )
    aspect, merge = raw.get("image_aspect_ratio"), raw.get("mm_patch_merge_type", "flat")
    if aspect != "anyres" and merge not in (None, "flat"):
        raise DataError(
            f"{path}: mm_patch_merge_type {merge} merges the tiles of an image, and "
            f"image_aspect_ratio {aspect} makes none: densekit computes it with `anyres` only; "
            "this checkpoint cannot be imported"
        )
    for name in ("mm_resampler_type", "s2", "quantization_config"):
        if raw.get(name):
            raise DataError(
                f"{path}: {name} is {str(raw[name])[:MAX_SHOWN]}, which densekit does not compute: "
                "this checkpoint cannot be imported"
            )
    if raw.get("is_video"):
        raise DataError(
            f"{path} is of a video model (is_video): not supported yet; give an image model"
        )
    for key, taken, absent in (
        ("image_aspect_ratio", ("pad", "square", "anyres"), "square"),
        ("mm_projector_type", ("mlp2x_gelu",), "linear"),
        ("mm_vision_select_layer", (-2,), -2),
        ("mm_vision_select_feature", ("patch",), "patch"),
        ("mm_use_im_start_end", (False, None), None),
    ):
        value = raw.get(key, absent)
        if value not in taken and not (key == "image_aspect_ratio" and value is None):
            stated = "is" if key in raw else "is missing, which means"
            raise DataError(
                f"{path}: {key} {stated} {value}, and densekit computes "
                f"{' or '.join(str(each) for each in taken if each is not None)} only: this "
                "checkpoint cannot be imported"
            )


def _max_length(raw: dict[str, Any], path: Path) -> int:
    length = raw.get("tokenizer_model_max_length")
    if length is None:
        return MAX_LENGTH
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise DataError(
            f"{path}: tokenizer_model_max_length {str(length)[:MAX_SHOWN]} is no number of tokens: "
            f"write the one that it was trained with there (official scripts: {MAX_LENGTH})"
        )
    return length if length <= 1 << 20 else MAX_LENGTH  # a tokenizer without a limit states 1e30


def _anyres(raw: dict[str, Any], path: Path) -> AnyRes:
    """Pinpoints as a list, or as the text that the official code's arguments are; the merge that
    an absent key means. Raises DataError for what is neither.
    """
    given = raw.get("image_grid_pinpoints")
    if given is None:
        raise DataError(
            f"{path} is of an AnyRes model and has no image_grid_pinpoints: write the sizes that "
            "it was trained with there, for example [[336, 672], [672, 336], [672, 672]]"
        )
    try:
        sizes = literal_eval(given) if isinstance(given, str) else given
        return AnyRes(pinpoints=sizes, merge=raw.get("mm_patch_merge_type") or "flat")
    except ValidationError as error:
        first = error.errors()[0]
        what = "mm_patch_merge_type" if first["loc"][:1] == ("merge",) else "image_grid_pinpoints"
        reason = first["msg"].removeprefix("Value error, ")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        what, reason = "image_grid_pinpoints", " ".join(str(error).split()) or type(error).__name__
    raise DataError(
        f"{path}: {what} {str(raw[what])[:MAX_SHOWN]} cannot be used ({reason[:MAX_SHOWN]}): pairs "
        "of width and height are needed, and the merge spatial_unpad, spatial or flat"
    )


def _language_model(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """config.json of the language model: everything that is not about images. The official code
    has a class for Llama alone, so that is what a model type of LLaVA's means.
    """
    stated = str(raw.get("model_type", "llava_llama"))
    kind = stated.removeprefix("llava_") if stated.startswith("llava_") else stated
    kind = "llama" if kind == "llava" else kind
    if kind not in ("llama", "mistral", "qwen2"):
        raise DataError(
            f"{path}: model_type {stated}: a language model of type {kind} cannot be imported; "
            "those of Llama's kind can (llama, mistral, qwen2)"
        )
    architecture = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}[kind]
    kept = {
        name: value
        for name, value in raw.items()
        if not name.startswith("mm_") and name not in OF_THE_WHOLE
    }
    return {"architectures": [f"{architecture}ForCausalLM"], "model_type": kind, **kept}


def _count(raw: dict[str, Any], key: str, path: Path) -> int | None:
    value = raw.get(key)
    if value is None or _is_count(value):
        return value
    raise DataError(f"{path}: {key} is {value}, not a number of channels; put the file back")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
