"""The models and pairs that ship with probe: in ``artifacts/`` of a clone, in ``probe/_bundled/`` of a wheel."""

from pathlib import Path

from probe.config import from_dict, nearest, read_yaml
from probe.errors import ProbeError
from probe.files import located
from probe.models.config import PairConfig

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


def find_pair(name: str | Path) -> PairConfig:
    """Read the settings of a pair.

    Args:
        name: the name of a bundled pair, or the path of a YAML file.

    Raises:
        ProbeError: if there is no such pair, or its YAML is wrong.
    """
    name = str(name)
    if name.endswith((".yaml", ".yml")):
        return _read_pair(Path(name).expanduser())
    pairs = {pair.name: pair for pair in list_pairs()}
    if name not in pairs:
        raise ProbeError(f"unknown pair '{name}'; {nearest(name, pairs)}")
    return pairs[name]


def list_pairs() -> list[PairConfig]:
    """Return the settings of the pairs that ship with probe, sorted by name."""
    files = [folder / "pair.yaml" for folder in bundled_folders().values()]
    return [_read_pair(file) for file in files if file.is_file()]


def _read_pair(path: Path) -> PairConfig:
    return from_dict(PairConfig, located(read_yaml(path), path.parent), str(path))
