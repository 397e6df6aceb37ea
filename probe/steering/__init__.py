"""Mechanisms and policies: what is added to the base model and when, and how each is learned."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
