"""Make tokens.json for a set of recordings without its licensed tokenizer: `make_tokens.py FULL_SET
[OUT]`.

The ids and labels are densekit's own, from the full set's Llama-2 tokenizer; `densekit parity
FULL_SET` proves them equal to the recorded ones first.
"""

import json
import sys
from pathlib import Path

from densekit.data.annotations import Annotations
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer

LONG_ENOUGH = 2048


def main(full_set: Path, out: Path) -> None:
    """Encode every sample of data/ with the template of its stage."""
    tokenizer = load_tokenizer(full_set / "models" / "llm_tiny")
    tokens: dict[str, object] = {}
    for stage, template in ((1, "plain"), (2, "v1")):
        encoder = SampleEncoder(
            tokenizer=tokenizer, template=template, semantics="faithful", max_length=LONG_ENOUGH
        )
        tokens["pad_id"] = encoder.pad_id
        entries = []
        for part in ("batch", "train"):
            for sample in Annotations.load(full_set / "data" / f"stage{stage}_{part}.json"):
                has_image = sample.image is not None
                encoded = encoder.encode(sample.conversations, has_image=has_image)
                entries.append(
                    {
                        "conversations": sample.conversations,
                        "has_image": has_image,
                        "input_ids": encoded.input_ids.tolist(),
                        "labels": encoded.labels.tolist(),
                    }
                )
        tokens[template] = entries
    out.write_text(json.dumps(tokens, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("tokens.json"),
    )
