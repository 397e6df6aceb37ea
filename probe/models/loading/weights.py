"""The weights of a model folder: found and compared with the config by their headers, before they are read."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights

from probe.errors import ProbeError
from probe.files import read_json

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMBER = re.compile(r"\.\d+\.")


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a model folder that transformers reads.

    Raises:
        ProbeError: if there are none, or one of them is missing.
    """
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    if (path / _INDEX).is_file():
        return _shards(path)
    others = sorted(file.name for file in path.glob("*.safetensors") if file.is_file())
    if not others:
        pickles = [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]
        more = f", only {pickles[0].name}, which probe does not read; save the model as safetensors" if pickles else ""
        raise ProbeError(f"the model folder {path} has no weights (*.safetensors){more}")
    if len(others) > 1:
        raise ProbeError(f"the model folder {path} has {len(others)} files of weights and no {_INDEX}; download it")
    raise ProbeError(f"the model folder {path} has no weights named {_SINGLE}, only {others[0]}")


def _shards(path: Path) -> list[Path]:
    index = read_json(path / _INDEX, fix=how_to_get(path / _INDEX))
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ProbeError(f"{path / _INDEX} has no weight_map of names to files; download it again")
    if not isinstance(index.get("metadata"), dict):
        raise ProbeError(f"{path / _INDEX} has no metadata, which transformers needs; download it again")
    names = sorted(set(named.values()))
    if missing := [name for name in names if not (path / name).is_file()]:
        raise ProbeError(
            f"{len(missing)} of {len(names)} files of weights in {path} are missing, the first is {missing[0]}; "
            "download the model again"
        )
    return [path / name for name in names]


def how_to_get(file: Path) -> str:
    """Say how to get a damaged file of a model whole, as the end of an error message."""
    try:
        with file.open("rb") as raw:
            pointer = raw.read(40).startswith(b"version https://git-lfs")
    except OSError:
        pointer = False
    return "it is a pointer of git-lfs, so run: git lfs pull" if pointer else "download it again"


def headers(files: Iterable[Path]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Read the name, shape and dtype of every tensor of some safetensors files.

    Raises:
        ProbeError: if a file is damaged or incomplete.
    """
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                    part = opened.get_slice(name)
                    yield name, tuple(part.get_shape()), part.get_dtype()
        except (OSError, SafetensorError) as error:
            raise ProbeError(f"the weights {file} cannot be read ({error}); {how_to_get(file)}") from error


def check_weights(files: Iterable[Path], config: PretrainedConfig, model: str) -> None:
    """Compare the headers of a model's weights with its config.

    Weights that only transformers can match, because it renames them, are left to it.

    Args:
        files: the safetensors files.
        config: the config of an unquantised model.
        model: the name of the model in error messages.

    Raises:
        ProbeError: if a weight has another shape than the config asks for, or holds no floating-point numbers.
    """
    with torch.device("meta"), no_init_weights():
        built: Any = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in built.named_parameters(remove_duplicate=False)}
    for name, shape, dtype in headers(files):
        full = name if name in wanted else f"{built.base_model_prefix}.{name}"
        if full not in wanted:
            continue
        if shape != wanted[full]:
            raise ProbeError(
                f"{name} of '{model}' has shape {list(shape)}, but its config asks for {list(wanted[full])}"
            )
        if dtype not in _FLOATS:
            raise ProbeError(
                f"{name} of '{model}' holds {dtype} numbers, and its config names no quantisation; "
                "use the model's unquantised weights"
            )


def misplaced(unused: Iterable[str], own: Iterable[str]) -> list[str]:
    """Return the unused weights that belong to a model's blocks: the checkpoint is another model's.

    Unused weights elsewhere, such as those of a vision tower that a text model leaves out, are nothing wrong.

    Args:
        unused: names of weights for which the model has no place.
        own: names of the model's weights.
    """
    blocks = {parts[0] for name in own if len(parts := _NUMBER.split(name, maxsplit=1)) > 1}
    return sorted(name for name in unused if name.endswith("weight") and _NUMBER.split(name, maxsplit=1)[0] in blocks)
