"""How many parameters the models of a pair have and how much memory their weights take; nothing is downloaded."""

import json
import math
from pathlib import Path

from probe.errors import ProbeError
from probe.models.config import ModelConfig, PairConfig
from probe.models.loading.shipped import bundled_folder, bundled_folders


def parameter_counts(pair: PairConfig) -> tuple[int | None, int | None]:
    """Return the numbers of parameters of the base and the thinking model.

    Those of a published pair are among its facts; those of a folder are counted in the headers of its safetensors
    files. None: the model is neither, or an adapter by its own path.

    Raises:
        ProbeError: if a file of weights is damaged.
    """
    if pair.published is not None:
        return pair.published.base.parameters, pair.published.thinking.parameters
    return _counted(pair.base), _counted(pair.thinking)


def weights_memory(pair: PairConfig, *, bytes_each: int = 2) -> int | None:
    """Return the bytes that the weights of a pair take, activations and caches not counted.

    Two members with the same weights, or with an adapter that is switched on for each pass, are loaded once.

    Args:
        pair: the pair.
        bytes_each: bytes of a number: 2 in bfloat16 and float16, 4 in float32.

    Returns:
        The bytes; None if the number of parameters of a model is not known.
    """
    base, thinking = parameter_counts(pair)
    if base is None or thinking is None:
        return None
    return bytes_each * (max(base, thinking) if _shared(pair.base, pair.thinking) else base + thinking)


def _shared(base: ModelConfig, thinking: ModelConfig) -> bool:
    """Whether two models share their weights, up to adapters that are switched on for each pass."""
    same = (base.path, base.revision) == (thinking.path, thinking.revision)
    adapters = {(member.adapter, member.adapter_revision) for member in (base, thinking)}
    merged = any(member.adapter is not None and member.merge for member in (base, thinking))
    return same and (len(adapters) == 1 or not merged)


def _counted(model: ModelConfig) -> int | None:
    name = model.path.removeprefix("bundled:")
    bundled = model.path.startswith("bundled:") or name in bundled_folders()
    folder = bundled_folder(name) if bundled else Path(model.path).expanduser()
    if (folder / "adapter_config.json").is_file():
        return None  # of its base, which may not be here
    return sum(map(_numbers, sorted(folder.glob("*.safetensors")))) or None


def _numbers(file: Path) -> int:
    """The numbers in a safetensors file, by its header: eight bytes of its length, then JSON."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, file.stat().st_size)))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        raise ProbeError(f"the weights {file} cannot be read; download them again") from None
