"""What the fork server of tests/support/ranks.py imports before it forks: nothing here may start a
thread or compute.
"""

import os
import threading

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed  # noqa: F401
import peft  # noqa: F401
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.siglip.modeling_siglip  # noqa: F401
from tqdm import tqdm

import tests.support.training
import tests.support.worlds  # noqa: F401

del os.environ["DS_ACCELERATOR"]
tqdm.set_lock(
    threading.RLock()
)  # its default is a semaphore that every killed rank would leave behind
