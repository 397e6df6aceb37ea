"""Styles and scripts of pages, which lie beside the modules that use them."""

from functools import cache
from pathlib import Path


@cache
def asset(module: str, name: str) -> str:
    """The text of a file that lies beside a module.

    Args:
        module: the ``__file__`` of the module.
        name: the name of the file, which may lie in a folder.
    """
    return (Path(module).parent / name).read_text(encoding="utf-8")
