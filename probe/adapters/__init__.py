"""SAE-tuning: trains LoRA adapters through frozen SAEs, verifies what they do, attaches and exports them.

``sae``: SAEs on disk and inside a model. ``training``: the adapters. ``verification``: what an adapter does.
``exports``: adapters on a model and in other formats.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
