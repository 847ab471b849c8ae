"""Tokenizers behind one interface: SentencePiece and fast (tokenizers) files."""
