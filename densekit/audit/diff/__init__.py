"""Where two runs diverge, and what may have caused it."""
