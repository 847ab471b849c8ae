"""What preflight says of texts: a template that does not go with the tokenizer or the entries."""

from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.launch.preflight import preflight
from densekit.recipes.load import load_recipe
from densekit.spec.check import refuse
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import entry, make_pair


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    make_pair(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_template_whose_end_of_an_answer_is_no_token_is_told(mine: Path) -> None:
    def warnings() -> list[str]:
        checks = preflight(load_recipe(str(mine / "two.yaml")), Roots(cache=mine / "cache")).checks
        return [check.message for check in checks if check.state == "warn"]

    assert warnings() == []
    place = mine / "llm/tokenizer.json"
    place.write_text(place.read_text().replace("</s>", "<end>"))
    write_json(mine / "llm/tokenizer_config.json", {"eos_token": "<end>"})
    (line,) = warnings()
    assert "template v1 ends an answer with </s>, for which the tokenizer has no token" in line


def test_a_caption_without_an_image_is_refused(mine: Path) -> None:
    """Its tag would show another sample's image."""
    roots = Roots(cache=mine / "cache")
    caption = entry(image=None, question="What is <image> here?")
    write_json(mine / "one.json", [entry(), caption])
    with pytest.raises(DataError, match=r"one.json: entry 1: template plain needs an image"):
        refuse(preflight(load_recipe(str(mine / "one.yaml")), roots).checks)
    write_json(mine / "two.json", [entry(), caption])
    refuse(preflight(load_recipe(str(mine / "two.yaml")), roots).checks)
