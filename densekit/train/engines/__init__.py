"""Engines: process groups, DistributedDataParallel and DeepSpeed ZeRO."""
