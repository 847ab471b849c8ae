"""The multimodal model: vision tower, connector, packed attention and the language model around
them.
"""
