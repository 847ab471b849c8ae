"""In what two runs' surroundings differ: packages, code, Python, machine, devices, and how the math
was carried out.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from densekit.audit.diff.differences import Difference, spelled
from densekit.audit.run_reader import Evidence, section

# Packages that compute something on the way from a file to a gradient, by how their names begin.
COMPUTING = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "peft",
    "flash-attn",
    "xformers",
    "triton",
    "nvidia-",
    "cuda-",
    "tokenizers",
    "sentencepiece",
    "numpy",
    "pillow",
    "safetensors",
)
ENVIRONMENT = {
    "densekit": ("code", "densekit"),
    "python": ("machine", "Python"),
    "platform": ("machine", "platform"),
    "image": ("machine", "container image"),
    "devices": ("device", "devices"),
    "processors": ("label", "processors"),
    "lock": ("label", "lock files"),
}
NUMERIC = ("device", "dtype")
UNSEEN = (
    "roots",
    "starts_from",
    "workers",
)  # paths, and who reads the data: no value depends on them


def environment_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """Packages, code, Python, platform, image and devices of the two last attempts."""
    if not a.environment or not b.environment:
        return
    yield from _package_differences(a, b)
    for field, (topic, name) in ENVIRONMENT.items():
        if a.environment.get(field) != b.environment.get(field):
            words = f"{name}: {spelled(a.environment, field)} and {spelled(b.environment, field)}"
            yield Difference(topic=topic, words=words, evidence=f"environment, {field}")
    yield from _code_differences(a, b)


def attempt_differences(name: str, run: Evidence) -> Iterator[Difference]:
    """What changed between the attempts of one run, called `name`: its steps may come from more
    than one of them.
    """
    for number, environment in run.earlier.items():
        for found in environment_differences(replace(run, environment=environment), run):
            yield replace(found, words=f"{name}'s attempt {number} and its last: {found.words}")


def execution_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """How the two machines carried the math out: device and dtype apart, the rest in one sentence."""
    if not a.execution or not b.execution:
        return
    rounding: list[str] = []
    for field in sorted({*a.execution, *b.execution} - {*UNSEEN}):
        first, second = spelled(a.execution, field), spelled(b.execution, field)
        if first == second:
            continue
        if field in NUMERIC:
            yield Difference(
                topic="device",
                words=f"{field} differs: {first} and {second}",
                evidence=f"execution, {field}",
            )
        elif field == "gpus":
            rounding.insert(0, f"{first} process{'' if first == '1' else 'es'} and {second}")
        else:
            rounding.append(f"{field} {first} and {second}")
    if rounding:
        words = f"execution differs: {'; '.join(rounding)}; this alone changes only rounding"
        yield Difference(topic="rounding", words=words, evidence="execution")


def _package_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    one, two = (
        section(run.environment, "packages", run.path / "environment.json") for run in (a, b)
    )
    others = []
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) == two.get(name):
            continue
        versions = f"{one.get(name, 'absent')} and {two.get(name, 'absent')}"
        if name.startswith(COMPUTING):
            words = f"package {name}: {versions}"
            yield Difference(topic="package", words=words, evidence=f"environment, packages.{name}")
        else:
            others.append(f"{name} {versions}")
    if others:
        words = f"other packages: {', '.join(others)}"
        yield Difference(topic="other packages", words=words, evidence="environment, packages")


def _code_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    one, two = (_git(run) for run in (a, b))
    if one != two:
        words = f"git: {one} and {two}"
        yield Difference(topic="code", words=words, evidence="environment, git")


def _git(run: Evidence) -> str:
    git: dict[str, Any] = section(run.environment, "git", run.path / "environment.json")
    return (
        f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}"
        if git
        else "no git"
    )
