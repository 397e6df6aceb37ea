"""SAEs of thousands of latents: read from disk, trained, and inserted into a model."""
