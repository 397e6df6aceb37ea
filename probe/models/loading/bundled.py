"""The models and pairs that ship with probe: in ``artifacts/`` of a clone, in ``probe/_bundled/`` of a wheel."""

from pathlib import Path

from probe.config import from_dict, nearest, read_yaml
from probe.errors import ProbeError
from probe.files import located
from probe.models.config import PairConfig
from probe.models.loading.shipped import bundled_folders

_PUBLISHED = Path(__file__).resolve().parents[1] / "pairs"
"""Folder of the published pairs: a YAML file each, named like the pair."""


def find_pair(name: str | Path) -> PairConfig:
    """Read the settings of a pair.

    Args:
        name: the name of a bundled or published pair, or the path of a YAML file.

    Raises:
        ProbeError: if there is no such pair, or its YAML is wrong.
    """
    return _read_pair(pair_file(name))


def list_pairs() -> list[PairConfig]:
    """Return the settings of the bundled and the published pairs, sorted by name."""
    return [_read_pair(file) for _, file in sorted(_pair_files().items())]


def pair_file(name: str | Path) -> Path:
    """Return the YAML file of a pair.

    Args:
        name: the name of a bundled or published pair, or the path of a YAML file, which is returned.

    Raises:
        ProbeError: if there is no pair of that name; the message suggests the nearest name.
    """
    name = str(name)
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    files = _pair_files()
    if name not in files:
        raise ProbeError(f"unknown pair '{name}'; {nearest(name, files)}")
    return files[name]


def _pair_files() -> dict[str, Path]:
    """The file of each pair that ships with probe, by the pair's name."""
    bundled = {name: folder / "pair.yaml" for name, folder in bundled_folders().items()}
    return {file.stem: file for file in _PUBLISHED.glob("*.yaml")} | {
        name: file for name, file in bundled.items() if file.is_file()
    }


def _read_pair(path: Path) -> PairConfig:
    return from_dict(PairConfig, located(read_yaml(path), path.parent), str(path))
