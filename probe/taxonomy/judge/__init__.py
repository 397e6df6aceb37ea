"""Judges: language models that name behaviours and score the names."""
