"""The report of a circuit, and figures of a model's attention, states and rollouts."""
