"""Adapters on a model: on and off again bit for bit, several at once, weighted, and at some blocks only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from probe.adapters.exports.fingerprint import fingerprint
from probe.adapters.quiet import quiet_peft
from probe.adapters.training.plan import detach
from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json
from probe.models import Model

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, and how it is put on.

    Attributes:
        weight: what it adds is multiplied by this, as by llama.cpp's ``--lora-scaled``.
        layers: 0-based blocks at which it acts; without any, all that it has.
    """

    folder: str | Path
    weight: float = 1.0
    layers: tuple[int, ...] = ()


@contextmanager
def attached(model: Model, *adapters: Adapter | str | Path, foreign: bool = False) -> Iterator[Model]:
    """Put adapters on a model for a block; what several add is summed. Afterwards it is as it was, bit for bit.

    Args:
        model: the one they were trained on.
        adapters: folders of PEFT's; one of :func:`~probe.adapters.training.tune` also says what it was trained on.
        foreign: allow a model of the same shapes that is another one.

    Raises:
        ProbeError: if a folder holds no LoRA or a broken one, or it is not for this model.
    """
    from peft import PeftModel  # slow to import

    wanted = [each if isinstance(each, Adapter) else Adapter(each) for each in adapters]
    if not wanted:
        raise ProbeError("there is no adapter to attach; name at least one folder")
    for each in wanted:
        check_fits(model, Path(each.folder), foreign=foreign)
    names = [f"adapter_{i}" for i in range(len(wanted))]
    with quiet_peft():
        wrapped = PeftModel.from_pretrained(model.hf, str(wanted[0].folder), adapter_name=names[0])
        try:
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
    """The model without the adapters that are attached, for a block inside theirs; exactly as without them."""
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
    """Refuse what is no adapter of this model.

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
        raise ProbeError(f"{folder} is for a {trained_on['architecture']} of other shapes than {model.name}")
    if differ and not foreign:
        raise ProbeError(
            f"{folder} was trained on a model with other {' and another '.join(differ)} than {model.name}; "
            "say foreign=True to attach it all the same"
        )


def lora_tensors(folder: Path) -> dict[str, Any]:
    """The tensors of a LoRA, by PEFT's names.

    Raises:
        ProbeError: if there are none, or they are broken.
    """
    if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise ProbeError(f"{folder} holds no adapter: PEFT writes adapter_config.json and {WEIGHTS}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ProbeError(f"{folder / WEIGHTS} is broken ({error}): copy it again") from error
    if read_json(folder / "adapter_config.json").get("peft_type") != "LORA" or not all(
        ".lora_A." in name or ".lora_B." in name for name in tensors
    ):
        raise ProbeError(f"{folder} is no plain LoRA, the only kind that can be attached and exported here")
    return tensors


def block_of(path: str) -> int | None:
    """The block that a module is in, by its name; None outside of them."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)
