"""Named roots, so that a run does not depend on a machine's paths."""

from pathlib import Path

import pytest

from densekit.spec.roots import Roots

ROOTS = Roots(data=Path("d"), models=Path("/m"), cache=Path("c"))


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("data:a/b", "d/a/b"),
        ("data:.", "d"),
        ("models:x", "/m/x"),
        ("cache:tiny/data", "c/tiny/data"),
        ("/data:x", "/data:x"),
        ("other:x", "other:x"),
        ("plain/path", "plain/path"),
        ("data", "data"),
    ],
)
def test_references_resolve_to_paths(reference: str, path: str) -> None:
    assert ROOTS.resolve(reference) == Path(path)


def test_roots_are_written_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = ROOTS.as_json()
    assert values == {"data": str(tmp_path / "d"), "models": "/m", "cache": str(tmp_path / "c")}
    assert Roots.model_validate(values).resolve("data:a") == tmp_path / "d" / "a"
