"""Inside a model: the edges, heads and states that carry a behaviour, and what heads attend to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
