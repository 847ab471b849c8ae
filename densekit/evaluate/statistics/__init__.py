"""The statistics behind verdicts: pure functions of scores, numpy alone, the same to every digit
wherever they run (random numbers come from named seeds).
"""
