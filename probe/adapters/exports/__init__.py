"""Using adapters: ``attach`` and ``swap`` put them on a model, ``export`` writes other formats, ``reloaded`` checks."""
