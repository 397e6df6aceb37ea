"""Reads traces that were written elsewhere: sources of records, shapes of records, and text as tokens of a model."""
