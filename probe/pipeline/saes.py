"""What an SAE that a command names is known by."""

from pathlib import Path

from probe.adapters import is_release
from probe.files import file_hash, object_hash

_FILES = ("*.safetensors", "cfg.json")


def sae_hash(sae: str) -> str:
    """Identify an SAE or a transcoder by its weights and settings, or by its published name.

    Args:
        sae: a folder, or RELEASE/SAE_ID.
    """
    if is_release(sae):
        return sae
    folder = Path(sae).expanduser()
    files = sorted(file for pattern in _FILES for file in folder.glob(pattern))
    return object_hash({file.name: file_hash(file) for file in files})
