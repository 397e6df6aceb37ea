"""The base model with a LoRA that is distilled on the thinking model's traces, the same data that the hybrid has."""

from collections.abc import Sequence
from pathlib import Path

from probe.adapters import AdapterPlan, Objective, TuneConfig, Tuned, attached, examples_of, lora_tensors, tune
from probe.hybrid.config import DistilConfig
from probe.hybrid.evaluate import ArmResult, rollouts
from probe.models import GREEDY, Model, Sampling
from probe.problems import Problem
from probe.traces import Trace


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
    """Train a LoRA on all linear layers of the base model to write the thinking model's traces after its own prompt.

    Args:
        base: the base model; it is unchanged afterwards.
        train, validation: traces of the thinking model and their problems, in the same order.
        folder: receives the adapter with the lowest validation loss. If no loss is below the base model's, the adapter
            changes nothing. An interrupted training in this folder resumes.
        seed: seeds the adapter and the order of traces.
        progress: show a bar.
    """
    examples, unseen = (examples_of(base, *split) for split in (train, validation))
    tokens = sum(len(example.ids) for example in examples)
    settings = TuneConfig(
        steps=config.steps,
        batch_tokens=max(1, round(config.batch_size * tokens / len(examples))),
        lr=config.lr,
        check_every=config.check_every,
        patience=config.patience,
        seed=seed,
    )
    plan = AdapterPlan(rank=rank, alpha=2.0 * rank)
    return tune(base, examples, unseen, Objective("ce"), folder=folder, plan=plan, config=settings, progress=progress)


def run_lora(
    base: Model,
    adapter: str | Path,
    name: str,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Decode answers of the base model with an adapter.

    Args:
        base: the base model; it is unchanged afterwards.
        adapter: the folder of the adapter, from :func:`distil_lora` or any other LoRA in PEFT's format.
        sampling, samples, seed: how tokens are chosen, and the number of answers to each problem.
        max_new_tokens, batch_size, folder, progress: see :func:`~probe.hybrid.evaluate_arm`.
    """
    size = sum(tensor.numel() for tensor in lora_tensors(Path(adapter)).values())
    prompts = [base.prompt_ids(problem.question) for problem in problems]
    with attached(base, adapter):
        return rollouts(
            base,
            name,
            problems,
            prompts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
            fitted_parameters=size,
        )
