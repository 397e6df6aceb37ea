"""The report of a circuit, and figures of what happens inside a model."""
