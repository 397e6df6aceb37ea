"""The report of what training changed between two models."""
