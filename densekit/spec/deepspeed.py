"""Sizes of DeepSpeed's buffers: the trainer configures them, the planner counts their memory."""

BUCKET_ELEMENTS = 50_000_000
"""Elements that ZeRO reduces or gathers in one collective: buffers of 200 MB in fp32."""
MAX_LIVE_ELEMENTS = 1_000_000_000
"""Gathered weights that ZeRO-3 keeps at most: DeepSpeed's default of stage3_max_live_parameters."""
SUB_GROUP_ELEMENTS = 1_000_000_000
"""Weights, of all ranks together, that ZeRO-3 updates at once: its default of sub_group_size."""
