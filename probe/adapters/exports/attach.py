"""Attaches adapters to a model for a block: one or several, weighted, at all blocks or at some."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from probe.adapters.quiet import quiet_peft
from probe.adapters.training.plan import detach
from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json
from probe.models import Model, fingerprint, seeded

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter to attach.

    Attributes:
        folder: its folder, as PEFT writes it.
        weight: its output is multiplied by this, as by llama.cpp's ``--lora-scaled``.
        layers: 0-based blocks at which it acts; empty takes all blocks that it has.
    """

    folder: str | Path
    weight: float = 1.0
    layers: tuple[int, ...] = ()


@contextmanager
def attached(model: Model, *adapters: Adapter | str | Path, foreign: bool = False) -> Iterator[Model]:
    """Attach adapters to a model for a block; afterwards the model is as before, bit for bit.

    Args:
        model: the model that they were trained on.
        adapters: one or several; their outputs are summed. An adapter of :func:`~probe.adapters.tune` knows the model
            that it was trained on; for other PEFT folders only names and shapes are compared.
        foreign: allow another model of the same shapes.

    Raises:
        ProbeError: if a folder holds no LoRA or a damaged one, or the LoRA does not fit the model.
    """
    from peft import PeftModel  # slow to import

    wanted = [each if isinstance(each, Adapter) else Adapter(each) for each in adapters]
    if not wanted:
        raise ProbeError("there is no adapter to attach; name at least one folder")
    for each in wanted:
        check_fits(model, Path(each.folder), foreign=foreign)
    names = [f"adapter_{i}" for i in range(len(wanted))]
    with quiet_peft(), seeded(0, model.device):  # PEFT initialises weights before it loads them
        wrapped = PeftModel.from_pretrained(model.hf, str(wanted[0].folder), adapter_name=names[0])
    try:
        with quiet_peft(), seeded(0, model.device):
            for name, each in zip(names[1:], wanted[1:], strict=True):
                wrapped.load_adapter(str(each.folder), adapter_name=name)
        wrapped.base_model.set_adapter(names)  # pyright: ignore[reportCallIssue]
        for path, module in wrapped.named_modules():
            scaling = getattr(module, "scaling", None)
            for name, each in zip(names, wanted, strict=True):
                if isinstance(scaling, dict) and name in scaling:
                    there = not each.layers or block_of(path) in each.layers
                    scaling[name] *= each.weight if there else 0.0
        wrapped.requires_grad_(False).eval()
        yield model
    finally:
        detach(model, wrapped)


@contextmanager
def switched_off(model: Model) -> Iterator[None]:
    """Switch attached adapters off for a block; the model then computes exactly what it does without them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.hf.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
            layer.requires_grad_(False)


def check_fits(model: Model, folder: Path, *, foreign: bool = False) -> None:
    """Check that an adapter fits a model.

    Args:
        folder: the adapter's folder.
        foreign: accept other weights and another tokenizer, if the shapes are the same.

    Raises:
        ProbeError: saying what differs.
    """
    tensors = lora_tensors(folder)
    shapes = {name.replace(".base_layer", ""): tuple(t.shape) for name, t in model.hf.state_dict().items()}
    for name, tensor in tensors.items():
        base = name.removeprefix("base_model.model.").rpartition(".lora_")[0] + ".weight"
        there = shapes.get(base)
        side = -1 if ".lora_A." in name else 0
        if there is None:
            raise ProbeError(f"{folder} adapts {base.removesuffix('.weight')}, which {model.name} does not have")
        if tensor.shape[1 if side else 0] not in there:
            raise ProbeError(
                f"{folder} has {base.removesuffix('.weight')} {tensor.shape[1 if side else 0]} wide; in {model.name} "
                f"it is {' × '.join(map(str, there))}"
            )
    if not (folder / CARD).exists():
        return
    trained_on, here = read_json(folder / CARD)["base"], fingerprint(model)
    differ = [what for what in ("architecture", "shapes", "tokenizer", "weights") if trained_on[what] != here[what]]
    if "architecture" in differ or "shapes" in differ:
        raise ProbeError(
            f"{folder} is for a {trained_on['architecture']} whose shapes differ from those of {model.name}"
        )
    if differ and not foreign:
        raise ProbeError(
            f"{folder} was trained on a model whose {' and '.join(differ)} differ from those of {model.name}; "
            "pass foreign=True to attach it nevertheless"
        )


def lora_tensors(folder: Path) -> dict[str, Any]:
    """Read the tensors of a LoRA, by PEFT's names.

    Raises:
        ProbeError: if the folder holds no LoRA or a damaged one.
    """
    if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise ProbeError(f"{folder} holds no adapter: PEFT writes adapter_config.json and {WEIGHTS}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ProbeError(f"{folder / WEIGHTS} is damaged ({error}): copy it again") from error
    if read_json(folder / "adapter_config.json").get("peft_type") != "LORA" or not all(
        ".lora_A." in name or ".lora_B." in name for name in tensors
    ):
        raise ProbeError(f"{folder} holds an adapter that is not a plain LoRA; only LoRAs can be attached and exported")
    return tensors


def block_of(path: str) -> int | None:
    """The number of the block that a module is in, by its name; None outside of the blocks."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)
