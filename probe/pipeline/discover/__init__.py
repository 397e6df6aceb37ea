"""``probe discover``: from a thinking model and problems to tested behaviours."""
