"""Writes adapters for other software: canonical PEFT folders, merged models, and GGUF files for llama.cpp."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from probe.adapters.exports.attach import WEIGHTS, check_fits, lora_tensors
from probe.adapters.quiet import quiet_peft
from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model, seeded
from probe.steering import FixedVectors, Mechanism

#: llama.cpp's name of the architecture whose query and key rows its converter reorders.
_PERMUTED = "llama"


def canonical(folder: str | Path, out: str | Path) -> Path:
    """Write an adapter in a form that PEFT, vLLM and llama.cpp all read alike.

    The scale is folded into B, all modules have the same rank, and ``lora_alpha`` equals ``r``. (vLLM ignores
    ``rank_pattern`` and ``alpha_pattern``; llama.cpp ignores those and ``use_rslora``.) Modules that add nothing are
    left out.

    Args:
        folder: the adapter.
        out: the folder that is written.

    Raises:
        ProbeError: if ``folder`` holds no LoRA.
    """
    folder, out = Path(folder), Path(out)
    config, tensors = read_json(folder / "adapter_config.json"), lora_tensors(folder)
    pairs = {name: folded(name, tensors, config) for name in _modules(tensors)}
    kept = {name: (a, b) for name, (a, b) in pairs.items() if a.any() and b.any()} or dict(list(pairs.items())[:1])
    rank = max(a.shape[0] for a, _ in kept.values())
    made = {}
    for name, (a, b) in kept.items():
        made[f"{name}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, rank - a.shape[0])).contiguous()
        made[f"{name}.lora_B.weight"] = torch.nn.functional.pad(b, (0, rank - b.shape[1])).contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(made, out / WEIGHTS, {"format": "pt"})
    plain = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    targets = sorted(name.removeprefix("base_model.model.") for name in kept)
    write_json(out / "adapter_config.json", {**config, **plain, "lora_dropout": 0.0, "target_modules": targets})
    if (folder / CARD).exists() and folder.resolve() != out.resolve():
        write_json(out / CARD, read_json(folder / CARD))
    return out


def folded(
    module: str, tensors: dict[str, Tensor], config: dict[str, Any]
) -> tuple[Float[Tensor, "rank inputs"], Float[Tensor, "outputs rank"]]:
    """A and B of one module in float32, with PEFT's scale folded into B.

    Args:
        module: the module's name in ``tensors``.
        tensors: from :func:`~probe.adapters.lora_tensors`.
        config: ``adapter_config.json``.
    """
    a, b = (tensors[f"{module}.lora_{side}.weight"].float() for side in "AB")
    name = module.removeprefix("base_model.model.")
    alphas = config.get("alpha_pattern") or {}
    alpha = next((alphas[key] for key in alphas if name == key or name.endswith(f".{key}")), config["lora_alpha"])
    rank = a.shape[0]
    return a, b * alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def merged(model: Model, folder: str | Path, out: str | Path) -> Path:
    """Write a model with an adapter merged into its weights, and its tokenizer.

    Args:
        model: the base model, which is not changed.
        folder: the adapter.
        out: the folder that is written.

    Raises:
        ProbeError: if the adapter does not fit the model.
    """
    from peft import PeftModel  # slow to import

    folder, out = Path(folder), Path(out)
    check_fits(model, folder)
    with quiet_peft(), seeded(0):
        whole = PeftModel.from_pretrained(copy.deepcopy(model.hf).float(), str(folder)).merge_and_unload()
    whole.to(model.dtype).save_pretrained(str(out))
    model.tokenizer.save_pretrained(str(out))
    return out


def gguf_lora(model: Model, folder: str | Path, out: str | Path) -> Path:
    """Write an adapter for llama.cpp (``--lora``), with the tensors that its own converter writes.

    Args:
        model: the base model, whose architecture decides the names of the tensors.
        folder: the adapter.
        out: the file that is written.

    Raises:
        ProbeError: if the adapter does not fit the model, llama.cpp does not know the architecture or one of its
            modules, or the package gguf is not installed.
    """
    folder, out = Path(folder), Path(out)
    check_fits(model, folder)
    gguf = _gguf()
    config, tensors = read_json(folder / "adapter_config.json"), lora_tensors(folder)
    arch, names = _names(gguf, model)
    made: dict[str, Tensor] = {}
    for module in _modules(tensors):
        path = module.removeprefix("base_model.model.")
        name = names.get_name(path)
        if name is None:
            raise ProbeError(f"llama.cpp has no name for {path} of {model.name}")
        a, b = folded(module, tensors, config)
        heads = _heads(model, path) if arch == _PERMUTED else None
        made[f"{name}.weight.lora_a"] = a
        made[f"{name}.weight.lora_b"] = b if heads is None else _rotary_rows(b, heads)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(out), arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / rank; 0 means no scaling, since the scale is in B already.
    writer.add_float32("adapter.lora.alpha", 0.0)
    return _write(writer, made, out)


def peft_of_gguf(model: Model, path: str | Path, out: str | Path) -> Path:
    """Convert a LoRA file of llama.cpp into a PEFT folder.

    Args:
        model: the base model, whose architecture decides the names of the tensors.
        path: the GGUF file.
        out: the folder that is written.

    Raises:
        ProbeError: if the file is not a GGUF LoRA for this architecture.
    """
    gguf, out = _gguf(), Path(out)
    try:
        reader = gguf.GGUFReader(str(path))
    except (ValueError, OSError) as error:
        raise ProbeError(f"{path} is not a GGUF file ({error})") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    arch, names = _names(gguf, model)
    if fields.get("adapter.type") != "lora" or fields.get("general.architecture") != arch:
        raise ProbeError(f"{path} is not a LoRA for a {arch} model")
    paths = {names.get_name(name): name for name, module in model.hf.named_modules() if hasattr(module, "weight")}
    made: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        name, _, side = tensor.name.rpartition(".weight.lora_")
        value = torch.from_numpy(tensor.data.copy()).float()
        if side == "b":
            heads = _heads(model, paths[name]) if arch == _PERMUTED else None
            alpha = fields["adapter.lora.alpha"]
            value = (value if heads is None else _halves(value, heads)) * (alpha / value.shape[1] if alpha else 1.0)
        made[f"base_model.model.{paths[name]}.lora_{side.upper()}.weight"] = value.contiguous()
    rank = max(value.shape[0] for name, value in made.items() if ".lora_A." in name)
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "target_modules": sorted({name.removeprefix("base_model.model.") for name in _modules(made)}),
        "fan_in_fan_out": False,
        "base_model_name_or_path": str(model.config.path),
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(made, out / WEIGHTS, {"format": "pt"})
    write_json(out / "adapter_config.json", about)
    return out


def gguf_control_vector(model: Model, mechanism: Mechanism, out: str | Path) -> Path:
    """Write a mechanism as a control vector of llama.cpp (``--control-vector``): one vector, added at every token.

    Args:
        model: the model that the mechanism steers.
        mechanism: one fixed, persistent vector.
        out: the file that is written.

    Raises:
        ProbeError: if the mechanism is anything else (several behaviours, a learned strength, a transient shift), or
            steers block 0, which llama.cpp cannot.
    """
    if not isinstance(mechanism, FixedVectors) or mechanism.n_behaviours != 1:
        raise ProbeError(
            f"a control vector is one vector added at every token; this is a {type(mechanism).__name__} of "
            f"{mechanism.n_behaviours} behaviours: keep it in safetensors"
        )
    if not mechanism.persistent:
        raise ProbeError(
            "this vector is transient, and a control vector changes what all later tokens see: learn it with "
            "persistent=True"
        )
    if mechanism.layer == 0:
        raise ProbeError("llama.cpp cannot steer block 0: learn the vector at a higher layer")
    gguf, out = _gguf(), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(out), "controlvector")
    writer.add_string("controlvector.model_hint", str(model.hf.config.model_type))
    writer.add_uint32("controlvector.layer_count", model.n_layers)
    return _write(writer, {f"direction.{mechanism.layer}": mechanism.vectors[0]}, out)


def _write(writer: Any, tensors: dict[str, Tensor], out: Path) -> Path:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.detach().cpu().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise ProbeError("GGUF files need the package gguf: pip install 'probe-interp[gguf]'") from None
    return gguf


def _names(gguf: Any, model: Model) -> tuple[str, Any]:
    """llama.cpp's name of the architecture, and its map of tensor names."""
    kind = {"mistral": "llama"}.get(model.hf.config.model_type, model.hf.config.model_type).replace("_text", "")
    arch = next((number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), None)
    if arch is None:
        raise ProbeError(f"llama.cpp does not know {model.hf.config.model_type} models")
    return kind, gguf.get_tensor_name_map(arch, model.n_layers)


def _heads(model: Model, path: str) -> int | None:
    config = model.hf.config.get_text_config()
    if path.endswith("q_proj"):
        return config.num_attention_heads
    return (config.num_key_value_heads or config.num_attention_heads) if path.endswith("k_proj") else None


def _rotary_rows(b: Float[Tensor, "outputs rank"], heads: int) -> Float[Tensor, "outputs rank"]:
    """Rows in llama.cpp's order: the two halves of each head interleaved, as its rotary embedding pairs them."""
    outputs, rank = b.shape
    return b.view(heads, 2, outputs // heads // 2, rank).transpose(1, 2).reshape(outputs, rank)


def _halves(b: Float[Tensor, "outputs rank"], heads: int) -> Float[Tensor, "outputs rank"]:
    """The inverse of :func:`_rotary_rows`."""
    outputs, rank = b.shape
    return b.view(heads, outputs // heads // 2, 2, rank).transpose(1, 2).reshape(outputs, rank)


def _modules(tensors: dict[str, Tensor]) -> list[str]:
    return sorted({name.rpartition(".lora_")[0] for name in tensors})
