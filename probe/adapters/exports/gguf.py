"""Writes and reads the files of llama.cpp: LoRA adapters and control vectors in GGUF."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from probe.adapters.exports.lora import (
    Part,
    check_fits,
    check_same,
    checked_pair,
    read_lora,
    shares_embedding,
    write_lora,
)
from probe.errors import ProbeError
from probe.models import Model
from probe.steering import FixedVectors, Mechanism

#: Models whose layout in llama.cpp is known, by transformers' ``model_type``, and their names there.
_ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "phi3": "phi3",
    "olmo2": "olmo2",
}


def gguf_lora(model: Model, folder: str | Path, out: str | Path) -> Path:
    """Write an adapter for llama.cpp (``--lora``), with the tensors that its own converter writes.

    What was written is read again and compared.

    Args:
        model: the base model, whose architecture decides the names of the tensors.
        folder: the adapter.
        out: the file that is written.

    Raises:
        ProbeError: if the adapter does not fit the model, llama.cpp does not know the architecture or one of its
            modules, or the package gguf is not installed.
    """
    folder, out = Path(folder), Path(out)
    adapter = read_lora(folder)
    check_fits(model, adapter)
    layout = _Layout.of(model)
    parts = {name: part.padded(part.rank) for name, part in adapter.parts.items()}
    made: dict[str, Tensor] = {}
    for path, part in parts.items():
        name = layout.name(path)
        made[f"{name}.weight.lora_a"] = part.a
        made[f"{name}.weight.lora_b"] = layout.rows(part.b, path)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = _gguf().GGUFWriter(str(out), layout.arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / rank; 0 means no scaling, since the scale is in B already.
    writer.add_float32("adapter.lora.alpha", 0.0)
    _write(writer, made, out)
    check_same(_parts(model, out), parts, out)
    return out


def peft_of_gguf(model: Model, path: str | Path, out: str | Path) -> Path:
    """Convert a LoRA file of llama.cpp into a PEFT folder.

    Args:
        model: the base model, whose architecture decides the names of the tensors.
        path: the GGUF file.
        out: the folder that is written.

    Raises:
        ProbeError: if the file is not a GGUF LoRA for this architecture, or is damaged.
    """
    out = Path(out)
    parts = _parts(model, Path(path))
    conv = [isinstance(model.hf.get_submodule(name), Conv1D) for name in parts]
    write_lora(parts, out, {"fan_in_fan_out": any(conv), "base_model_name_or_path": str(model.config.path)})
    return out


def _parts(model: Model, path: Path) -> dict[str, Part]:
    """The parts of a LoRA file of llama.cpp, by the names of the model's layers."""
    gguf, layout = _gguf(), _Layout.of(model)
    try:
        reader = gguf.GGUFReader(str(path))
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    except (ValueError, OSError, IndexError, KeyError, NotImplementedError) as error:
        raise ProbeError(f"{path} is not a GGUF file, or a damaged one ({error})") from error
    if fields.get("adapter.type") != "lora" or fields.get("general.architecture") != layout.arch:
        raise ProbeError(f"{path} is not a LoRA for a {layout.arch} model")
    if fields.get("adapter.alora.invocation_tokens"):
        raise ProbeError(f"{path} acts only after certain tokens (aLoRA), which a plain LoRA cannot do")
    paths = {
        layout.names.get_name(name): name for name, module in model.hf.named_modules() if hasattr(module, "weight")
    }
    alpha, found = fields.get("adapter.lora.alpha", 0.0), {}
    for name in sorted({name.rpartition(".weight.lora_")[0] for name in tensors}):
        if name not in paths:
            raise ProbeError(f"{path} has {name or 'a tensor'}, which is no layer of {model.name}")
        a, b = checked_pair(*(tensors.get(f"{name}.weight.lora_{side}") for side in "ab"), paths[name], path)
        layer: Any = model.hf.get_submodule(paths[name])
        if len(b) != layer.weight.shape[1 if isinstance(layer, Conv1D) else 0]:
            raise ProbeError(
                f"{path} has {paths[name]} {len(b)} wide, and {model.name} has another width: write it again"
            )
        scale = alpha / len(a) if alpha else 1.0
        found[paths[name]] = Part(a.float(), layout.rows(b.float(), paths[name], back=True), scale)
    if not found:
        raise ProbeError(f"{path} has no tensors: write it again")
    return found


@dataclass(frozen=True)
class _Layout:
    """How llama.cpp lays out a model: its names, and the rows that its converter reorders."""

    model: Model
    arch: str
    names: Any

    @classmethod
    def of(cls, model: Model) -> "_Layout":
        gguf, kind = _gguf(), model.hf.config.model_type
        if kind not in _ARCHITECTURES:
            raise ProbeError(f"no GGUF is written for {kind} models, only for {', '.join(_ARCHITECTURES)}: export peft")
        arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == _ARCHITECTURES[kind])
        return cls(model, _ARCHITECTURES[kind], gguf.get_tensor_name_map(arch, model.n_layers))

    def name(self, path: str) -> str:
        """llama.cpp's name of a layer."""
        if shares_embedding(self.model.hf, self.model.hf.get_submodule(path)):
            raise ProbeError(
                f"{path} of {self.model.name} shares the embedding's weights, and llama.cpp has no output layer of its "
                "own for it: merge the adapter instead, or train one without it"
            )
        name = self.names.get_name(path)
        if name is None:
            raise ProbeError(f"llama.cpp has no name for {path} of {self.model.name}")
        return str(name)

    def rows(self, b: Float[Tensor, "outputs rank"], path: str, *, back: bool = False) -> Float[Tensor, "outputs rank"]:
        """Rows of B in llama.cpp's order, or back in that of transformers."""
        config, leaf = self.model.hf.config.get_text_config(), path.rpartition(".")[-1]
        heads, rank = config.num_attention_heads, b.shape[1]
        if self.arch == "llama" and leaf in ("q_proj", "k_proj"):
            # Both halves of each head interleaved, as its rotary embedding pairs them.
            heads = heads if leaf == "q_proj" else config.num_key_value_heads or heads
            shape = (heads, -1, 2, rank) if back else (heads, 2, len(b) // heads // 2, rank)
            return b.view(shape).transpose(1, 2).reshape(b.shape)
        if self.arch == "gptneox" and leaf == "query_key_value":
            # All queries, all keys, all values, instead of head by head.
            shape = (3, heads, -1, rank) if back else (heads, 3, -1, rank)
            return b.view(shape).transpose(0, 1).reshape(b.shape)
        return b


def gguf_control_vector(model: Model, mechanism: Mechanism, out: str | Path) -> Path:
    """Write a mechanism as a control vector of llama.cpp (``--control-vector``): one vector, added at every token.

    Args:
        model: the model that the mechanism steers.
        mechanism: one fixed, persistent vector.
        out: the file that is written.

    Raises:
        ProbeError: if the mechanism is anything else (several behaviours, a learned strength, a transient shift), or
            steers block 0, which llama.cpp cannot do.
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
