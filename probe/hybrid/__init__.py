"""The hybrid model: decoding with exchangeable parts, controls, baselines, evaluation and statistics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
