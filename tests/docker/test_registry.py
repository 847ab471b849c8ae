"""`densekit containers lock` against a registry on this host, and a build from its record."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from densekit.containers.base_images import lock, pinned
from tests.support.commands import prepare
from tests.support.engine import Engine


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Address of an empty registry."""
    apt = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root")
    prepare("docker", *apt, "download", "docker-registry", folder=tmp_path)
    (package,) = tmp_path.glob("docker-registry_*.deb")
    prepare("docker", "dpkg", "-x", package, tmp_path / "root")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = tmp_path / "settings.yml"
    store = f"storage: {{filesystem: {{rootdirectory: {tmp_path}/store}}}}"
    settings.write_text(
        f"version: 0.1\n{store}\nhttp: {{addr: '127.0.0.1:{port}'}}\n", encoding="utf-8"
    )
    command = [str(tmp_path / "root/usr/bin/docker-registry"), "serve", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        server.terminate()


def test_lock_and_build(
    engine: Engine, empty_image: str, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"{registry}/base:1"
    engine.ok("docker", "tag", empty_image, base)
    pushed = engine.ok("docker", "push", base)
    engine.ok("docker", "image", "rm", base)
    (tmp_path / "docker").mkdir()
    dockerfile = tmp_path / "docker" / "Dockerfile"
    dockerfile.write_text(
        f"ARG CPU_BASE={base}\nFROM ${{CPU_BASE}} AS cpu\nLABEL a=b\n", encoding="utf-8"
    )
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)

    ((before, digest),) = lock(tmp_path).values()
    assert before is None
    assert digest in pushed
    reference = pinned(tmp_path)["CPU_BASE"]
    assert reference == f"{base}@{digest}"
    build = [
        "docker",
        "build",
        "--network",
        "none",
        "--file",
        dockerfile,
        "--tag",
        "densekit-test:locked",
        tmp_path,
    ]
    engine.ok(*build, "--build-arg", f"CPU_BASE={reference}")
    engine.run("docker", "image", "rm", "--force", "densekit-test:locked")
    wrong = reference.replace(digest, "sha256:" + "0" * 64)
    assert engine.run(*build, "--build-arg", f"CPU_BASE={wrong}").returncode != 0
