"""What the fork server of tests/support/ranks.py imports before it forks: nothing here may start a
thread or compute.

What a rank would import only when it trains is here too: DeepSpeed's optimizers alone import
torch's compiler, which takes a rank longer than its training.
"""

import os
import threading

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed.runtime.superoffload.superoffload_stage3
import deepspeed.runtime.zero.muon.muon_optimizer
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.siglip.modeling_siglip
from PIL import Image
from tqdm import tqdm
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import tests.support.training
import tests.support.worlds

Image.init()
get_checkpoint_conversion_mapping("llama")  # makes the table of all models
del os.environ["DS_ACCELERATOR"]
# Its default is a semaphore that every killed rank would leave behind.
tqdm.set_lock(threading.RLock())
