"""Taxonomies: the behaviours of a thinking model, found without labels by a small SAE."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
