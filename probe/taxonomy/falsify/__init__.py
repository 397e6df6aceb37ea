"""Falsification cards: does a behaviour follow the state of the reasoning, or its cue words?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
