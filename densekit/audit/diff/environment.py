"""In what two runs' environments differ: packages, code, Python, machine, devices, variables; and
how each carried the math out.
"""

from collections.abc import Iterator
from dataclasses import replace

from densekit.audit.diff.differences import NO_EFFECT, Difference, spelled
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import as_json
from densekit.runs.environment import Cpu, Environment, GitState

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
FIELDS = {
    "densekit": ("code", "densekit"),
    "python": ("machine", "Python"),
    "platform": ("machine", "platform"),
    "image": ("machine", "container image"),
    "devices": ("device", "devices"),
    "processors": (NO_EFFECT, "number of CPUs"),
    "lock": (NO_EFFECT, "lock files"),
}
NUMERIC = ("device", "gpu", "dtype")
IGNORED = {
    *("roots", "starts_from", "workers", "certificate_sha256", "checkpoints", "from_checkpoint"),
}
"""Paths, who reads the data, when to save, where to resume: no value depends on them."""


def environment_differences(a: Environment | None, b: Environment | None) -> Iterator[Difference]:
    """Packages, code, Python, platform, container image, devices, CPU and variables."""
    if a is None or b is None:
        return
    yield from _package_differences(a, b)
    one, two = a.as_json(), b.as_json()
    for field, (topic, name) in FIELDS.items():
        if one[field] != two[field]:
            message = f"{name}: {spelled(one, field)} and {spelled(two, field)}"
            yield Difference(topic=topic, message=message, evidence=f"environment, {field}")
    if a.git != b.git:
        message = f"git: {_git(a.git)} and {_git(b.git)}"
        yield Difference(topic="code", message=message, evidence="environment, git")
    yield from _variable_differences(a, b)
    if a.cpu is not None and b.cpu is not None:
        yield from _cpu_differences(a.cpu, b.cpu)


def attempt_differences(name: str, run: RecordedRun) -> Iterator[Difference]:
    """What changed between the attempts of one run, called `name`: its steps may come from more
    than one of them.
    """
    for number, environment in run.earlier.items():
        for found in environment_differences(environment, run.environment):
            message = f"{name}'s attempt {number} and its last one: {found.message}"
            yield replace(found, message=message)


def execution_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    """How the two machines carried the math out: device and dtype apart, the rest in one
    sentence.
    """
    if a.execution is None or b.execution is None:
        return
    one, two = (
        execution.model_dump(mode="json", exclude=IGNORED)
        for execution in (a.execution, b.execution)
    )
    rounding = []
    for field in [field for field in one if one[field] != two[field]]:
        values = f"{spelled(one, field)} and {spelled(two, field)}"
        if field in NUMERIC:
            message = f"{field} differs: {values}"
            yield Difference(topic="device", message=message, evidence=f"execution, {field}")
        else:
            rounding.append(f"{field} {values}")
    if rounding:
        message = f"execution differs: {'; '.join(rounding)}; this changes rounding only"
        yield Difference(topic="rounding", message=message, evidence="execution")


def _package_differences(a: Environment, b: Environment) -> Iterator[Difference]:
    others = []
    for name in sorted(a.packages.keys() | b.packages.keys()):
        one, two = a.packages.get(name, "absent"), b.packages.get(name, "absent")
        if one == two:
            continue
        if name.startswith(COMPUTING):
            message = f"package {name}: {one} and {two}"
            evidence = f"environment, packages.{name}"
            yield Difference(topic="package", message=message, evidence=evidence)
        else:
            others.append(f"{name} {one} and {two}")
    if others:
        message = f"other packages: {', '.join(others)}"
        yield Difference(topic="other packages", message=message, evidence="environment, packages")


def _variable_differences(a: Environment, b: Environment) -> Iterator[Difference]:
    for name in sorted(a.variables.keys() | b.variables.keys()):
        one, two = (
            as_json(found.variables[name]) if name in found.variables else "not set"
            for found in (a, b)
        )
        if one != two:
            message = f"environment variable {name}: {one} and {two}"
            evidence = f"environment, variables.{name}"
            yield Difference(topic="variables", message=message, evidence=evidence)


def _cpu_differences(a: Cpu, b: Cpu) -> Iterator[Difference]:
    if a.model != b.model:
        message = f"CPU: {a.model} and {b.model}"
        yield Difference(topic="machine", message=message, evidence="environment, cpu.model")
    one, two = set(a.flags), set(b.flags)
    only = [
        f"{', '.join(sorted(flags))} only in {name}"
        for name, flags in (("a", one - two), ("b", two - one))
        if flags
    ]
    if only:
        message = f"CPU flags: {'; '.join(only)}"
        yield Difference(topic="machine", message=message, evidence="environment, cpu.flags")


def _git(state: GitState | None) -> str:
    if state is None:
        return "no git"
    return f"{state.commit}{' with uncommitted changes' if state.dirty else ''}"
