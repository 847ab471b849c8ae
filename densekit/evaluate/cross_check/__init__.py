"""A second opinion: lmms-eval asks the same model the same questions, through files alone."""
