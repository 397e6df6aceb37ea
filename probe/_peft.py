"""PEFT, which is asked for only where it is used."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from probe._errors import ProbeError


def peft() -> Any:
    """The library.

    Raises:
        ProbeError: if it is not installed.
    """
    try:
        import peft as library
    except ImportError:
        raise ProbeError("LoRA adapters need PEFT: pip install 'probe-interp[tune]'") from None
    return library


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT asks transformers for something by a name that is being retired; the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield
