"""docs/how-to/serve.md, followed: its commands answer in stock transformers without densekit, the
ids it calls exact are densekit's own, and those of the stock processor differ as it says.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from densekit.data.pixels import ImageProcessor
from densekit.exchange.export import exporting
from densekit.exchange.export.exporting import export_model
from densekit.exchange.loading import load_model
from densekit.exchange.official.importing import import_folder
from densekit.exchange.tokenizer import tokenizer_of
from densekit.model.preprocess import normalise
from densekit.spec.exchange import ExportRequest
from densekit.spec.imported import ImportRequest
from densekit.spec.types import IMAGE_TOKEN_ID
from densekit.text.answers import end_tokens
from densekit.text.encode import SampleEncoder
from tests.support.needs import needs
from tests.support.paths import ROOT

pytestmark = pytest.mark.ranks
PAGE = ROOT / "docs" / "how-to" / "serve.md"
BLOCK = re.compile(r"^```python (stock|exact)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OLDER = ROOT / ".venv" / "transformers_4"
QUESTION = "What is shown in the picture?"
REPORT = """
import json, sys, transformers
assert not any(name.partition(".")[0] == "densekit" for name in sys.modules)
print(json.dumps({
    "transformers": transformers.__version__,
    "prompt": prompt,
    "stock": inputs["input_ids"][0].tolist(),
    "exact": ids,
    "answer": output[0, len(ids):].tolist(),
    "image": model.config.image_token_id,
}))
"""


@pytest.fixture
def exported(golden_exchange: Path, tmp_path: Path) -> Path:
    """A folder with the page's export of an import, and its picture."""
    search = (golden_exchange / "base",)
    given = golden_exchange / "given" / "clip_dci" / "stage2"
    import_folder(ImportRequest(folder=given, to=tmp_path / "imported", search=search))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_check", lambda *_: [])
        export_model(
            ExportRequest(
                source=tmp_path / "imported", to=tmp_path / "exported" / "tiny", format="llava-hf"
            )
        )
    across = Image.linear_gradient("L").resize((320, 200))
    picture = Image.merge("RGB", (across, across.rotate(90), across.rotate(180)))
    picture.save(tmp_path / "picture.png")
    return tmp_path


def follow(folder: Path, packages: Path | None = None) -> dict[str, Any]:
    """What the page's commands find, with these packages before the trainer's."""
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    script = "\n".join([blocks["stock"], blocks["exact"], REPORT])
    environment = {**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_an_older_transformers_answers_alike(exported: Path) -> None:
    if not (OLDER / "transformers" / "__init__.py").is_file():
        needs("transformers-4", f"it is not in {OLDER}")
    older, newer = follow(exported, OLDER), follow(exported)
    assert older.pop("transformers").startswith("4.57.") and newer.pop("transformers") > "5"
    assert older == newer


def test_the_page_is_followed(exported: Path) -> None:
    found = follow(exported)

    # densekit's own ids, pixels and answer.
    picture = Image.open(exported / "picture.png")
    model, source = load_model(exported / "imported")
    tokenizer = tokenizer_of(source.tokenizer)
    encoder = SampleEncoder(
        tokenizer=tokenizer, template=source.template, semantics="faithful", max_length=2048
    )
    ours = encoder.encode_prompt(
        [{"from": "human", "value": f"<image>\n{QUESTION}"}], has_image=True
    )
    collapsed = _collapsed(found["exact"], found["image"])
    assert collapsed == ours.tolist()
    processor = ImageProcessor.from_pretrained(source.tower, source.image_aspect_ratio)
    table = torch.from_numpy(processor.lookup_table())
    pixels = normalise(torch.from_numpy(processor(picture))[None], table)
    with torch.no_grad():
        answer = model.generate(
            [torch.from_numpy(ours)],
            pixels,
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=list(end_tokens(tokenizer, source.template)),
            pad_token_id=0,
        )
    assert answer[0].tolist() == found["answer"]

    # The stock processor leaves one token out, right behind the image.
    stock = _collapsed(found["stock"], found["image"])
    behind = ours.tolist().index(IMAGE_TOKEN_ID) + 1
    assert stock == [*ours[:behind].tolist(), *ours[behind + 1 :].tolist()]
    assert tokenizer.token_id("▁") == ours[behind]


def _collapsed(ids: list[int], image: int) -> list[int]:
    """With the image as one id, as densekit writes it."""
    collapsed: list[int] = []
    for each in ids:
        if each != image:
            collapsed.append(each)
        elif not collapsed or collapsed[-1] != IMAGE_TOKEN_ID:
            collapsed.append(IMAGE_TOKEN_ID)
    return collapsed
