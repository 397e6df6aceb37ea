"""The search over sites and sizes: fitting, scoring and choosing."""
