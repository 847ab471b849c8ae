"""A trained model written in other formats, each checked before it is declared done."""
