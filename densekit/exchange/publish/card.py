"""The model card of a run: metadata that the hub reads, and what a reader of the weights must know.

Everything in it is from the run's own files and the catalogues. It names repositories, never a path
of the machine that trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from densekit.errors import DataError
from densekit.exchange.publish.scores import score_lines
from densekit.exchange.publish.sections import (
    deviations_lines,
    licenses_lines,
    provenance_lines,
    summary_lines,
    training_lines,
)
from densekit.exchange.publish.subject import Subject
from densekit.spec.saved_file import SavedFile
from densekit.spec.types import Dtype, PublishFormat

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
OTHER = "other"
"""What the hub calls a licence that it has no name for."""
OWN_TERMS = "terms-of-base-and-data"
PARTS = ("language_model", "vision_tower", "high_resolution_tower")
"""Fields of `models` whose repositories the weights derive from."""
USE = {
    "llava-hf": """\
Stock transformers reads it, without densekit:

```python
from PIL import Image
from transformers import AutoProcessor, {stock}

model = {stock}.from_pretrained("{name}")
processor = AutoProcessor.from_pretrained("{name}")
content = [{{"type": "image"}}, {{"type": "text", "text": "What is shown in the picture?"}}]
prompt = processor.apply_chat_template(
    [{{"role": "user", "content": content}}], add_generation_prompt=True
)
inputs = processor(images=Image.open("picture.png"), text=prompt, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

Behind the image the processor's ids differ from those of training by one token: densekit's how-to
page "Serve the result" says why, and how to make the exact ids.
""",
    "densekit": """\
densekit's own model class reads it, where densekit is installed (no remote code):

```python
import densekit
from transformers import AutoModelForImageTextToText

model = AutoModelForImageTextToText.from_pretrained("{name}")
```
""",
}


def model_card(
    subject: Subject,
    *,
    name: str,
    format_: PublishFormat,
    dtype: Dtype | None,
    license_: str | None,
    files: Mapping[str, SavedFile],
) -> str:
    """README.md of the repository `name`. `files` are those beside it; `license_` is the hub's name
    of the licence, None for that of the language model.
    """
    tiles = subject.math.recipe.data.anyres is not None
    stock = f"Llava{'Next' if tiles else ''}ForConditionalGeneration"
    sections = (
        f"# {name.rpartition('/')[2]}",
        "\n".join(summary_lines(subject)),
        f"## Use\n\n{USE[format_].format(name=name, stock=stock)}",
        "\n".join(training_lines(subject)),
        "\n".join(deviations_lines(subject)),
        "\n".join(score_lines(subject)),
        "\n".join(provenance_lines(subject, dtype, files)),
        "\n".join(licenses_lines(subject)),
    )
    body = "\n\n".join(section.strip() for section in sections if section.strip())
    return f"---\n{_metadata(subject, name, license_)}\n---\n\n{body}\n"


def check_card(text: str, place: Path) -> None:
    """Raise DataError for a card that the hub would refuse, as far as that can be told here: its
    own client must read the metadata and the scores in it.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(text, ignore_metadata_errors=False)
        data = card.data.to_dict()
    except Exception as error:  # PyYAML's and the client's own, of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{place}: the metadata cannot be read: {reason}; correct it") from None
    for field in ("license", "library_name", "pipeline_tag"):
        if not data.get(field):
            raise DataError(f"{place}: the metadata between the `---` lacks `{field}`: put it back")
    if data["license"] == OTHER and not data.get("license_name"):
        raise DataError(f"{place}: `license: other` needs a `license_name`")
    if not card.text.strip():
        raise DataError(f"{place} holds no text below the metadata: put it back")


def _metadata(subject: Subject, name: str, license_: str | None) -> str:
    from huggingface_hub import ModelCardData

    from densekit.exchange.publish.scores import eval_results

    known = subject.license
    chosen = license_ or (known.id if known and known.id else OTHER)
    repositories = subject.repositories
    models = [repositories.get(f"models.{part}") for part in PARTS]
    data_set = subject.data_set
    results: list[EvalResult] = eval_results(subject)
    data = ModelCardData(
        license=chosen,
        license_name=OWN_TERMS if chosen == OTHER else None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        language="en",
        base_model=[model for model in models if model] or None,
        datasets=[data_set.repository] if data_set and data_set.repository else None,
        tags=["densekit", "dense-connector", "llava", subject.math.recipe.connector.kind],
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())
