"""What each attention kernel needs beside torch."""

from dataclasses import dataclass
from importlib.util import find_spec

from densekit.errors import UsageError
from densekit.spec.types import AttentionKernel


@dataclass(frozen=True, kw_only=True)
class KernelPackage:
    """Where a kernel comes from."""

    distribution: str
    module: str
    """What is imported."""
    source: str
    """The version that is known to work, and what has it."""

    @property
    def installed(self) -> bool:
        """Whether this Python has it; nothing is imported."""
        return find_spec(self.module.partition(".")[0]) is not None


KERNEL_PACKAGES: dict[AttentionKernel, KernelPackage] = {
    "flash": KernelPackage(
        distribution="flash-attn",
        module="flash_attn",
        source="2.8.3.post2, compiled with nvcc; the a100 container image has it",
    ),
    "xformers": KernelPackage(
        distribution="xformers",
        module="xformers.ops",
        source="0.0.30 with torch 2.7.0; the v100 container image has it",
    ),
}
"""SDPA is torch's own."""


def require_installed(kernel: AttentionKernel) -> None:
    """Raises UsageError where this Python lacks the kernel's package: what is asked for is never
    replaced.
    """
    package = KERNEL_PACKAGES.get(kernel)
    if package is not None and not package.installed:
        raise unusable(kernel, "is not installed here")


def unusable(kernel: AttentionKernel, why: str) -> UsageError:
    """The error for a kernel whose package `why`."""
    package = KERNEL_PACKAGES[kernel]
    return UsageError(
        f"--attention {kernel}: {package.module} {why}; install {package.distribution} "
        f"({package.source}), or use --attention sdpa"
    )
