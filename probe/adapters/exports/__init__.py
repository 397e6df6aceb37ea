"""Adapters on a model and in files: attached, swapped, exported, and read again."""
