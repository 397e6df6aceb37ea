"""The base model with a LoRA distilled on the thinking model's traces: the hybrid's data, and no oracle at test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.adapters import AdapterPlan, Objective, TuneConfig, Tuned, attached, examples_of, lora_tensors, tune
from probe.config import check_above_zero, check_least
from probe.hybrid.evaluate import ArmResult, rollouts
from probe.models import Model
from probe.problems import Problem
from probe.traces import Trace


@dataclass(frozen=True)
class DistilConfig:
    """How a LoRA is distilled."""

    epochs: int = 2
    lr: float = 5e-3
    batch_size: int = 16
    """Traces a step, on average."""

    def __post_init__(self) -> None:
        check_least("distil", self, epochs=1, batch_size=1)
        check_above_zero("distil", self, "lr")


def distil_lora(
    base: Model,
    train: tuple[Sequence[Trace], Sequence[Problem]],
    validation: tuple[Sequence[Trace], Sequence[Problem]],
    *,
    rank: int,
    folder: str | Path,
    config: DistilConfig,
    seed: int,
    progress: bool = False,
) -> Tuned:
    """Train a LoRA on all linear layers of the base model to write the thinking model's traces behind its own prompt.

    Args:
        train, validation: the thinking model's traces, and the problems of each.
        rank: of the LoRA.
        folder: gets the adapter of the half epoch with the lowest validation loss; where none is below the base
            model's, that is one that changes nothing. If it holds one that was broken off, that goes on.

    Raises:
        ProbeError: if PEFT is not installed.
    """
    examples, held = (examples_of(base, *split) for split in (train, validation))
    epoch = math.ceil(len(examples) / config.batch_size)
    tokens = sum(len(example.ids) for example in examples)
    settings = TuneConfig(
        steps=config.epochs * epoch,
        batch_tokens=max(1, tokens // epoch),
        lr=config.lr,
        check_every=max(1, epoch // 2),
        seed=seed,
    )
    plan = AdapterPlan(rank=rank, alpha=2.0 * rank)
    return tune(base, examples, held, Objective("ce"), folder=folder, plan=plan, config=settings, progress=progress)


def run_lora(
    base: Model,
    adapter: Path,
    name: str,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Greedy answers of the base model with an adapter.

    Args:
        adapter: its folder, from :func:`distil_lora` or any other LoRA of PEFT's.
        others: as of :func:`~probe.hybrid.evaluate_arm`.
    """
    size = sum(tensor.numel() for tensor in lora_tensors(adapter).values())
    prompts = [base.prompt_ids(problem.question) for problem in problems]
    with attached(base, adapter):
        return rollouts(
            base,
            name,
            problems,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
            fitted_parameters=size,
        )
