"""The folders that ship with probe, and the prompt of a model that comes with one; this file needs no torch."""

from pathlib import Path

from probe.config import nearest, read_yaml
from probe.errors import ProbeError
from probe.models.loading.packaged import PACKAGED, is_packaged

_PACKAGE = Path(__file__).resolve().parents[2]
_ROOTS = (_PACKAGE.parent / "artifacts", _PACKAGE / "_bundled")


def bundled_folders() -> dict[str, Path]:
    """Return every bundled folder by name, sorted; a clone's folder wins over a wheel's of the same name."""
    folders = [folder for root in reversed(_ROOTS) if root.is_dir() for folder in root.iterdir() if folder.is_dir()]
    return dict(sorted((folder.name, folder) for folder in folders))


def bundled_folder(name: str) -> Path:
    """Return the folder of the bundled model or pair called ``name``.

    Raises:
        ProbeError: if nothing of that name is bundled; the message suggests the nearest name.
    """
    folders = bundled_folders()
    if name not in folders:
        raise ProbeError(f"nothing bundled is called '{name}'; {nearest(name, folders)}")
    return folders[name]


def own_prompt(path: str) -> str:
    """Return the prompt that belongs to a packaged or a bundled model; empty for any other model.

    That of a bundled model is in the ``pair.yaml`` of a bundled pair to which it belongs.

    Args:
        path: the ``path`` of a :class:`~probe.ModelConfig`.
    """
    if is_packaged(path):
        return PACKAGED[path].prompt
    folders = bundled_folders()
    name = path.removeprefix("bundled:")
    if name not in folders or (name == path and Path(path).exists()):
        return ""
    for folder in folders.values():
        if (file := folder / "pair.yaml").is_file():
            pair = read_yaml(file)
            for member in (pair["base"], pair["thinking"]):
                if member["path"] == f"bundled:{name}":
                    return str(member["prompt"])
    return ""
