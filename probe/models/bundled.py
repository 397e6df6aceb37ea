"""Where the models and pairs that ship with probe lie: ``artifacts/`` in a clone, ``probe/_bundled/`` in a wheel."""

from pathlib import Path

from probe._config import nearest
from probe._errors import ProbeError

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE.parent / "artifacts", _PACKAGE / "_bundled")


def bundled_folders() -> dict[str, Path]:
    """Every bundled folder by name, sorted; a clone's comes before a wheel's of the same name."""
    folders = [folder for root in reversed(_ROOTS) if root.is_dir() for folder in root.iterdir() if folder.is_dir()]
    return dict(sorted((folder.name, folder) for folder in folders))


def bundled_folder(name: str) -> Path:
    """The folder of the bundled model or pair called ``name``.

    Raises:
        ProbeError: if nothing of that name is bundled; the nearest name is given.
    """
    folders = bundled_folders()
    if name not in folders:
        raise ProbeError(f"nothing bundled is called '{name}'; {nearest(name, folders)}")
    return folders[name]
