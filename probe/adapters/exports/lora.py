"""Reads and checks LoRA folders, before PEFT or a model sees them.

PEFT rebuilds an adapter from its ``adapter_config.json``, and some settings there change the base model, add parts that
other software ignores, or leave tensors of the file out. Only what every reader understands alike is read here: for
each linear layer A, B and a scale.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model, fingerprint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

#: Initialisations of PEFT that leave the base model's weights alone.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
#: Settings of PEFT that change what an adapter does beyond A, B and a scale.
_FEATURES = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "lora_bias",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "ensure_weight_tying",
)
#: Settings that are true, a list or a dict in an ordinary LoRA.
_ORDINARY = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "fan_in_fan_out", "inference_mode", "init_lora_weights", "auto_mapping", "runtime_config"),
    *("eva_config", "corda_config", "lora_ga_config", "loftq_config"),
)


@dataclass(frozen=True, repr=False)
class Part:
    """What a LoRA adds to one linear layer: ``scale · B(A(x))``."""

    a: Float[Tensor, "rank inputs"]
    b: Float[Tensor, "outputs rank"]
    scale: float = 1.0

    @property
    def folded(self) -> tuple[Float[Tensor, "rank inputs"], Float[Tensor, "outputs rank"]]:
        """A and B in float32, with the scale in B."""
        return self.a.float(), self.b.float() * self.scale

    @property
    def rank(self) -> int:
        """The rank."""
        return self.a.shape[0]

    def padded(self, rank: int) -> "Part":
        """The same in float32 with a scale of one and a rank that is at least as large."""
        a, b = self.folded
        more = rank - self.rank
        return Part(nn.functional.pad(a, (0, 0, 0, more)), nn.functional.pad(b, (0, more)))


@dataclass(frozen=True, repr=False)
class LoRA:
    """A LoRA as its folder says it.

    Attributes:
        folder: the folder.
        config: ``adapter_config.json``.
        parts: by the full name of the linear layer.
    """

    folder: Path
    config: Mapping[str, Any]
    parts: Mapping[str, Part]

    def __repr__(self) -> str:
        return f"LoRA({str(self.folder)!r}, {len(self.parts)} linear layers)"


def read_lora(folder: str | Path) -> LoRA:
    """Read a LoRA.

    Raises:
        ProbeError: if the folder holds no LoRA, a damaged one, or one that does more than add ``scale · B(A(x))``.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ProbeError(f"{folder} holds no adapter: PEFT writes {CONFIG} and {WEIGHTS}")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise ProbeError(f"{folder / CONFIG} is not a JSON object: copy the folder again")
    _check_plain(config, folder)
    tensors = _tensors(folder)
    parts = {}
    for name in sorted({name for name, _ in tensors}):
        a, b = tensors.get((name, "A")), tensors.get((name, "B"))
        a, b = checked_pair(a, b, name, folder / WEIGHTS)
        rank, scale = _rank_and_scale(config, name, folder)
        if rank != len(a):
            raise ProbeError(f"{folder} has rank {len(a)} for {name}, and its {CONFIG} says {rank}: copy it again")
        if not _named(config, name, folder):
            raise ProbeError(f"{folder} has a LoRA for {name}, which the target_modules of its {CONFIG} leave out")
        parts[name] = Part(a, b, scale)
    return LoRA(folder, config, parts)


def checked_pair(a: Tensor | None, b: Tensor | None, name: str, path: Path) -> tuple[Tensor, Tensor]:
    """A and B of a layer, as they are in a file.

    Raises:
        ProbeError: if one is missing, they are of different ranks, or they have numbers that are not finite.
    """
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not len(a):
        raise ProbeError(f"{path} has no A and B of the same rank for {name}: copy it again")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ProbeError(f"{path} has numbers for {name} that are not finite: train the adapter again")
    return a, b


def lora_tensors(folder: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a LoRA, by PEFT's names.

    Raises:
        ProbeError: as :func:`read_lora`.
    """
    return tensors_of(read_lora(folder).parts)


def tensors_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """The tensors of some parts, by PEFT's names; their scales are left out."""
    return {
        f"{_PREFIX}{name}.lora_{side}.weight": t for name, p in parts.items() for side, t in (("A", p.a), ("B", p.b))
    }


def write_lora(parts: Mapping[str, Part], out: str | Path, about: Mapping[str, Any]) -> LoRA:
    """Write a LoRA with one rank and a scale of one for all layers, read it again and compare.

    Args:
        out: the folder that is written.
        about: more for ``adapter_config.json``: ``fan_in_fan_out``, ``base_model_name_or_path`` and the like.

    Returns:
        What was read again.

    Raises:
        ProbeError: if it is not what was written.
    """
    out, rank = Path(out), max(part.rank for part in parts.values())
    padded = {name: part.padded(rank) for name, part in parts.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors_of(padded).items()}, out / WEIGHTS, {"format": "pt"})
    plain = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted(padded),
    }
    write_json(out / CONFIG, {**about, **plain})
    again = read_lora(out)
    check_same(again.parts, padded, out)
    return again


def check_same(found: Mapping[str, Part], wanted: Mapping[str, Part], path: Path) -> None:
    """Check that a file that was written adds exactly what was to be written.

    Raises:
        ProbeError: naming the first layer that differs.
    """
    for name in sorted({*found, *wanted}):
        same = name in found and name in wanted
        pairs = zip(found[name].folded, wanted[name].folded, strict=True) if same else ()
        if not same or not all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs):
            raise ProbeError(f"{path} was written, but read again it differs at {name}: report this, and do not use it")


def check_fits(model: Model, adapter: LoRA, *, foreign: bool = False) -> None:
    """Check that an adapter fits a model.

    Args:
        foreign: accept other weights and another tokenizer, if the shapes are the same.

    Raises:
        ProbeError: saying what differs.
    """
    folder, modules = adapter.folder, dict(model.hf.named_modules())
    for name, part in adapter.parts.items():
        if name not in modules:
            raise ProbeError(f"{folder} adapts {name}, which {model.name} does not have")
        module = getattr(modules[name], "base_layer", modules[name])
        if not isinstance(module, nn.Linear | Conv1D):
            raise ProbeError(f"{folder} adapts {name}, which is no linear layer of {model.name}")
        there = tuple(module.weight.shape) if isinstance(module, Conv1D) else (module.in_features, module.out_features)
        for size, right in ((part.a.shape[1], there[0]), (part.b.shape[0], there[1])):
            if size != right:
                raise ProbeError(
                    f"{folder} has {name} {size} wide; in {model.name} it is {' × '.join(map(str, there[::-1]))}"
                )
    if (folder / CARD).exists():
        _check_trained_on(model, folder, foreign=foreign)


def shares_embedding(hf: Any, layer: nn.Module | None) -> bool:
    """Whether a layer is the output layer of a model whose embedding has the same weights."""
    return (
        layer is not None and layer is hf.get_output_embeddings() and layer.weight is hf.get_input_embeddings().weight
    )


def block_of(path: str) -> int | None:
    """The number of the block that a module is in, by its name; None outside of the blocks."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def _check_trained_on(model: Model, folder: Path, *, foreign: bool) -> None:
    card, compared = read_json(folder / CARD), ("architecture", "shapes", "tokenizer", "weights")
    trained_on = card.get("base") if isinstance(card, dict) else None
    if not isinstance(trained_on, dict) or not set(compared) <= set(trained_on):
        raise ProbeError(f"{folder / CARD} does not say which model the adapter is for: copy the folder again")
    here = fingerprint(model)
    differ = [what for what in compared if trained_on[what] != here[what]]
    if "architecture" in differ or "shapes" in differ:
        raise ProbeError(
            f"{folder} is for a {trained_on['architecture']} whose shapes differ from those of {model.name}"
        )
    if differ and not foreign:
        raise ProbeError(
            f"{folder} was trained on a model whose {' and '.join(differ)} differ from those of {model.name}; "
            "pass foreign=True to attach it nevertheless"
        )


def _check_plain(config: dict[str, Any], folder: Path) -> None:
    """Refuse what is no LoRA, or a LoRA with a setting that does more than add ``scale · B(A(x))``."""
    if config.get("peft_type") != "LORA":
        raise ProbeError(
            f"{folder} holds an adapter that is not a plain LoRA (its peft_type is {config.get('peft_type')!r}); only "
            "LoRAs can be attached and exported"
        )
    start = config.get("init_lora_weights")
    if not any(start is each or (isinstance(start, str) and start == each) for each in _PLAIN_STARTS):
        raise ProbeError(
            f"{folder} has init_lora_weights {start!r}, with which PEFT changes the base model's weights: save it as a "
            "plain LoRA, with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    if config.get("bias") not in (None, "none"):
        raise ProbeError(f"{folder} has bias {config['bias']!r}, and a plain LoRA has none: it cannot be attached")
    for name, value in config.items():
        used = bool(value) if name in _FEATURES else value is True or (isinstance(value, dict | list) and bool(value))
        if used and name not in _ORDINARY:
            raise ProbeError(f"{folder} is not a plain LoRA: it uses {name}, and only plain LoRAs can be attached")


def _tensors(folder: Path) -> dict[tuple[str, str], Tensor]:
    """The tensors by the name of their layer and their side."""
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ProbeError(f"{folder / WEIGHTS} is damaged ({error}): copy it again") from error
    found = {name: _TENSOR.fullmatch(name) for name in tensors}
    if other := [name for name, match in found.items() if match is None]:
        raise ProbeError(
            f"{folder} holds an adapter that is not a plain LoRA: it has {other[0]} (embeddings are left out by "
            "save_pretrained(..., save_embedding_layers=False))"
        )
    if not found:
        raise ProbeError(f"{folder / WEIGHTS} is damaged (it has no tensor): copy it again")
    return {(match[1], match[2]): tensors[name] for name, match in found.items() if match is not None}


def _rank_and_scale(config: dict[str, Any], name: str, folder: Path) -> tuple[int, float]:
    """The rank and the scale of one layer; PEFT's patterns are regular expressions for the end of a name."""

    def setting(what: str, pattern: str, default: int) -> Any:
        patterns = config.get(pattern) or {}
        if not isinstance(patterns, dict):
            raise ProbeError(f"{folder / CONFIG} has {pattern} {patterns!r}, which is no table of names")
        key = next((key for key in patterns if _matches(rf"(.*\.)?({key})$", name, folder, whole=False)), None)
        value = config.get(what, default) if key is None else patterns[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise ProbeError(f"{folder / CONFIG} has {what if key is None else pattern} {value!r}, which is no number")
        return value

    rank, alpha = setting("r", "rank_pattern", 8), setting("lora_alpha", "alpha_pattern", 8)
    if rank < 1:
        raise ProbeError(f"{folder / CONFIG} has rank {rank}; a LoRA has at least 1")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _named(config: dict[str, Any], name: str, folder: Path) -> bool:
    """Whether the settings name a layer, as PEFT reads them; it leaves out tensors of other layers in silence."""
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if config.get("exclude_modules") and _among(config["exclude_modules"], name, folder):
        return False
    if targets is not None and targets != "all-linear" and not _among(targets, name, folder):
        return False
    if layers is None or layers == [] or (isinstance(targets, list) and name in targets):
        return True
    patterns = config.get("layers_pattern") or r"[^.]*"
    starts = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(starts, list) or not all(isinstance(each, str) for each in starts):
        raise ProbeError(f"{folder / CONFIG} has layers_pattern {patterns!r}, which is no name")
    found = (_matches(rf"(?:^|.*?\.){each}\.(\d+)\.", name, folder, whole=False) for each in starts)
    match = next((match for match in found if match), None)
    return match is not None and int(match[1]) in (layers if isinstance(layers, list) else [layers])


def _among(names: Any, name: str, folder: Path) -> bool:
    """Whether PEFT finds a layer among names: a list of ends of names, or a regular expression for a whole name."""
    if isinstance(names, str):
        return _matches(names, name, folder, whole=True) is not None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ProbeError(f"{folder / CONFIG} has target_modules or exclude_modules {names!r}, which are no names")
    return any(name == each or name.endswith(f".{each}") for each in names)


def _matches(pattern: str, name: str, folder: Path, *, whole: bool) -> re.Match[str] | None:
    try:
        return re.fullmatch(pattern, name) if whole else re.match(pattern, name)
    except re.error as error:
        raise ProbeError(f"{folder / CONFIG} has {pattern!r}, which is no regular expression ({error})") from None
