"""Edges between the writers and readers of a model: reading, scoring and cutting them."""
