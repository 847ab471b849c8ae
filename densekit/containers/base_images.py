"""Base images: their tags in docker/Dockerfile, their digests in docker/images.lock.json."""

import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.files.json_files import parse_json, read_object, write_json

DOCKERFILE = Path("docker/Dockerfile")
LOCK = Path("docker/images.lock.json")
BASE_ARGUMENT = re.compile(r"^ARG (\w+_(?:BASE|DEVEL))=(\S+)$", re.MULTILINE)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def base_images(root: Path) -> dict[str, str]:
    """Build argument -> tag, as docker/Dockerfile of the checkout at `root` has them."""
    path = root / DOCKERFILE
    if not path.is_file():
        raise UsageError(
            f"{path} does not exist: container images are built from a checkout of densekit"
        )
    return dict(BASE_ARGUMENT.findall(path.read_text(encoding="utf-8")))


def read_lock(root: Path) -> dict[str, str]:
    """Tag -> digest of every base image that was resolved; empty before the first
    `densekit containers lock`.

    Raises DataError for a file that is not such a lock.
    """
    path = root / LOCK
    if not path.is_file():
        return {}
    try:
        entries = read_object(path)["images"]
        digests = {tag: entry["digest"] for tag, entry in entries.items()}
    except (DataError, KeyError, AttributeError, TypeError):
        raise DataError(
            f"{path} is not a lock of base images; delete it and run `densekit containers lock`"
        ) from None
    for tag, digest in digests.items():
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise DataError(
                f"{path}: the digest of {tag} is not `sha256:` and 64 digits; run "
                "`densekit containers lock`"
            )
    return digests


def pinned(root: Path) -> dict[str, str]:
    """Build argument -> `tag@digest` where the digest is known, else the tag."""
    digests = read_lock(root)
    return {
        name: f"{tag}@{digests[tag]}" if tag in digests else tag
        for name, tag in base_images(root).items()
    }


def resolve(tag: str) -> str:
    """The digest a registry returns for a tag now (of the index, where it holds several platforms).

    Raises UsageError with docker's own error when no registry answers.
    """
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{json .Manifest}}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise UsageError(
            "containers lock: `docker` is not installed; install Docker Engine with buildx"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"containers lock: no registry answered for {tag} within two minutes"
        ) from None
    if result.returncode:
        errors = result.stderr.strip().splitlines()
        problem = errors[-1] if errors else "docker buildx failed"
        raise UsageError(
            f"containers lock: {tag} cannot be resolved: {problem}\n"
            "Nothing was written. Run `densekit containers lock` on a machine that reaches the "
            f"registry and copy {LOCK} here; until then container images are built from the tags"
        )
    try:
        digest = str(parse_json(result.stdout.encode())["digest"])
    except (ValueError, KeyError, TypeError):
        digest = ""
    if not DIGEST.fullmatch(digest):
        raise UsageError(
            f"containers lock: docker buildx returned no digest for {tag}: "
            f"{result.stdout.strip()[:200]}"
        )
    return digest


def lock(root: Path) -> dict[str, tuple[str | None, str]]:
    """Resolve every base image and write the lock, all or nothing.

    Returns tag -> (digest before, digest now).
    """
    before = read_lock(root)
    now = {tag: resolve(tag) for tag in sorted(set(base_images(root).values()))}
    _write(root, now)
    return {tag: (before.get(tag), digest) for tag, digest in now.items()}


def _write(root: Path, digests: Mapping[str, str]) -> None:
    resolved = datetime.now(UTC).strftime("%Y-%m-%d")
    content = {
        "images": {tag: {"digest": digest, "resolved": resolved} for tag, digest in digests.items()}
    }
    write_json(root / LOCK, content)
