"""The heads of a model: changing them, the effect of that, and what they attend to."""
