"""Forensics of run directories: read, compare, verify, show, pack."""
