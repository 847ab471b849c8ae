"""MSVD-QA: answers for a judge, without a score."""

from densekit.evaluate.protocols.videos import video_protocol

PROTOCOL = video_protocol("msvd", "MSVD", split="test")
