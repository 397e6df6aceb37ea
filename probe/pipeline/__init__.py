"""The commands as functions: their settings, their stages in order, and the folders that hold their results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
