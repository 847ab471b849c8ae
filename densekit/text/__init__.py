"""Turns conversations into token ids and labels, without torch or transformers."""
