"""A small hub and server with the jobs of a recipe, for the tests of fetching."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from densekit.data.fetch.fetch import fetch_missing, survey
from densekit.data.fetch.hub import HubClient
from densekit.data.fetch.job import Job, Tools
from densekit.data.fetch.model_job import ModelJob
from densekit.data.fetch.part_job import PartJob
from densekit.data.fetch.progress import Progress
from densekit.data.fetch.transfer import Patience, Transfer
from densekit.errors import DataError
from tests.support.http_double import serving
from tests.support.hub_double import COMMIT, HubDouble
from tests.support.published import LANGUAGE, small_world

QUICK = Patience(
    timeout=1,
    attempts=8,
    first_attempts=8,
    first_wait=0.001,
    longest_wait=0.01,
    slowest=20_000,
    window=0.2,
)
MODEL_FILES = {
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.model",
}


@dataclass
class World:
    """A server, the jobs of a recipe, and where they are put."""

    server: HubDouble
    tools: Tools
    root: Path
    jobs: Sequence[Job]
    said: list[str]
    syncs: list[bool]
    """One for each time the disks were synced: whether a complete record was there by then."""

    def fetch(self, jobs: Sequence[Job] | None = None, **tools: object) -> list[str]:
        """A whole fetch; its survey's lines."""
        used = dataclasses.replace(self.tools, **tools)  # type: ignore[arg-type]
        found = survey(jobs or self.jobs, used)
        lines = [*found.lines(), *found.room()]
        if problems := fetch_missing(found, used, self.said.append) + found.by_hand:
            raise DataError("\n".join(problems))
        return lines

    def named(self, part: str) -> list[Job]:
        """The jobs whose label ends so."""
        return [job for job in self.jobs if job.label.endswith(part)]


def fetch_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world in `tmp_path`; no cache or token of this host is in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    syncs: list[bool] = []

    def sync() -> None:
        records = (tmp_path / "out").rglob("*.json")
        syncs.append(any('"complete"' in path.read_text() for path in records))

    monkeypatch.setattr(os, "sync", sync)
    with serving(HubDouble()) as server:
        assert isinstance(server, HubDouble)
        data_set = small_world(server, tmp_path)
        transfer = Transfer(QUICK)
        root = tmp_path / "out"
        parts = [
            PartJob(data_set=data_set, file=file, commit=None, root=root / "data")
            for file in data_set.distribution
        ]
        model = ModelJob(repository=LANGUAGE, commit=COMMIT, root=root / "models")
        hub = HubClient(server.url, QUICK)
        tools = Tools(transfer=transfer, hub=hub, progress=Progress(), brought=None)
        yield World(server, tools, root, [model, *parts], [], syncs)
        transfer.close()
