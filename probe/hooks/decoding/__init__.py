"""Decoding: the cached batch of sequences, and the loop that keeps it full."""
