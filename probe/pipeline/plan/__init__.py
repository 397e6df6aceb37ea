"""``probe plan``: what a run will need, computed from its settings and the configs of its models alone."""
