"""Adapters of PEFT as people have them: every kind on a tiny model, with random weights, saved to a folder."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

KINDS = ("lora", "dora", "rslora", "ia3", "loha", "lokr", "oft", "vera", "saved", "tokens", "embedding", "pissa")


def settings_of(kind: str, modules: tuple[str, ...] = ("q_proj", "down_proj")) -> Any:
    """PEFT's settings for a kind of adapter."""
    import peft

    own = {"target_modules": list(modules), "task_type": "CAUSAL_LM"}
    made = {
        "lora": lambda: peft.LoraConfig(r=4, **own),
        "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **own),
        "rslora": lambda: peft.LoraConfig(r=4, use_rslora=True, **own | {"target_modules": "all-linear"}),
        "ia3": lambda: peft.IA3Config(feedforward_modules=["down_proj"], **own),
        "loha": lambda: peft.LoHaConfig(r=4, **own),
        "lokr": lambda: peft.LoKrConfig(r=4, **own),
        "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, **own | {"target_modules": ["q_proj"]}),
        "vera": lambda: peft.VeraConfig(r=4, **own | {"target_modules": ["q_proj"]}),
        "saved": lambda: peft.LoraConfig(r=4, modules_to_save=["embed_tokens", "lm_head"], **own),
        "tokens": lambda: peft.LoraConfig(r=4, trainable_token_indices=[5, 6], **own),
        "embedding": lambda: peft.LoraConfig(r=4, **own | {"target_modules": ["q_proj", "embed_tokens"]}),
        "pissa": lambda: peft.LoraConfig(r=4, init_lora_weights="pissa", **own),
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    }
    return made[kind]()


def make_adapter(base: str | Path, folder: Path, kind: str = "lora", *, size: float = 0.05, seed: int = 0) -> Path:
    """Write a random adapter on a model to a folder, as PEFT saves it.

    Args:
        base: the folder of the model.
        size: standard deviation of what is added to the adapter's first weights.
    """
    from peft import get_peft_model

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")  # PEFT warns of its own ways
        torch.manual_seed(seed)
        wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), settings_of(kind))
        for tensor in wrapped.parameters():
            if tensor.requires_grad:
                tensor.add_(torch.randn_like(tensor) * size)
        wrapped.peft_config["default"].base_model_name_or_path = str(base)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def peft_logits(base: str | Path, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What PEFT itself computes with an adapter."""
    from peft import PeftModel

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        hf = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(base)), str(folder)).eval()
        return hf(input_ids=ids).logits


def copied(folder: Path, to: Path) -> Path:
    """A copy of a folder that a test may damage."""
    return shutil.copytree(folder, to)


def put_in_cache(cache: Path, name: str, folder: Path, commit: str) -> None:
    """Put a folder into a cache of the hub, as the default branch of a repository."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def extract_adapter(base: str | Path, tuned: str | Path, folder: Path, rank: int = 32) -> Path:
    """Write the difference of two models on their linear layers as a LoRA, as ``mergekit-extract-lora`` does.

    Args:
        rank: the number of singular vectors of each layer's difference that are kept.
    """
    from peft import LoraConfig, get_peft_model

    hf, other = (AutoModelForCausalLM.from_pretrained(str(each)) for each in (base, tuned))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(hf, config)
        for name, layer in wrapped.get_base_model().named_modules():
            if hasattr(layer, "lora_A"):
                added = other.get_submodule(name).weight - layer.base_layer.weight
                u, s, v = torch.linalg.svd(added, full_matrices=False)
                layer.lora_B["default"].weight.copy_(u[:, :rank] * s[:rank])
                layer.lora_A["default"].weight.copy_(v[:rank])
        wrapped.peft_config["default"].base_model_name_or_path = str(base)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
