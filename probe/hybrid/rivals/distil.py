"""The base model with a LoRA distilled on the thinking model's traces: the hybrid's data, and no oracle at test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from probe._config import check_above_zero, check_least
from probe._files import write_json
from probe._peft import peft, quiet
from probe.hooks import Forced, causal_masks, force
from probe.hybrid.evaluate import ArmResult, rollouts
from probe.models import Model, Pair
from probe.problems import Problem
from probe.steering.gates import text_batches
from probe.steering.learn import one_cycle
from probe.traces import Trace

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class DistilConfig:
    """How a LoRA is distilled."""

    epochs: int = 2
    lr: float = 5e-3
    batch_size: int = 16
    """Traces a step."""

    def __post_init__(self) -> None:
        check_least("distil", self, epochs=1, batch_size=1)
        check_above_zero("distil", self, "lr")


def distil_lora(
    pair: Pair,
    train: tuple[Sequence[Trace], Sequence[Problem]],
    validation: tuple[Sequence[Trace], Sequence[Problem]],
    rank: int,
    folder: Path,
    config: DistilConfig,
    *,
    seed: int,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Train a LoRA on all linear layers of the base model to write the thinking model's traces behind its own prompt.

    Args:
        train, validation: the thinking model's traces, and the problems of each.
        rank: of the LoRA.
        folder: gets the adapter of the epoch with the lowest validation loss, as PEFT writes it; where none is below
            the base model's, that is one that changes nothing.

    Returns:
        Per epoch the validation loss, in nats a token, and accuracy; epoch 0 is the base model. It is as it was.

    Raises:
        ProbeError: if PEFT is not installed.
    """
    torch.manual_seed(seed)
    base = pair.base
    batches, held = (list(_batches(pair, *split, config.batch_size)) for split in (train, validation))
    settings = peft().LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        model = peft().get_peft_model(base.hf, settings)
    try:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.0)
        steps = config.epochs * len(batches)
        schedule = one_cycle(optimizer, [config.lr], steps)
        history = [_evaluate(base, held)]
        model.save_pretrained(str(folder), save_embedding_layers=False)  # it changes nothing yet, and may stay the best
        generator = torch.Generator().manual_seed(seed)
        bar = tqdm(total=steps, desc=f"LoRA of rank {rank}", unit="step", disable=not progress)
        for _ in range(config.epochs):
            for i in torch.randperm(len(batches), generator=generator).tolist():
                loss = F.cross_entropy(*_emitted(base, batches[i]))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
            history.append(_evaluate(base, held))
            if history[-1]["loss"] == min(epoch["loss"] for epoch in history):
                model.save_pretrained(str(folder), save_embedding_layers=False)
        bar.close()
    finally:
        _detach(base, model)
    write_json(folder / "history.json", history)
    return history


@contextmanager
def adapted(base: Model, folder: Path) -> Iterator[Model]:
    """The base model with an adapter attached; afterwards it is as it was, bit for bit.

    Raises:
        ProbeError: if PEFT is not installed.
    """
    with quiet():
        model = peft().PeftModel.from_pretrained(base.hf, str(folder))
    try:
        yield base
    finally:
        _detach(base, model)


def run_lora(
    base: Model,
    adapter: Path,
    name: str,
    problems: Sequence[Problem],
    *,
    new_tokens: int,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Greedy answers of the base model with an adapter.

    Args:
        adapter: its folder, from :func:`distil_lora` or any other of PEFT's.
        others: as of :func:`~probe.hybrid.evaluate_arm`.
    """
    size = sum(tensor.numel() for tensor in load_file(adapter / "adapter_model.safetensors").values())
    prompts = [base.prompt_ids(problem.question) for problem in problems]
    with adapted(base, adapter):
        return rollouts(
            base,
            name,
            problems,
            prompts,
            new_tokens=new_tokens,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
            fitted_parameters=size,
        )


def _detach(base: Model, model: "PeftModel") -> None:
    model.unload()
    if hasattr(base.hf, "peft_config"):
        del base.hf.peft_config
    base.hf.eval().requires_grad_(False)


def _batches(pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem], size: int) -> Iterator[Forced]:
    for part, emitted in text_batches(pair, traces, problems, size):
        yield force(pair.base, [pair.base.prompt_ids(problems[i].question) for i in part], emitted)


def _emitted(base: Model, forced: Forced) -> tuple[Float[Tensor, "tokens vocab"], Tensor]:
    """Logits that predict each emitted token, and those tokens."""
    out = base.hf(
        input_ids=forced.ids,
        attention_mask=causal_masks(base, forced.valid, forced.ids.shape[1]),
        position_ids=forced.positions,
        use_cache=False,
    )
    rows, emitted = forced.emitted.nonzero(as_tuple=True)
    at = forced.predicts[rows, emitted]
    return out.logits[rows, at].float(), forced.ids[rows, at + 1]


@torch.no_grad()
def _evaluate(base: Model, batches: Sequence[Forced]) -> dict[str, float]:
    loss, right, n = 0.0, 0, 0
    for forced in batches:
        logits, targets = _emitted(base, forced)
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        right, n = right + int((logits.argmax(-1) == targets).sum()), n + len(targets)
    return {"loss": loss / max(n, 1), "accuracy": right / max(n, 1)}
