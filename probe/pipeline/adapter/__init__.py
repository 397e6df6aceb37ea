"""``probe adapter``: training, verifying, comparing and exporting adapters."""
