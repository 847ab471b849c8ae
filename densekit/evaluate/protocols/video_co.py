"""Consistency (Video-ChatGPT): answers for a judge, without a score."""

from densekit.evaluate.protocols.videos import video_protocol

PROTOCOL = video_protocol("video_co", "CO", split="pairs of questions")
