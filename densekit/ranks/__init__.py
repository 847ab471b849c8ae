"""What the ranks of a run or an evaluation do together: small objects, signals, how they end."""
