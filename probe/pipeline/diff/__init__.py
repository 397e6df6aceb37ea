"""``probe diff``: comparing two models."""
