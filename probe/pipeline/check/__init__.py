"""The checks of a checkpoint: whether a model on this machine does what probe relies on."""
