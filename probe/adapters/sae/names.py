"""Names of SAEs that are not folders; this file needs no torch."""

from pathlib import Path

from probe.files import is_there


def is_release(name: str | Path) -> bool:
    """Whether a name can be that of an SAE in SAELens' registry, and nothing in the file system has that name.

    >>> is_release("gpt-oss-20b-andyrdt/resid_post_layer_3_trainer_0"), is_release("./sae"), is_release("sae")
    (True, False, False)
    """
    text = str(name)
    return "/" in text.strip("/") and not text.startswith((".", "~", "/")) and not is_there(text)
