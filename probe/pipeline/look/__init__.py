"""A look at both models before the expensive stages: a few answers of each, and what is wrong with them."""
