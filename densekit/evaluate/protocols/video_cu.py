"""Contextual understanding (Video-ChatGPT): answers for a judge, without a score."""

from densekit.evaluate.protocols.videos import video_protocol

PROTOCOL = video_protocol("video_cu", "CU", split="generic questions")
