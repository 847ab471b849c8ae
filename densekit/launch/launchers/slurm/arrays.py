"""Job arrays: the runs that start from nothing are one array, and those that start from them a
second one, which waits for the first.
"""

import shlex
from collections.abc import Callable, Sequence

from densekit.errors import DensekitError
from densekit.launch.launchers.base import Arrays, Element, LostContactError
from densekit.launch.launchers.slurm.follower import Follower, follow_jobs
from densekit.launch.launchers.slurm.jobs import cancel
from densekit.launch.launchers.slurm.script import Batch, array_script, piped, script, write_script
from densekit.launch.launchers.slurm.submit import sbatch
from densekit.launch.launchers.waiting import settle, wait_stoppable

FIRST_JOB = "ID-OF-THE-FIRST"
"""Stands in `--print` for the id of the first array."""


class SlurmArrays(Arrays):
    """Each element of an array is the job of one run, with script and output in its attempt."""

    def __init__(
        self, *, batch: Batch, queue_minutes: float | None, note: Callable[..., None]
    ) -> None:
        self.batch, self.queue_minutes, self.note = batch, queue_minutes, note

    def commands(self, elements: Sequence[Element]) -> list[str]:
        """The script of every element, and those of the arrays, given to sbatch."""
        first, second, dependency = in_order(elements)
        lines: list[str] = []
        for array, waits_for in ((first, None), (second, f"{dependency}:{FIRST_JOB}")):
            for element in array:
                lines.append(f"# {element.run.attempt / 'job.sbatch'}:")
                lines.append(script(element.run, element.execution, self.batch))
            if array:
                lines.append(piped(array_script(array, self.batch, waits_for)))
        return lines

    def launch(self, elements: Sequence[Element]) -> int:
        """Submit both arrays at once and follow all jobs.

        Raises UsageError when Slurm does not take one; what was submitted is cancelled.
        """
        first, second, dependency = in_order(elements)
        jobs: dict[Element, str] = {}
        try:
            self._submit(first, jobs, None)
            array = jobs[first[0]].partition("_")[0] if first else None
            self._submit(second, jobs, f"{dependency}:{array}" if array else None)
            return self._follow(jobs, together=dependency == "afterok")
        except LostContactError:
            raise  # the jobs go on
        except DensekitError:
            cancel(*jobs.values())
            raise

    def _submit(
        self, array: Sequence[Element], jobs: dict[Element, str], dependency: str | None
    ) -> None:
        if not array:
            return
        for element in array:
            write_script(element.run, element.execution, self.batch)
        job = sbatch(script=array_script(array, self.batch, dependency))
        for index, element in enumerate(array):
            jobs[element] = f"{job}_{index}"
            self.note(element.run, job=jobs[element])
            print(
                f"{element.name}: Slurm job {jobs[element]}; `densekit tail "
                f"{shlex.quote(str(element.run.path))}` shows its log too",
                flush=True,
            )

    def _follow(self, jobs: dict[Element, str], *, together: bool) -> int:
        """Wait for all jobs; `together`: the second array waits for all of the first."""
        followers = {
            element: Follower(element.run, job, self.queue_minutes, f"{element.name}: ")
            for element, job in jobs.items()
        }

        def blocked(element: Element) -> str | None:
            """Why a run that waits for others will never start."""
            for other, follower in followers.items():
                awaited = other is element.after or (
                    together and element.after is not None and other.after is None
                )
                if awaited and follower.code is not None and not other.run.complete:
                    return f"{other.name}, which its job waits for, did not complete"
            return None

        def cancel_blocked() -> None:
            for element, follower in followers.items():
                stopped = element.run.stop_file.exists()
                if follower.code is None and not stopped and (why := blocked(element)):
                    follower.give_up(why)

        def wait() -> int:
            follow_jobs([*followers.values()], cancel_blocked)
            return 0

        runs = [element.run for element in jobs]
        ended = wait_stoppable(
            *runs,
            wait=wait,
            kill=lambda: cancel(*jobs.values()),
            queued=lambda: any(follower.queued for follower in followers.values()),
        )
        codes = []
        for element, follower in followers.items():
            never_began = element.run.status.state == "created"
            reason = (blocked(element) if never_began else None) or follower.reason
            code = ended if follower.code is None else follower.code
            codes.append(settle(element.run, code, reason))
        return next((code for code in codes if code), 0)


def in_order(elements: Sequence[Element]) -> tuple[list[Element], list[Element], str]:
    """The elements of the first array and of the second, and how the second waits.

    `aftercorr`, element by element, if each of the second has a run of its own to wait for: the
    first array is then in their order. `afterok` else: it waits for the whole first array.
    """
    first = [element for element in elements if element.after is None]
    second = [element for element in elements if element.after is not None]
    awaited = [element.after for element in second if element.after in first]
    if len(awaited) < len(second) or any(awaited.count(element) > 1 for element in awaited):
        return first, second, "afterok"
    leading = [element for element in awaited if element is not None]
    others = [element for element in first if element not in leading]
    return [*leading, *others], second, "aftercorr"
