"""The search for a taxonomy: every site, family, size and seed, scored, and the rule that chooses."""
