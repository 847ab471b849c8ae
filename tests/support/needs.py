"""What a test cannot do without, and the one place where a test may be skipped.

`needs("docker", why)` skips the test and says what it was waiting for. DENSEKIT_REQUIRE names the
needs that this machine is known to meet (DENSEKIT_REQUIRE=docker,slurm,recorded): there the same
call is a failure, so that a machine on which everything should run cannot lose a test without
anybody noticing. The summary of a run lists all skips by need and reason.
"""

import os
from collections import Counter
from typing import NoReturn

import pytest

NEEDS = {
    "docker": "a container engine with compose, or what starts a private one (support/services)",
    "slurm": "a Slurm, or what starts a private one (support/services)",
    "private-slurm": "a Slurm whose settings a test may change, as support/services starts one",
    "recorded": "the full set of numbers recorded from the official code (DENSEKIT_GOLDEN)",
    "gpu": "a CUDA device that torch sees",
    "kernel": "the package of an attention kernel",
    "lmms-eval": "lmms-eval in .venv/lmms_eval (`make lmms-eval`)",
    "transformers-4": "transformers 4 in .venv/transformers_4 (`make transformers-4`)",
    "ro-crate": "the validator of RO-Crates in .venv/ro_crate (`make ro-crate`)",
    "docs": "what builds the documentation's site (`make docs` installs it)",
    "browser": "chromium (Debian: `apt-get install chromium`) and `make browser`",
    "index": "a package index that offers what is asked for",
    "registry": "the digests of base images, which come from a container registry",
    "pretend-gpu": "a container engine that hands out GPUs, real or pretended ones",
    "root": "the rights of root",
    "user": "a user other than root",
    "cores": "two CPU cores",
    "disk": "free disk space",
    "two-disks": "a temporary folder on another disk than /dev/shm",
    "downloads": "leave to fetch some GB: only DENSEKIT_REQUIRE=downloads gives it",
}
VARIABLE = "DENSEKIT_REQUIRE"


def needs(need: str, why: str) -> NoReturn:
    """Skip the running test for want of `need`; fail it where DENSEKIT_REQUIRE names the need."""
    if need in required():
        pytest.fail(f"{VARIABLE} names {need}, and it is not met: {why}", pytrace=False)
    pytest.skip(f"{need}: {why}")


def required() -> set[str]:
    """The needs that DENSEKIT_REQUIRE names. Raises UsageError for a name that is none."""
    names = {name for name in os.environ.get(VARIABLE, "").split(",") if name}
    if unknown := names - NEEDS.keys():
        raise pytest.UsageError(
            f"{VARIABLE}: no need is called {', '.join(sorted(unknown))}; "
            f"the needs are {', '.join(NEEDS)}"
        )
    return names


def pytest_configure(config: pytest.Config) -> None:
    required()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    if not reasons:
        return
    terminalreporter.section("skipped, by need")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4d}  {reason}")
