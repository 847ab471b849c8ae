"""compose.yaml: its schema, its profiles, what a service asks the engine for, and the GPUs a
container is given.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from densekit.containers.build import targets
from densekit.recipes.load import recipe_names
from tests.support.commands import tool
from tests.support.engine import Engine
from tests.support.needs import needs
from tests.support.paths import ROOT

COMPOSE = ROOT / "compose.yaml"
GPU_SERVICES = ("pretrain", "finetune", "finetune-lora", "evaluate")
SERVICES = {
    "a100": {*GPU_SERVICES, "chat", "tensorboard"},
    "v100": {*(f"{name}-v100" for name in GPU_SERVICES), "chat-v100", "tensorboard"},
    "cpu": {"smoke", "evaluate-cpu", "cross-check", "fetch", "chat-cpu", "tensorboard"},
}
GPUS = {
    **dict.fromkeys(
        ("smoke", "evaluate-cpu", "cross-check", "fetch", "chat-cpu", "tensorboard"), 0
    ),
    **dict.fromkeys(("chat", "chat-v100"), 1),
}
"""Of services that do not train as the paper does, on 8."""
PROJECT = "densekit-test-compose"


def config(engine: Engine, profile: str, **variables: str) -> dict[str, Any]:
    """Every service of a profile as Compose understands it."""
    printed = engine.ok(
        "docker", "compose", "--profile", profile, "config", "--format", "json", **variables
    )
    services: dict[str, Any] = json.loads(printed)["services"]
    return services


def schema_errors(path: Path) -> int:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.ranks
def test_schema(tmp_path: Path) -> None:
    assert schema_errors(COMPOSE) == 0
    bad = tmp_path / "compose.yaml"
    bad.write_text(
        COMPOSE.read_text(encoding="utf-8").replace("shm_size", "shm_sise"), encoding="utf-8"
    )
    assert schema_errors(bad) != 0


def test_services_have_no_rights_and_a_read_only_root() -> None:
    for name, service in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert [place.partition(":")[0] for place in service["tmpfs"]] == ["/tmp"], name
        assert service["environment"]["HOME"] == "/tmp", name


@pytest.mark.parametrize("profile", SERVICES)
def test_profiles(engine: Engine, profile: str) -> None:
    services = config(engine, profile)
    assert set(services) == SERVICES[profile]
    for name, service in services.items():
        assert service["image"] == f"densekit:{service['build']['target']}"
        assert service["build"]["target"] in targets(ROOT)
        assert service["user"] == "1000:1000"
        devices = (
            service.get("deploy", {})
            .get("resources", {})
            .get("reservations", {})
            .get("devices", [])
        )
        count = GPUS.get(name, 8)
        wanted = [{"driver": "nvidia", "count": count, "capabilities": ["gpu"]}]
        assert devices == (wanted if count else []), name


@pytest.mark.parametrize("profile", ["a100", "v100"])
def test_number_type_follows_the_gpu(engine: Engine, profile: str) -> None:
    """V100 has no bf16."""
    for name, service in config(engine, profile).items():
        if service["command"] and service["command"][1] in ("run", "chat"):
            assert service["command"][-2:] == [
                "--dtype",
                {"a100": "bf16", "v100": "fp16"}[profile],
            ], name


@pytest.mark.parametrize("profile", SERVICES)
def test_default_recipes_exist(engine: Engine, profile: str) -> None:
    named = {
        service["command"][2]
        for service in config(engine, profile).values()
        if service["command"] and service["command"][:2] == ["densekit", "run"]
    }
    assert named
    assert named <= set(recipe_names())


@pytest.mark.parametrize("profile", SERVICES)
def test_models_are_asked_where_they_are_trained(engine: Engine, profile: str) -> None:
    services = config(engine, profile)
    asking = [name for name in services if name.startswith("evaluate")]
    assert len(asking) == 1
    words = services[asking[0]]["command"]
    assert words[:2] == ["densekit", "evaluate"] and words[2] in recipe_names()
    device = "cpu" if profile == "cpu" else "cuda"
    assert words[3:5] == ["--device", device]


def test_chat_has_a_terminal_and_writes_nowhere() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    for name in ("chat", "chat-v100", "chat-cpu"):
        service = services[name]
        assert service["stdin_open"] and service["tty"], name
        assert all(place.endswith(":ro") for place in service["volumes"]), name
        assert service["command"].split()[:2] == ["densekit", "chat"]


def test_only_fetch_writes_data_and_gets_the_token() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        inputs = [
            place
            for place in service["volumes"]
            if place.rpartition("/workspace/")[2].partition(":")[0] in ("data", "models")
        ]
        assert all(place.endswith(":ro") for place in inputs) == (name != "fetch"), name
        assert ("HF_TOKEN" in service["environment"]) == (name == "fetch"), name
    words = services["fetch"]["command"].split()
    assert words[:2] == ["densekit", "fetch"] and words[2].removeprefix("${RECIPE:-") != words[2]


def test_variables(engine: Engine) -> None:
    service = config(
        engine,
        "a100",
        GPUS="2",
        RECIPE="mine",
        ARGS="--keep 3 --force",
        DATA_DIR="/data",
        DENSEKIT_USER="7:8",
        SHM_SIZE="1gb",
        MEMLOCK="1024",
    )["pretrain"]
    expected = "densekit run mine --device cuda --gpus 2 --dtype bf16 --keep 3 --force"
    assert service["command"] == expected.split()
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert service["volumes"][0] | {"bind": None} == {
        "type": "bind",
        "source": "/data",
        "target": "/workspace/data",
        "read_only": True,
        "bind": None,
    }
    assert (service["user"], service["shm_size"]) == ("7:8", str(1024**3))
    assert service["ulimits"]["memlock"] == {"soft": 1024, "hard": 1024}


def test_secrets_of_a_build_stay_out_of_images(engine: Engine) -> None:
    printed = engine.ok(
        "docker",
        "compose",
        "--profile",
        "cpu",
        "config",
        "--format",
        "json",
        CA_BUNDLE="/etc/mine.pem",
    )
    value = json.loads(printed)
    assert value["secrets"]["ca_bundle"]["file"] == "/etc/mine.pem"
    smoke = value["services"]["smoke"]
    assert {secret["source"] for secret in smoke["build"]["secrets"]} == {"ca_bundle", "pip_conf"}
    assert "secrets" not in smoke


@pytest.fixture(scope="module")
def pretend_gpus(
    engine: Engine, standin: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An override by which the GPU services print what they were given instead of training."""
    if not engine.private:
        needs(
            "pretend-gpu",
            "this machine's engine would hand out real GPUs; the ids are pretended ones",
        )
    path = tmp_path_factory.mktemp("compose") / "override.yaml"
    shows = (
        "echo devices=$$NVIDIA_VISIBLE_DEVICES; ulimit -l; ulimit -s; "
        "df -k /dev/shm | tail -1; id -u"
    )
    service = {"image": standin, "entrypoint": ["sh", "-c", shows], "command": []}
    path.write_text(
        yaml.safe_dump({"services": dict.fromkeys(GPU_SERVICES, service)}), encoding="utf-8"
    )
    yield path
    engine.run(
        "docker",
        "compose",
        "--project-name",
        PROJECT,
        "--profile",
        "*",
        "down",
        "--volumes",
        timeout=60,
    )


def shown(engine: Engine, service: str, *files: Path, **variables: str) -> list[str]:
    """What a service's container prints."""
    parts = [part for file in (COMPOSE, *files) for part in ("--file", str(file))]
    command = ["docker", "compose", "--project-name", PROJECT, *parts, "run", "--rm", "-T", service]
    return engine.ok(*command, **variables).splitlines()


@pytest.mark.parametrize(("gpus", "ids"), [("2", "0,1"), ("all", "all")])
def test_a_container_is_given_the_gpus_asked_for(
    engine: Engine, pretend_gpus: Path, gpus: str, ids: str
) -> None:
    lines = shown(
        engine,
        "pretrain",
        pretend_gpus,
        GPUS=gpus,
        SHM_SIZE="128mb",
        STACK="1048576",
        MEMLOCK="65536",
    )
    assert lines[0] == f"devices={ids}"
    assert lines[1:3] == ["64", "1024"]  # KiB
    assert lines[3].split()[1] == str(128 * 1024)
    assert lines[4] == "1000"


def test_a_container_is_given_the_gpus_named(
    engine: Engine, pretend_gpus: Path, tmp_path: Path
) -> None:
    """docs/containers.md: two of the host's GPUs by id, with a second compose file."""
    named = tmp_path / "gpus.yaml"
    named.write_text(
        "services:\n  finetune:\n    deploy:\n      resources:\n        reservations:\n          "
        "devices: !override\n"
        "            - {driver: nvidia, device_ids: ['2', '5'], capabilities: [gpu]}\n",
        encoding="utf-8",
    )
    assert shown(engine, "finetune", pretend_gpus, named)[0] == "devices=2,5"
