"""Talking with a trained model: a conversation in the terminal, and questions one by one."""
