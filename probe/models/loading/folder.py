"""The files of a model folder, checked before transformers reads them.

transformers reads a damaged file in one of three ways: it raises an error from deep inside, it fills in defaults (a
generation config that is not JSON is dropped, and with it the tokens that end an answer), or it never returns.
"""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from probe.errors import ProbeError
from probe.files import read_json
from probe.models.loading.weights import headers, how_to_get, weight_files

_AGAIN = "download it again"
_TEXT, _NUMBER, _FLAG = (str, NoneType), (int, float, NoneType), (bool, NoneType)
_READ = (".json", ".jinja", ".model", ".safetensors", ".txt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

#: The types of the values that transformers uses without checking them.
_GENERATION: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), (int, list, NoneType)),
    **dict.fromkeys(("max_length", "max_new_tokens", "num_beams", "temperature", "top_k", "top_p"), _NUMBER),
}
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_TOKENIZER: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("tokenizer_class", "padding_side", "truncation_side"), _TEXT),
    **dict.fromkeys(_SPECIAL, (str, dict, NoneType)),
    **dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), (list, dict, NoneType)),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces"), _FLAG),
    "added_tokens_decoder": (dict, NoneType),
    "chat_template": (str, list, dict, NoneType),
    "model_max_length": _NUMBER,
}


def check_folder(path: Path) -> None:
    """Refuse a folder that holds no whole model.

    Raises:
        ProbeError: if a file is missing or is not what it should be; the message names the file.
    """
    if not path.is_dir():
        raise ProbeError(f"there is no model folder {path}")
    for file in path.iterdir():
        if file.suffix in _READ and file.is_symlink() and not file.exists():
            raise ProbeError(f"{file} is a link to a file that does not exist; {_AGAIN}")
    if not (path / "config.json").exists():
        raise ProbeError(f"the folder {path} holds no model: it has no config.json")
    config = _read(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ProbeError(f"{path / 'config.json'} names no model_type; {_AGAIN}")
    _check_types(path / "config.json", config, {"quantization_config": (dict, NoneType)})
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ProbeError(f"the model folder {path} has no tokenizer.json")
    if not (path / "tokenizer.json").exists() and (path / "vocab.json").exists() and not (path / "merges.txt").exists():
        raise ProbeError(f"the model folder {path} has a vocab.json without its merges.txt; download both again")
    for name in ("tokenizer.json", "vocab.json", "special_tokens_map.json"):
        if (path / name).exists():
            _read(path / name)
    if (template := path / "chat_template.jinja").is_file():
        try:
            template.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ProbeError(f"{template} is not UTF-8 text (byte {error.start}); {_AGAIN}") from None
    if (path / "tokenizer_config.json").exists():
        _check_tokenizer(path / "tokenizer_config.json")
    if (path / "generation_config.json").exists():
        _check_types(path / "generation_config.json", _read(path / "generation_config.json"), _GENERATION)
    # A model with fewer weights than layers would be built block by block before anyone noticed.
    weights = sum(1 for _ in headers(weight_files(path)))
    for part in (config, config.get("text_config")):
        _check_layers(path / "config.json", part, weights)


def _read(path: Path) -> Mapping[str, Any]:
    found = read_json(path, fix=how_to_get(path))
    if not isinstance(found, dict):
        raise ProbeError(f"{path} must hold a JSON object, not {type(found).__name__}; {_AGAIN}")
    return found


def _check_types(path: Path, found: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    for key, value in found.items():
        allowed = types.get(key)
        # Python counts a bool as an int, but here it is a mistake.
        if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
            kinds = " or ".join("null" if kind is NoneType else kind.__name__ for kind in allowed)
            raise ProbeError(f"{path}: {key} is {str(value)[:40]!r}, and must be {kinds}; {_AGAIN}")


def _check_tokenizer(path: Path) -> None:
    found = _read(path)
    _check_types(path, found, _TOKENIZER)
    several = [found.get(key) or () for key in ("additional_special_tokens", "extra_special_tokens")]
    tokens = [token for group in several for token in (group.values() if isinstance(group, dict) else group)]
    tokens += [found[key] for key in _SPECIAL if found.get(key) is not None]
    added = found.get("added_tokens_decoder") or {}
    for token in (*tokens, *added.values()):
        if not isinstance(token.get("content") if isinstance(token, dict) else token, str):
            raise ProbeError(f"{path} has a special token that is no text: {str(token)[:40]}; {_AGAIN}")
    if wrong := [key for key in added if not key.isdecimal()]:
        raise ProbeError(f"{path}: {wrong[0]!r} in added_tokens_decoder is no token id; {_AGAIN}")
    for key in ("padding_side", "truncation_side"):
        if found.get(key) not in (None, "left", "right"):
            raise ProbeError(f"{path}: {key} is {found[key]!r}, and must be left or right; {_AGAIN}")


def _check_layers(path: Path, part: object, weights: int) -> None:
    for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        asked = part.get(key) if isinstance(part, dict) else None
        if isinstance(asked, int) and asked > weights:
            raise ProbeError(f"{path} asks for {asked} layers, but the folder holds only {weights} weights; {_AGAIN}")
