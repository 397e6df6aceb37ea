"""Puts a LoRA of PEFT on a model for a block; afterwards the model is as before, also if PEFT fails half way."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from probe.errors import ProbeError
from probe.models import Model, seeded, standing_in

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


@contextmanager
def mounted(model: Model, config: "LoraConfig", name: str = "default", *, seed: int = 0) -> Iterator["PeftModel"]:
    """Put an untrained LoRA on a model for a block.

    Args:
        config: PEFT's settings, from :func:`lora_config`. No settings of a file belong here: some of PEFT's change the
            base model's weights.
        name: of the adapter in PEFT.
        seed: seeds the LoRA's first weights.

    Raises:
        ProbeError: if the model has an adapter already.
    """
    from peft import get_peft_model  # slow to import

    check_bare(model)
    with restored(model.hf):
        with quiet_peft(), seeded(seed, *model.devices), standing_in(model.hf):
            wrapped = get_peft_model(model.hf, config, adapter_name=name)
        yield wrapped


def check_bare(model: Model) -> None:
    """Check that no adapter is on a model.

    Raises:
        ProbeError: if there is one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.adapter is not None and not model.config.merge:
        raise ProbeError(
            f"{model.name} has an adapter that is not merged, so it takes no further one; remove merge: false"
        )
    if any(isinstance(module, BaseTunerLayer) for module in model.hf.modules()):
        raise ProbeError(
            f"{model.name} already has an adapter: leave its block first, or pass all adapters to one attached(...)"
        )


@contextmanager
def restored(hf: nn.Module) -> Iterator[None]:
    """Give a model back its own modules after a block, frozen or not and in training mode or not as they were.

    Weights are not copied: whatever happens in the block must leave them alone.
    """
    modules = [(module, dict(module._modules), module.training) for module in hf.modules()]
    parameters = [(parameter, parameter.requires_grad) for parameter in hf.parameters()]
    try:
        yield
    finally:
        for module, children, training in modules:
            for name, child in children.items():
                module._modules[name] = child
            module.training = training
        for parameter, learns in parameters:
            parameter.requires_grad_(learns)
        vars(hf).pop("peft_config", None)  # PEFT's note on the model


def lora_config(
    model: Model, ranks: dict[str, int], *, alpha: float | None = None, dropout: float = 0.0
) -> "LoraConfig":
    """PEFT's settings for a LoRA on some linear layers.

    Args:
        ranks: the rank of the LoRA on each layer, by the layer's full name.
        alpha: the output is multiplied by alpha / rank; None takes the rank.
        dropout: on the input during training.
    """
    from peft import LoraConfig  # slow to import

    rank, names = max(ranks.values()), list(ranks)
    return LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # pyright: ignore[reportArgumentType]  # PEFT takes any number
        rank_pattern={name: each for name, each in ranks.items() if each != rank},
        lora_dropout=dropout,
        target_modules=names,
        fan_in_fan_out=isinstance(model.hf.get_submodule(names[0]), Conv1D),
        task_type="CAUSAL_LM",
    )


def linear_layers(model: Model, layers: Sequence[int], modules: Sequence[str] = ()) -> list[str]:
    """Full names of the linear layers in some blocks.

    Args:
        layers: 0-based blocks.
        modules: last parts of the names to keep, such as ``q_proj``; empty keeps all.

    Raises:
        ProbeError: if a block has no linear layer of such a name.
    """
    paths = {id(module): name for name, module in model.hf.named_modules()}
    found, known = [], set()
    for layer in layers:
        block = model.layers[layer]
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                leaf = name.rpartition(".")[-1]
                known.add(leaf)
                if not modules or leaf in modules:
                    found.append(paths[id(module)])
    if unknown := [name for name in modules if name not in known]:
        raise ProbeError(f"plan.modules has {unknown[0]!r}; a block of {model.name} has {', '.join(sorted(known))}")
    return found


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Hide warnings of PEFT that users cannot act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # transformers renamed it
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # GPT-2 has layers of both kinds
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # an export sees to it
        yield
