"""`python -m densekit.train.torch_build`: the version of torch, and the architectures that it has
machine code for, on one line. torch.cuda.get_arch_list() would be empty where torch sees no GPU.
"""

import torch

flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
print(torch.__version__, flags or "")
