"""Using adapters: ``lora`` reads them, ``attach`` and ``swap`` put them on a model, ``export`` and ``gguf`` write other
formats, ``reloaded`` checks."""
