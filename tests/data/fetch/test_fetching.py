"""Models and parts of data sets, from a hub and a server: fetched whole, once, and from wherever
they already are.
"""

import dataclasses
import errno
import os
import random
import socket
from collections import deque
from pathlib import Path

import pytest

from densekit.data.fetch import fetch as fetch_module
from densekit.data.fetch.fetch import fetch_missing, survey
from densekit.data.fetch.hub import HubClient
from densekit.data.fetch.job import Job
from densekit.data.fetch.model_job import ModelJob
from densekit.data.fetch.part_job import PartJob
from densekit.data.fetch.records import Records
from densekit.errors import DataError, UsageError
from tests.support.fetch_world import MODEL_FILES, QUICK, World
from tests.support.http_double import FAULTS
from tests.support.hub_double import COMMIT
from tests.support.published import LANGUAGE, tree


def test_everything_comes_once_and_only_what_is_needed(world: World) -> None:
    lines = world.fetch()
    assert any(line.startswith("missing   captions: images.zip  37.") for line in lines)
    found = tree(world.root)
    model = {name.rpartition("/")[2] for name in found if name.startswith("models/")}
    assert model == {*MODEL_FILES, ".revision"}
    published = world.server.repositories["model", LANGUAGE]
    for name in MODEL_FILES:
        assert found[f"models/{LANGUAGE}/{name}"] == published[name]
    data = [name for name in found if name.startswith("data/")]
    assert len(data) == 2 + 12 + 9 + 1 and "data/captions/.revision" in data
    assert "data/captions/images/00003/3.jpg" in data and "data/captions/vg/VG_100K/1.jpg" in data
    assert "data/captions/coco/train2017/4.jpg" in data
    assert not list((world.root / "data").rglob("*.zip")), "archives are removed"
    asked = len(world.server.requests)
    assert [look.state for _, look in survey(world.jobs, world.tools).looks] == ["complete"] * 5
    world.fetch()
    assert len(world.server.requests) == asked, "what is complete asks nobody"
    record = Records(world.root / "models").read(LANGUAGE)
    assert record is not None and record.commit == COMMIT


def test_what_was_removed_comes_again_and_nothing_else(world: World) -> None:
    world.fetch()
    expected = tree(world.root)
    (world.root / "models" / LANGUAGE / "tokenizer.model").unlink()
    for image in (world.root / "data/captions/coco/train2017").iterdir():
        image.unlink()
    world.server.requests.clear()
    world.fetch()
    assert tree(world.root) == expected
    got = [path for method, path, _ in world.server.requests if method == "GET"]
    assert [path.rpartition("/")[2] for path in got if "/api/" not in path] == [
        "tokenizer.model",
        "train2017.zip",
    ]


def test_faults_of_the_hub_and_the_server_end_in_the_same_bytes(world: World) -> None:
    world.fetch()
    expected = tree(world.root)
    draw = random.Random(3)
    for number in range(3):
        again = World(world.server, world.tools, world.root.with_name(f"out{number}"), [], [], [])
        again.jobs = [_moved(job, again.root) for job in world.jobs]
        hub = HubClient(world.server.url, QUICK)
        world.server.faults = deque(draw.choices([one for one in FAULTS if one != "drip"], k=6))
        again.fetch(hub=hub)
        assert tree(again.root) == expected


def _moved(job: Job, root: Path) -> Job:
    if isinstance(job, ModelJob):
        return dataclasses.replace(job, root=root / "models")
    assert isinstance(job, PartJob)
    return dataclasses.replace(job, root=root / "data")


def test_the_hubs_cache_comes_before_the_network_and_leaves_real_files(
    world: World, tmp_path: Path
) -> None:
    name, body = "tokenizer.model", world.server.repositories["model", LANGUAGE]["tokenizer.model"]
    cache = tmp_path / "hub" / f"models--{LANGUAGE.replace('/', '--')}"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / COMMIT).mkdir(parents=True)
    (cache / "blobs" / "b").write_bytes(body)
    (cache / "snapshots" / COMMIT / name).symlink_to("../../blobs/b")
    world.fetch(world.named(LANGUAGE))
    placed = world.root / "models" / LANGUAGE / name
    assert not placed.is_symlink() and placed.read_bytes() == body
    assert placed.stat().st_ino == (cache / "blobs" / "b").stat().st_ino, "a hard link: no copy"
    assert not any(path.endswith(name) for _, path, _ in world.server.requests)


def test_a_damaged_file_of_the_cache_is_not_taken(world: World, tmp_path: Path) -> None:
    body = world.server.repositories["model", LANGUAGE]["tokenizer.model"]
    snapshot = tmp_path / "hub" / f"models--{LANGUAGE.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.model").write_bytes(bytes(len(body)))
    world.fetch(world.named(LANGUAGE))
    assert (world.root / "models" / LANGUAGE / "tokenizer.model").read_bytes() == body


def test_files_of_another_commit_are_replaced_and_its_others_removed(world: World) -> None:
    world.fetch(world.named(LANGUAGE))
    files = world.server.repositories["model", LANGUAGE]
    single = files.pop("model-00001-of-00002.safetensors")
    for name in ("model-00002-of-00002.safetensors", "model.safetensors.index.json"):
        files.pop(name)
    files["model.safetensors"], files["config.json"] = single, b'{"model_type": "phi"}'
    world.server.commit = "b" * 40
    newer = ModelJob(repository=LANGUAGE, commit="b" * 40, root=world.root / "models")
    world.fetch([newer])
    folder = world.root / "models" / LANGUAGE
    assert {path.name for path in folder.iterdir()} == {
        *(".revision", "config.json", "model.safetensors", "tokenizer.model")
    }
    assert (folder / "config.json").read_bytes() == b'{"model_type": "phi"}'
    assert (folder / ".revision").read_text() == "b" * 40 + "\n"


def test_a_file_of_a_users_own_is_never_overwritten(world: World) -> None:
    folder = world.root / "models" / LANGUAGE
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}  my own")
    with pytest.raises(DataError, match=r"config.json is not lab/language-7b's at commit"):
        world.fetch(world.named(LANGUAGE))
    assert (folder / "config.json").read_text() == "{}  my own"


def test_a_gated_repository_is_named_with_its_page_and_the_rest_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.gated.add(LANGUAGE)
    page = f"{world.server.url}/{LANGUAGE}"
    with pytest.raises(DataError, match=rf"access refused .*open {page}, accept .*HF_TOKEN"):
        world.fetch()
    assert (world.root / "data/captions/images/00003/3.jpg").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    world.fetch()
    assert (world.root / "models" / LANGUAGE / "config.json").exists()
    records = [path.read_text() for path in world.root.glob("*/.fetched/**/*.json")]
    assert records and "hf_secret" not in "".join(records)


@pytest.mark.parametrize(
    ("repository", "commit", "words"),
    [
        (
            "lab/nothing",
            None,
            r"lab/nothing \(or there is no such repository\): HTTP 401: access refused",
        ),
        (LANGUAGE, "c" * 40, "has no revision c+: `densekit pin lab/language-7b`"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    world: World, repository: str, commit: str | None, words: str
) -> None:
    job = ModelJob(repository=repository, commit=commit, root=world.root / "models")
    with pytest.raises(DataError, match=words):
        world.fetch([job])


def test_a_hub_that_does_not_answer_is_waited_for_once(world: World) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    client = HubClient(url, dataclasses.replace(QUICK, first_attempts=3))
    with pytest.raises(DataError, match="3 times in a row; check the network"):
        client.listing(LANGUAGE, "model", None)
    with pytest.raises(DataError, match=r"refused; check the network \(HF_ENDPOINT"):
        client.listing("lab/captions", "dataset", None)


@pytest.mark.parametrize("endpoint", ["mirror.example", "ftp://mirror", "http://[bad", "http://"])
def test_an_endpoint_that_is_no_address_is_named(endpoint: str) -> None:
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is .*, which is no address"):
        HubClient(endpoint)


def test_a_token_that_cannot_be_one_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s\u00e9cret")
    with pytest.raises(UsageError, match=r"HF_TOKEN .* copy it again") as caught:
        HubClient("http://mirror")
    assert "cret" not in str(caught.value)


def test_a_refusal_is_said_once_with_what_it_is_about(world: World) -> None:
    world.server.files.pop("/vg/images.zip")
    nothing = ModelJob(repository="lab/nothing", commit=None, root=world.root / "models")
    jobs = [nothing, *world.named("vg")]
    found = survey(jobs, world.tools)
    assert found.lines()[0] == "refused   lab/nothing"
    first, second = fetch_missing(found, world.tools, world.said.append)
    assert first.startswith("lab/nothing (or there is no such repository): HTTP 401")
    assert second.startswith(f"captions: vg: {world.server.url}/vg/images.zip: HTTP 404")


def test_what_a_record_names_is_on_the_disk_before_it(world: World) -> None:
    world.fetch(world.named("vg"))
    assert world.syncs == [False]


def test_a_newly_pinned_commit_is_said_to_come_in_place_of_another(world: World) -> None:
    world.fetch(world.named("images.zip"))
    world.server.commit = "b" * 40
    (part,) = world.named("images.zip")
    assert isinstance(part, PartJob)
    lines = world.fetch([dataclasses.replace(part, commit="b" * 40)])
    assert lines[0].endswith(f"kB (commit {COMMIT} is there)")


def test_what_only_a_person_can_get_is_told_after_the_rest_came(world: World) -> None:
    (part,) = world.named("vg")
    assert isinstance(part, PartJob)
    file = part.file.model_copy(update={"by_hand": "ask its author", "content_url": None})
    by_hand = dataclasses.replace(part, file=file)
    with pytest.raises(DataError, match="captions: vg is to be brought by hand: ask its author"):
        world.fetch([by_hand, *world.named("coco/train2017")])
    assert (world.root / "data/captions/coco/train2017/4.jpg").exists()
    (world.root / "data/captions/vg/VG_100K").mkdir(parents=True)
    (world.root / "data/captions/vg/VG_100K/1.jpg").write_bytes(b"brought")
    world.fetch([by_hand])


def test_a_truncated_archive_is_downloaded_once_more_then_named(world: World) -> None:
    whole = world.server.files["/zips/train2017.zip"]
    world.server.files["/zips/train2017.zip"] = whole[: len(whole) // 2]
    with pytest.raises(DataError, match=r"is no whole zip archive.*after 2 downloads.*--from DIR"):
        world.fetch(world.named("coco/train2017"))
    assert world.server.bodies("/zips/train2017.zip") == 2
    world.server.files["/zips/train2017.zip"] = whole
    world.fetch(world.named("coco/train2017"))
    assert len(tree(world.root / "data")) == 9


def test_too_little_room_is_said_before_the_first_byte(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "free_bytes", lambda _: 50_000)
    with pytest.raises(DataError, match=r"needed in .*50.0 kB free: make room, .*--to DIR"):
        world.fetch()
    assert not world.root.exists()
    world.fetch(world.named("vg"))


def test_a_full_disk_is_named_and_what_came_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("densekit.data.fetch.archives._write", full)
        with pytest.raises(DataError, match=r"the disk is full .* the same command goes on"):
            world.fetch(world.named("coco/train2017"))
    world.fetch(world.named("coco/train2017"))
    assert world.server.bodies("/zips/train2017.zip") == 1, "the archive was kept"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_files_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"cannot be written: .*--to DIR"):
        world.fetch()


def test_a_folder_that_is_a_file_is_named(world: World) -> None:
    world.root.write_text("in the way")
    with pytest.raises(DataError, match=r"out.*: Not a directory"):
        world.fetch()


def test_two_fetches_of_one_root_do_not_meet(world: World) -> None:
    at_work = pytest.raises(DataError, match="another `densekit fetch` is at work")
    with Records(world.root / "data").locked(), at_work:
        world.fetch(world.named("vg"))


def test_without_network_the_cache_is_all_there_is(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, and the hub's cache"):
        world.fetch(world.named(LANGUAGE))
    cache = tmp_path / "hub" / f"models--{LANGUAGE.replace('/', '--')}"
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    for name in MODEL_FILES:
        (snapshot / name).write_bytes(world.server.repositories["model", LANGUAGE][name])
    world.fetch(world.named(LANGUAGE))
    assert not world.server.requests
    assert (world.root / "models" / LANGUAGE / ".revision").read_text().strip() == COMMIT
