"""The images, built without a network on a stand-in base, and what runs in them. Slow: about five
minutes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from densekit.errors import DataError
from densekit.files.json_files import read_json, write_json
from densekit.launch.launchers.docker.launcher import Docker
from densekit.spec.connector import Connector
from densekit.spec.conversion import ConversionRequest
from densekit.spec.execution import Execution
from densekit.spec.model_parts import ModelParts
from tests.docker.test_locks import read
from tests.support.engine import Engine
from tests.support.needs import needs, required
from tests.support.paths import ROOT
from tests.support.workplace import SMALL

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]
"""Images are built in the setup of the first test."""

PROJECT = "densekit-test-built"
OVERRIDE = """\
services:
  smoke: {image: densekit-test:cpu}
  evaluate-cpu: {image: densekit-test:cpu}
  tensorboard: {image: densekit-test:tensorboard}
"""
SMALL_RUN = ["--set", "data.samples=null", *(part for value in SMALL for part in ("--set", value))]


class Compose:
    """`docker compose` on this checkout, with images of its own names and without a network."""

    def __init__(self, engine: Engine, override: Path, **variables: str) -> None:
        self.engine, self.override, self.variables = engine, override, variables

    def __call__(
        self, *command: str, timeout: float = 300, **more: str
    ) -> subprocess.CompletedProcess[str]:
        files = ["--file", "compose.yaml", "--file", str(self.override)]
        compose = [
            "docker",
            "compose",
            "--project-name",
            PROJECT,
            *files,
            "--profile",
            "cpu",
            *command,
        ]
        return self.engine.run(*compose, timeout=timeout, **self.variables, **more)

    def in_image(self, *command: str) -> str:
        """Run a command in a container of the smoke service, without the self-test."""
        done = self("run", "--rm", "-T", "-e", "DENSEKIT_SELFTEST=0", "smoke", *command)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def compose(
    engine: Engine, standin: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compose]:
    override = tmp_path_factory.mktemp("compose") / "override.yaml"
    override.write_text(OVERRIDE, encoding="utf-8")
    built = Compose(
        engine,
        override,
        CPU_BASE=standin,
        PIP_NO_INDEX="1",
        WHEELS=str(wheels),
        BUILD_NETWORK="none",
        REVISION="abc1",
    )
    done = built("build", timeout=570)
    assert done.returncode == 0, done.stderr[-6000:]
    yield built
    built("down", "--volumes", "--rmi", "all")


@pytest.fixture(scope="module")
def image_id(engine: Engine, compose: Compose) -> str:
    return engine.ok(
        "docker", "image", "inspect", "--format", "{{.Id}}", "densekit-test:cpu"
    ).strip()


@pytest.fixture(scope="module")
def manifests(compose: Compose, image_id: str) -> dict[str, Any]:
    """Manifests of both stages after `docker compose run smoke`."""
    done = compose(
        "run", "--rm", "-T", "smoke", ARGS=" ".join(SMALL_RUN), DENSEKIT_IMAGE_ID=image_id
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready to train on the CPU" in done.stderr
    assert "held-out questions, images shuffled" in done.stdout
    program = (
        "import glob, json; "
        "print(json.dumps([json.load(open(p)) for p in glob.glob('runs/*/manifest.json')]))"
    )
    return {
        manifest["recipe"]: manifest
        for manifest in json.loads(compose.in_image("python", "-c", program))
    }


def test_smoke_trains_both_stages(manifests: dict[str, Any], image_id: str) -> None:
    assert set(manifests) == {"tiny_stage1", "tiny_stage2"}
    for manifest in manifests.values():
        environment = manifest["environment"]
        assert manifest["state"] == "complete"
        assert environment["image"] == image_id
        assert environment["git"] == {"commit": "abc1", "dirty": False}
        assert "image-cpu.txt" in environment["lock"]


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both stages were trained, and the second evaluated, without a container."""
    folder = tmp_path_factory.mktemp("host")
    command = [sys.executable, "-m", "densekit", "run", "tiny_stage2", *SMALL_RUN]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_evaluate_cpu_answers_what_the_host_answers(
    compose: Compose, manifests: dict[str, Any], on_the_host: Path
) -> None:
    done = compose("run", "--rm", "-T", "-e", "DENSEKIT_SELFTEST=0", "evaluate-cpu")
    assert done.returncode == 0, done.stderr
    assert "held-out questions, images in place" in done.stdout
    for name in ("held_out", "held_out_shuffled"):
        place = f"runs/tiny_stage2-*/evaluations/*/answers/{name}.jsonl"
        inside = compose.in_image("sh", "-c", f"cat {place}")
        (path,) = on_the_host.glob(place)
        assert _said(inside) == _said(path.read_text(encoding="utf-8"))
    owners = compose.in_image("sh", "-c", "stat -c %u runs/tiny_stage2-*/evaluations/*/answers")
    assert set(owners.split()) == {"1000"}


def test_lmms_eval_answers_the_same_in_its_image(
    compose: Compose, manifests: dict[str, Any]
) -> None:
    done = compose("run", "--rm", "-T", "-e", "DENSEKIT_SELFTEST=0", "evaluate-cpu")
    assert done.returncode == 0, done.stderr
    done = compose(
        *("run", "--rm", "-T", "-e", "DENSEKIT_SELFTEST=0", "cross-check"),
        ARGS="--benchmarks held_out",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers are the same" in done.stdout
    command = ("run", "--rm", "-T", "-e", "DENSEKIT_SELFTEST=0", "cross-check", "sh", "-c")
    done = compose(*command, "id -u; cat /opt/venv/sbom.cdx.json /opt/densekit/contents.sha256")
    assert done.stdout.startswith("1000\n") and '"name": "lmms_eval"' in done.stdout
    contents = compose.in_image("cat", "/opt/densekit/contents.sha256")
    assert not done.stdout.endswith(contents)


def test_video_image_decodes(engine: Engine, standin: str, wheels: Path, compose: Compose) -> None:
    tag = "densekit-test:video"
    build(
        engine,
        "video",
        standin,
        tag,
        *("--network", "none", "--build-arg", "PIP_NO_INDEX=1"),
        *("--build-context", f"wheels={wheels}"),
    )
    program = "import av, torch; print(av.__version__)"
    inside = ["docker", "run", "--rm", "--network", "none", "-e", "DENSEKIT_SELFTEST=0", tag]
    try:
        assert engine.ok(*inside, "python", "-c", program).count(".") == 2
        assert '"name": "av"' in engine.ok(*inside, "cat", "/opt/venv/sbom.cdx.json")
        contents = "/opt/densekit/contents.sha256"
        assert engine.ok(*inside, "cat", contents) != compose.in_image("cat", contents)
        assert engine.ok(*inside, "id", "-u").strip() == "1000"
    finally:
        engine.run("docker", "image", "rm", "--force", tag)


def _said(lines: str) -> list[tuple[str, str]]:
    """Question and answer of every line; keys and chains name the packages."""
    answers = [json.loads(line) for line in lines.splitlines()]
    return [(answer["question_id"], answer["text"]) for answer in answers]


def test_the_container_computes_what_the_host_computes(
    manifests: dict[str, Any], on_the_host: Path
) -> None:
    for name, manifest in manifests.items():
        (path,) = on_the_host.glob(f"runs/{name}-*/manifest.json")
        here = json.loads(path.read_text(encoding="utf-8"))
        assert here["run"] == manifest["run"]
        assert here["chain"] == manifest["chain"]


def test_container_runs_as_a_user_on_a_read_only_system(
    compose: Compose, manifests: dict[str, Any]
) -> None:
    shown = compose.in_image(
        "sh", "-c", "id -u; stat -c %u runs/*; touch /opt/densekit/x 2>&1 || true"
    ).splitlines()
    assert set(shown[:-1]) == {"1000"}
    assert "Read-only file system" in shown[-1]


def test_models_are_inspected_in_the_container_image(
    engine: Engine,
    image_id: str,
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    parts = ModelParts(
        language_model=golden / "models" / "llm_tiny",
        vision_tower=golden / "models" / "clip_tiny",
        connector=Connector(kind="sci", layers=[7, 15]),
        connector_weights=None,
        max_length=128,
        positions="exact",
    )
    launcher = Docker(image="densekit-test:cpu")
    assert launcher.inspection_environment(Execution()) == image_id
    assert launcher.inspect(parts, Execution()) == []
    other = Path(shutil.copytree(parts.language_model, tmp_path / "other"))
    config = read_json(other / "config.json")
    write_json(other / "config.json", {**config, "model_type": "llava_llama"})
    (problem,) = launcher.inspect(parts.model_copy(update={"language_model": other}), Execution())
    assert f"{other}/config.json" in problem and "llava_llama" in problem


def test_weights_are_converted_in_the_container_image(
    engine: Engine, image_id: str, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    tensors = load_file(golden / "models" / "llm_tiny" / "model.safetensors")
    folder, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    torch.save(tensors, blobs / "1")
    (folder / "pytorch_model.bin").symlink_to("../../blobs/1")  # as a hub cache has it
    folder.chmod(0o777)  # the container runs as another user when root starts it
    launcher = Docker(image="densekit-test:cpu")
    report = launcher.convert(ConversionRequest(folder=folder), Execution())
    assert not report.already and report.conversion.tensors == len(tensors)
    made = load_file(folder / "model.safetensors")
    assert made.keys() == tensors.keys()
    assert all(torch.equal(made[name], tensors[name]) for name in tensors)
    (blobs / "1").write_bytes(b"<html>")
    (folder / "conversion.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"pytorch_model.bin is a web page, not the file"):
        launcher.convert(ConversionRequest(folder=folder), Execution())


def test_any_user_can_use_it(engine: Engine, compose: Compose) -> None:
    program = (
        "import getpass, pathlib; pathlib.Path('runs/x').touch(); "
        "pathlib.Path.home().joinpath('y').touch()"
    )
    engine.ok(
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "4321:4321",
        "densekit-test:cpu",
        "python",
        "-c",
        program,
    )


def test_what_nobody_named_is_named_by_its_contents(compose: Compose) -> None:
    shown = compose.in_image(
        "sh", "-c", "echo $DENSEKIT_IMAGE_ID; cat /opt/densekit/contents.sha256"
    )
    name, contents = shown.split()
    assert name == f"contents-sha256:{contents}"
    assert len(contents) == 64


def test_bill_of_materials(compose: Compose) -> None:
    listed = json.loads(compose.in_image("cat", "/opt/venv/sbom.cdx.json"))
    assert listed["bomFormat"] == "CycloneDX"
    versions = {
        part["name"].lower().replace("_", "-"): part["version"] for part in listed["components"]
    }
    locked = {name: version for name, (version, _) in read(ROOT / "requirements/train.txt").items()}
    assert {name: versions.get(name) for name in locked} == locked
    assert versions["torch"] == "2.13.0+cpu"


def test_a_failing_self_test_ends_the_container(engine: Engine, compose: Compose) -> None:
    """The image of a GPU without its attention kernel; and the way round the test."""
    start = ["docker", "run", "--rm", "--network", "none", "-e", "DENSEKIT_TARGET=a100"]
    refused = engine.run(*start, "densekit-test:cpu", "echo", "started")
    assert refused.returncode == 1
    assert "flash-attn is not installed" in refused.stderr
    assert "started" not in refused.stdout
    assert "started" in engine.ok(
        *start, "-e", "DENSEKIT_SELFTEST=0", "densekit-test:cpu", "echo", "started"
    )


def test_tensorboard_shows_the_runs(
    engine: Engine, compose: Compose, manifests: dict[str, Any]
) -> None:
    started = compose("up", "--detach", "--no-deps", "tensorboard")
    assert started.returncode == 0, started.stderr
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:6006/data/plugin/scalars/tags').read().decode())"
    deadline = time.monotonic() + 60
    tags: dict[str, Any] = {}
    while time.monotonic() < deadline and len(tags) < 2:
        done = compose("exec", "-T", "tensorboard", "/opt/venv/bin/python", "-c", ask)
        tags = json.loads(done.stdout) if done.returncode == 0 else {}
        time.sleep(1)
    assert {name.rpartition("-")[0] for name in tags} == set(manifests), compose(
        "logs", "tensorboard"
    ).stdout
    assert all("loss" in found for found in tags.values())


def build(
    engine: Engine, target: str, standin: str, tag: str, *options: str, timeout: float = 300
) -> None:
    bases = [
        part
        for name in ("CPU", "A100", "V100")
        for part in ("--build-arg", f"{name}_BASE={standin}")
    ]
    command: Sequence[str] = [
        "docker",
        "build",
        "--file",
        "docker/Dockerfile",
        "--target",
        target,
        "--tag",
        tag,
    ]
    engine.ok(*command, *bases, *options, ".", timeout=timeout)


@pytest.mark.parametrize(("target", "kernel"), [("a100", "flash-attn"), ("v100", "xformers")])
def test_last_stage_of_the_gpu_images(
    engine: Engine, standin: str, wheels: Path, compose: Compose, target: str, kernel: str
) -> None:
    """Everything after the packages, with those of the cpu image in their place."""
    packages, tag = "densekit-test:packages", f"densekit-test:{target}"
    offline = ["--network", "none"]
    build(
        engine,
        "cpu-packages",
        standin,
        packages,
        *offline,
        "--build-arg",
        "PIP_NO_INDEX=1",
        "--build-context",
        f"wheels={wheels}",
    )
    build(
        engine,
        target,
        standin,
        tag,
        *offline,
        "--build-context",
        f"{target}-packages=docker-image://{packages}",
    )
    try:
        done = engine.run("docker", "run", "--rm", "--network", "none", tag, "densekit", "recipes")
        assert done.returncode == 1
        assert f"{kernel} is not installed" in done.stderr
        inside = ["docker", "run", "--rm", "--network", "none", "-e", "DENSEKIT_SELFTEST=0", tag]
        assert "tiny_stage1" in engine.ok(*inside, "densekit", "recipes")
        locks = engine.ok(*inside, "ls", "/opt/densekit/requirements").split()
        assert [name for name in locks if name.startswith("image-")] == [f"image-{target}.txt"]
    finally:
        engine.run("docker", "image", "rm", "--force", tag, packages)


def test_the_whole_v100_image(engine: Engine, standin: str) -> None:
    """From its own lock and a package index: torch with code for sm_70, xformers, both tiny stages
    on the processor.
    """
    if "downloads" not in required():
        needs("downloads", "fetches 3 GB; DENSEKIT_REQUIRE=downloads does it")
    if shutil.disk_usage(ROOT).free < 30e9:
        needs("disk", "less than 30 GB are free")
    authority = os.environ.get("SSL_CERT_FILE")
    secret = ["--secret", f"id=ca_bundle,src={authority}"] if authority else []
    build(
        engine,
        "v100",
        standin,
        "densekit-test:v100",
        "--network",
        "host",
        "--build-arg",
        "PYTHON_VERSION=3.11",
        *secret,
        timeout=580,
    )
    inside = ["docker", "run", "--rm", "--network", "none", "densekit-test:v100"]
    done = engine.run(*inside, "densekit", "run", "tiny_stage2", *SMALL_RUN)
    assert done.returncode == 0, done.stderr
    assert "sm_70" in done.stderr
    assert "xformers 0.0.30" in done.stderr
    engine.run("docker", "image", "rm", "--force", "densekit-test:v100")
