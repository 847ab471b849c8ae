"""Data, tokenizer, tiny models and held-out questions that the kit makes itself."""
