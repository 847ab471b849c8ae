"""Benchmarks: protocols (what is asked, and how) and scorers (what an answer is worth)."""
