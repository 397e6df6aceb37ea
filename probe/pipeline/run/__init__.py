"""``probe run``, ``probe hybrid`` and ``probe chat``: whole experiments and single arms."""
