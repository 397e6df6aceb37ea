"""What did training add to a thinking model: the reasoning mechanisms themselves, or only when to use them?

Three ways in:

- circuits in Jupyter: ``load_pair``, ``capture``, ``edit``, ``EdgeLens``, ``attribute``, ``patch``, ``logit_lens``
- steering experiments: ``generate_traces``, ``harvest``, ``fit_taxonomy``, ``learn_vectors``, ``evaluate_arm``, ``run``
- SAE-tuning adapters: ``load_sae``, ``tune``, ``verify``, ``attached``, and the room ``probe.adapters``

Each name is imported from its room when it is first used, so ``import probe`` is quick. ``probe/__init__.pyi`` is the
one list of them, for this file and for editors.
"""

import warnings
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

#: Earlier names, and what they are called now.
_RENAMED = {"compare": "diff_models"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"probe.{name} is now probe.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    return _find(name)
