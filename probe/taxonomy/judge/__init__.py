"""Judges: LLMs that name behaviours and score the names."""
