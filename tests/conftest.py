"""What every test shares; the rest is in tests/support."""

import os
import signal

from densekit.runs.launch_variables import clear_inherited

clear_inherited(keep_ranks=False)  # a pod's or a job's own: every process of a test would name them
os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# In the background (`make test &`) Ctrl-C is ignored, and would be by every process that a test
# interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.needs", "tests.support.kinds", "tests.support.fixtures"]
