"""``probe run``, ``probe hybrid`` and ``probe chat``: the whole experiment and single arms of it."""
