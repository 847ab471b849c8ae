"""Data, tokenizer and tiny models that the kit makes itself."""
