"""``probe discover``: finds and tests the behaviours of a thinking model."""
