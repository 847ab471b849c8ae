"""What a release is made of, in dist/ (`make release`): wheel and sdist of the version that the tag
says, the packages that they need as CycloneDX, and the SHA-256 of each file.

On a tag the version must be that of CITATION.cff, and CHANGELOG.md must have a section for it.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LOCKS = ("driver", "train")
SUMS = "SHA256SUMS"


def problems(version: str, citation: str, changelog: str) -> list[str]:
    """What must be written before `version` is released; nothing for one between two releases."""
    if re.search(r"\.dev|\+", version):
        return []
    found = []
    cited = str(yaml.safe_load(citation)["version"])
    if cited != version:
        found.append(f"CITATION.cff: version is {cited}; write {version}")
    if f"\n## [{version}]" not in changelog:
        found.append(f"CHANGELOG.md: no section [{version}]; rename [Unreleased], and date it")
    return found


def run(*command: str | Path) -> None:
    """One step, with its output; the release ends where it fails."""
    if subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode:
        sys.exit(f"release: {Path(command[0]).name} {command[1]} failed")


def bill_of_materials(lock: str, environment: Path) -> None:
    """The packages of a lock file, with their hashes, as CycloneDX."""
    source, target = ROOT / "requirements" / f"{lock}.txt", DIST / f"densekit-{lock}.cdx.json"
    run(
        *(environment / "bin" / "cyclonedx-py", "requirements", "--output-reproducible"),
        *("--of", "JSON", "-o", target, source),
    )


def main() -> None:
    """Build, check and list."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)
    (wheel,) = DIST.glob("*.whl")
    version = wheel.name.split("-")[1]
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md")]
    if found := problems(version, *texts):
        sys.exit("\n".join(f"release: {problem}" for problem in found))
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name)
        run(sys.executable, "-m", "venv", environment)
        pinned = ("--no-deps", "--require-hashes", "-r", ROOT / "docker/requirements/sbom.txt")
        run(environment / "bin" / "python", "-m", "pip", "install", "-qq", *pinned)
        for lock in LOCKS:
            bill_of_materials(lock, environment)
    files = sorted(path for path in DIST.iterdir() if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIST / SUMS).write_text("".join(sums), encoding="utf-8")
    print(f"release: version {version}" + "".join(f"{os.linesep}  {path.name}" for path in files))


if __name__ == "__main__":
    main()
