"""densekit's own export opens through transformers' Auto classes in a fresh process, in whatever
order the two packages are imported, and `import densekit` itself stays light.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densekit.exchange.export import exporting
from densekit.exchange.export.exporting import export_model
from densekit.exchange.loading import load_model
from densekit.exchange.official.importing import import_folder
from densekit.spec.exchange import ExportRequest
from densekit.spec.imported import ImportRequest

pytestmark = pytest.mark.ranks
OPEN = """
import json, sys
{imports}
folder = sys.argv[1]
model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
assert type(AutoConfig.from_pretrained(folder)) is type(model.config), model.config
assert AutoTokenizer.from_pretrained(folder).vocab_size
torch.manual_seed(0)
pixels = torch.randn(1, 3, {size}, {size})
ids = torch.tensor([1, -200, 13, 20])
answer = model.generate([ids], pixels, max_new_tokens=8, do_sample=False, pad_token_id=0)
print(json.dumps([type(model).__module__, answer[0].tolist()]))
"""
IMPORTS = """
import densekit
heavy = [name for name in ("torch", "transformers", "numpy", "pydantic") if name in sys.modules]
assert not heavy, heavy
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
assert not any(name.startswith("densekit.model") for name in sys.modules)
"""
LATER = """
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
AutoConfig.for_model("llama")
import densekit
"""


@pytest.fixture(scope="module")
def exported(golden_exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of densekit's own format, and beside it the import that it is from."""
    place = tmp_path_factory.mktemp("auto")
    search = (golden_exchange / "base",)
    given = golden_exchange / "given" / "clip_dci" / "stage2"
    import_folder(ImportRequest(folder=given, to=place / "imported", search=search))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_check", lambda *_: [])
        request = ExportRequest(
            source=place / "imported", to=place / "own", format="densekit", dtype="fp32"
        )
        export_model(request)
    return place / "own"


@pytest.mark.parametrize(
    "imports", [IMPORTS, pytest.param(LATER, marks=pytest.mark.slow)], ids=["first", "later"]
)
def test_auto_model_opens_our_own_format(exported: Path, imports: str) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert "auto_map" not in config  # no code comes with the folder
    size = config["vision_config"]["image_size"]
    script = OPEN.format(imports=imports, size=size)
    done = subprocess.run(
        [sys.executable, "-c", script, str(exported)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    module, answer = json.loads(done.stdout.splitlines()[-1])
    assert module == "densekit.model.vlm"
    model, _ = load_model(exported.parent / "imported")
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, size, size)
    with torch.no_grad():
        ours = model.generate(
            [torch.tensor([1, -200, 13, 20])],
            pixels,
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
        )
    assert ours[0].tolist() == answer
