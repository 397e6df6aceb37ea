"""The models and pairs that ship with probe: in ``artifacts/`` of a clone, in ``probe/_bundled/`` of a wheel."""

from pathlib import Path

from probe.config import from_dict, nearest, read_yaml
from probe.errors import ProbeError
from probe.files import located
from probe.models.config import PairConfig
from probe.models.loading.shipped import bundled_folders


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
