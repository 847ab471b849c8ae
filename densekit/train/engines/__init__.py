"""Engines: how forward, backward and the optimizer step run on the processes at hand.

`base` is the interface, `ddp` one process or DistributedDataParallel, `zero` DeepSpeed ZeRO. None
of them changes the math.
"""
