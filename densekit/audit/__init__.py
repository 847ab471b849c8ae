"""Forensics of run directories: read, compare, verify."""
