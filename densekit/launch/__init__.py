"""Launchers: how a plan becomes processes, and what is checked before they start."""
