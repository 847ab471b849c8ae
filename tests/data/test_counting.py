"""Tokens counted ahead of training: what training counts, in any number of processes, and going on
after a kill.
"""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from densekit.cli.app import app
from densekit.data import counting
from densekit.data.annotations import Annotations
from densekit.data.counting import count_tokens
from densekit.data.image_tokens import ImageTokens
from densekit.data.index import SampleIndex
from densekit.data.sample_totals import Counting, kept_totals
from densekit.data.token_counts import Counted, TokenCounts
from densekit.errors import DataError, UsageError
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer
from densekit.train.step_dataset import SampleReader
from tests.support.ranks import run_ranks

SAMPLES, IMAGE_TOKENS, MAX_LENGTH = 12, 10, 40


@pytest.fixture
def asked(tmp_path: Path) -> Counting:
    """Twelve samples, every third without an image and one too long, and a token a word."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    words = ("<unk>", "a", "b", "cat", "USER:", "ASSISTANT:", "What?", "</s>")
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    entries: list[dict[str, Any]] = []
    for number in range(SAMPLES):
        image = {"image": f"{number}.png"} if number % 3 else {}
        tag = "<image>\n" if image else ""
        long = 60 if number == 7 else number % 4 + 1
        turns = [
            {"from": "human", "value": f"{tag}What? " + "a " * number},
            {"from": "gpt", "value": "cat " * long},
        ]
        entries.append({"id": str(number), **image, "conversations": turns})
    (tmp_path / "train.json").write_text(json.dumps(entries))
    return Counting(
        annotations=tmp_path / "train.json",
        tokenizer=folder,
        template="v1",
        semantics="faithful",
        max_length=MAX_LENGTH,
        image_tokens=IMAGE_TOKENS,
    )


def trained_on(asked: Counting, cache: Path) -> list[Counted]:
    """What training counts of each sample."""
    annotations = Annotations.load(asked.annotations, cache=cache)
    reader: Any = SampleReader(
        samples=annotations,
        index=SampleIndex.of(annotations),
        encoder=SampleEncoder(
            tokenizer=load_tokenizer(asked.tokenizer),
            template=asked.template,
            semantics=asked.semantics,
            max_length=asked.max_length,
        ),
        image_folder=asked.sized.folder if asked.sized else Path("none"),
        processor=None,  # type: ignore[arg-type]
        layout=asked.sized.layout
        if asked.sized
        else ImageLayout(patches=asked.image_tokens, connector=Connector(kind="none")),
    )
    return [Counted.of(*reader.sequence(number)) for number in range(len(annotations))]


def file_of(cache: Path) -> bytes:
    (path,) = (cache / "tokens").iterdir()
    return path.read_bytes()


def test_counts_are_those_of_training(asked: Counting, tmp_path: Path) -> None:
    found = count_tokens(asked, tmp_path / "cache", workers=0)
    wanted, totals = trained_on(asked, tmp_path / "other"), found.totals
    counts = TokenCounts(found.file, np.load(found.file))
    assert [counts.get(place) for place in range(SAMPLES)] == wanted
    assert (totals.samples, totals.images, found.before) == (SAMPLES, 8, 0)
    assert totals.tokens == sum(each.tokens for each in wanted)
    assert totals.squares == sum(each.tokens**2 for each in wanted)
    assert totals.longest == max(each.tokens for each in wanted)
    assert totals.label_positions == sum(each.labels for each in wanted) > SAMPLES
    assert counts.missing() == []


def test_tokens_by_the_size_of_every_image(asked: Counting, tmp_path: Path) -> None:
    anyres = AnyRes(pinpoints=((4, 8), (8, 4), (8, 8)), merge="spatial_unpad")
    layout = ImageLayout(patches=4, connector=Connector(kind="none"), anyres=anyres, tile=4)
    for number in range(SAMPLES):
        if number % 3:
            size = (5 + 7 * number, 20)
            Image.new("RGB", size).save(tmp_path / f"{number}.png")
    sized = ImageTokens(layout=layout, folder=tmp_path)
    tiles = replace(asked, sized=sized, image_tokens=layout.max_tokens, max_length=60)
    found = count_tokens(tiles, tmp_path / "cache", workers=0)
    counts, wanted = TokenCounts(found.file, np.load(found.file)), trained_on(tiles, tmp_path / "x")
    assert [counts.get(place) for place in range(SAMPLES)] == wanted
    plain = trained_on(replace(asked, max_length=60), tmp_path / "x")
    more = {a.tokens - b.tokens for a, b in zip(wanted, plain, strict=True)}
    assert len(more - {0}) > 2, "images of several sizes"
    assert kept_totals(tiles, tmp_path / "cache") == found.totals
    other = replace(sized, folder=tmp_path / "other")
    assert kept_totals(replace(tiles, sized=other), tmp_path / "cache") is None
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"sample 1 .*1\.png"):
        count_tokens(tiles, tmp_path / "again", workers=0)


def killed(asked: Counting, cache: Path, after: int) -> None:
    """Count, and be killed before the sample behind `after` others."""
    count, done = counting.sample_counter(asked, cache), []

    def counted(place: int) -> Counted | str:
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(place)
        return count(place)

    counting.sample_counter = lambda *_: counted
    count_tokens(asked, cache, workers=0)


@pytest.mark.ranks
def test_a_count_that_was_killed_goes_on(asked: Counting, tmp_path: Path) -> None:
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    count_tokens(asked, whole, workers=0)
    for _ in range(2):
        (outcome,) = run_ranks(1, killed, asked, cache, 3, may_fail=True)
        assert outcome.exit_code == -signal.SIGKILL
    assert file_of(cache) != file_of(whole)
    found = count_tokens(asked, cache, workers=0)
    assert found.before == 6 and file_of(cache) == file_of(whole)
    assert count_tokens(asked, cache, workers=0).before == SAMPLES


@pytest.mark.ranks
def test_two_processes_count_the_same(asked: Counting, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    found = [count_tokens(asked, alone, workers=0), count_tokens(asked, shared, workers=2)]
    assert file_of(alone) == file_of(shared) and found[0].totals == found[1].totals


def test_totals_are_found_while_the_files_are_those_that_were_counted(
    asked: Counting, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert kept_totals(asked, cache) is None
    totals = count_tokens(asked, cache, workers=0).totals
    assert kept_totals(asked, cache) == totals
    assert kept_totals(replace(asked, max_length=9), cache) is None
    (file,) = (cache / "totals").iterdir()
    whole = file.read_text(encoding="utf-8")
    for damaged in ("{", "[]", whole.replace('"samples": 12', '"samples": "all"')):
        file.write_text(damaged, encoding="utf-8")
        assert kept_totals(asked, cache) is None
    file.write_text(whole, encoding="utf-8")
    for changed in (asked.tokenizer / "tokenizer.json", asked.annotations):
        assert kept_totals(asked, cache) == totals
        state = changed.stat()
        os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        assert kept_totals(asked, cache) is None
        os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))
    asked.annotations.unlink()
    assert kept_totals(asked, cache) is None


def test_progress_says_how_far_it_is(
    asked: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(counting, "EVERY_SECONDS", 0.0)
    count_tokens(asked, tmp_path / "cache", workers=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == SAMPLES
    assert lines[-1] == f"{asked.annotations}: tokens: 12 of 12, 0:00 left"


def test_samples_that_cannot_be_counted_are_named_when_all_others_are(
    asked: Counting, tmp_path: Path
) -> None:
    wrong = replace(asked, template="plain")
    with pytest.raises(DataError, match=r"train\.json: sample 0 \(id 0\): .*; 3 more cannot be"):
        count_tokens(wrong, tmp_path, workers=0)
    (path,) = (tmp_path / "tokens").iterdir()
    assert len(TokenCounts(path, np.load(path)).missing()) == 4


def test_a_cache_that_cannot_be_written_to_is_refused(asked: Counting, tmp_path: Path) -> None:
    count_tokens(asked, tmp_path, workers=0)
    (path,) = (tmp_path / "tokens").iterdir()
    path.write_bytes(b"cut off")
    with pytest.raises(DataError, match="counts would be lost: remove the file, or give --cache"):
        count_tokens(asked, tmp_path, workers=0)


@pytest.mark.usefixtures("asked")
def test_a_data_set_without_a_recipe_is_not_counted(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "count", str(tmp_path / "train.json")])
    assert isinstance(result.exception, UsageError)
    assert "give the name of a recipe whose models are there" in str(result.exception)
