"""``probe diff``: what training changed between two models."""
