"""torchrun, without the traceback it ends with: the rank that failed has said what went wrong.

`python -m densekit.train.torchrun ARGUMENTS` takes torchrun's arguments. What a rank could not say
itself, because it was killed, is said here in one line. Exit code 1 when a rank failed.
"""

import logging
import signal
import sys

from densekit.runs.launch_variables import clear_inherited


def main() -> None:
    """Run torchrun with this process's arguments, and no variable of another launcher."""
    clear_inherited(keep_ranks=False)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            # SIGTERM is torchrun's own: it clears up behind the first rank that failed.
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                name = signal.Signals(-failure.exitcode).name
                hint = " (out of memory?)" if name == "SIGKILL" else ""
                print(f"rank {rank} was killed by {name}{hint}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except RendezvousError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(
            f"rendezvous failed: {reason}; check that every node started",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
