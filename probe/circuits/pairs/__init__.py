"""Pairs of a clean and a corrupt text, and where they come from."""
