"""Baselines that only change the base model's prompt: worked examples, or a handbook of behaviours."""

from collections.abc import Sequence
from pathlib import Path

from probe.errors import ProbeError
from probe.hybrid.evaluate import ArmResult, rollouts
from probe.models import GREEDY, Model, Sampling
from probe.problems import Problem
from probe.taxonomy import Taxonomy
from probe.traces import Trace


def few_shot_prompt(
    base: Model, traces: Sequence[Trace], problems: Sequence[Problem], question: str, *, shots: int
) -> str:
    """Put worked examples before a question: correct traces of the thinking model, each after the base model's prompt.

    Args:
        base: supplies the prompt format.
        traces, problems: traces of the thinking model on the train split and their problems, in the same order. The
            first correct traces are used.

    Raises:
        ProbeError: if fewer than ``shots`` traces are correct.
    """
    right = [(trace, problem) for trace, problem in zip(traces, problems, strict=True) if trace.correct][:shots]
    if len(right) < shots:
        raise ProbeError(f"shots is {shots}, but only {len(right)} train traces are correct")
    if base.config.prompt == "chat":
        examples = "\n\n".join(f"{problem.question}\n{trace.text.strip()}" for trace, problem in right)
        return base.prompt_text(f"{examples}\n\n{question}")
    examples = "\n\n".join(base.prompt_text(problem.question) + trace.text for trace, problem in right)
    return f"{examples}\n\n{base.prompt_text(question)}"


def handbook_prompt(base: Model, taxonomy: Taxonomy, question: str) -> str:
    """Put the name and an example of each behaviour before a question (after Didolkar et al., 2509.13237).

    Args:
        base: supplies the prompt format.
        taxonomy: supplies the behaviours; those without an example are left out.
    """
    entries = [
        f"- {name}: {examples[0].strip()}"
        for name, examples in zip(taxonomy.names, taxonomy.examples, strict=True)
        if examples
    ]
    handbook = "Use these kinds of sentences where they help:\n" + "\n".join(entries)
    return base.prompt_text(f"{handbook}\n\n{question}")


def run_prompted(
    base: Model,
    name: str,
    problems: Sequence[Problem],
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Decode answers of the base model after other prompts.

    Args:
        prompts: the whole prompt text for each problem.
        sampling, samples, seed: how tokens are chosen, and the number of answers to each problem.
        max_new_tokens, batch_size, folder, progress: see :func:`~probe.hybrid.evaluate_arm`.

    Raises:
        ProbeError: if a prompt and its answer do not fit into the positions that the model was trained with.
    """
    ids = prompted_ids(base, name, prompts, max_new_tokens)
    return rollouts(
        base,
        name,
        problems,
        ids,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )


def prompted_ids(base: Model, name: str, prompts: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """The token ids of whole prompts.

    Raises:
        ProbeError: if a prompt and its answer do not fit into the positions that the model was trained with.
    """
    ids = [base.encode_prompt(prompt) for prompt in prompts]
    there, longest = base.hf.config.get_text_config().max_position_embeddings, max(map(len, ids))
    if longest + max_new_tokens > there:
        raise ProbeError(
            f"{name}: prompts of {longest} tokens and {max_new_tokens} new ones do not fit into the "
            f"{there} positions of {base.name}; use fewer worked examples, or leave out the arm"
        )
    return ids
