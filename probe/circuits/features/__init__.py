"""Latents of SAEs and transcoders inside a model: ``slopes`` → ``scores``, ``check`` (exact) and ``examples``."""
