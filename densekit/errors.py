"""Errors a user can cause: each carries the exit code the command line returns."""

PREEMPTED_CODE = 75
"""Exit code of a run that stopped at a checkpoint because it was asked to (sysexits' EX_TEMPFAIL):
the same command resumes it.
"""
INTERRUPTED_CODE = 130
"""Exit code of a run that a second Ctrl-C killed."""
KILLED_CODE = 137
"""Exit code of a process that SIGKILL ended: 128 + 9."""


class DensekitError(Exception):
    """Base of every error that is shown as one message, without a traceback."""

    exit_code = 1


class UsageError(DensekitError):
    """The command, the recipe or a setting is wrong (exit code 2)."""

    exit_code = 2


class DataError(DensekitError):
    """A file, an image, a conversation or a model directory is wrong (exit code 3)."""

    exit_code = 3


def in_a_line(error: Exception) -> str:
    """Kind and text of another program's exception, in one line of 300 characters at most."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
