"""What a GPU has to show before anything is built on guesses: `make gpu` (see __main__.py)."""
