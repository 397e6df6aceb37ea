"""The base model told what to do in words: worked examples, or a handbook of behaviours. For models that can read."""

from collections.abc import Sequence
from pathlib import Path

from probe.errors import ProbeError
from probe.hybrid.evaluate import ArmResult, rollouts
from probe.models import Model
from probe.problems import Problem
from probe.taxonomy import Taxonomy
from probe.traces import Trace


def few_shot_prompt(
    base: Model, traces: Sequence[Trace], problems: Sequence[Problem], question: str, *, shots: int
) -> str:
    """Worked examples before the question: correct traces of the thinking model, each behind the base model's prompt.

    Args:
        traces, problems: the thinking model's on the train split, in the same order; the first correct ones are taken.
    """
    right = [(trace, problem) for trace, problem in zip(traces, problems, strict=True) if trace.correct][:shots]
    if len(right) < shots:
        raise ProbeError(f"{shots} worked examples asked for, but only {len(right)} train traces are correct")
    if base.config.prompt == "chat":
        told = "\n\n".join(f"{problem.question}\n{trace.text.strip()}" for trace, problem in right)
        return base.prompt_text(f"{told}\n\n{question}")
    told = "\n\n".join(base.prompt_text(problem.question) + trace.text for trace, problem in right)
    return f"{told}\n\n{base.prompt_text(question)}"


def handbook_prompt(base: Model, taxonomy: Taxonomy, question: str) -> str:
    """What each behaviour is called and looks like, before the question (after Didolkar et al., 2509.13237)."""
    entries = [
        f"- {name}: {examples[0].strip()}"
        for name, examples in zip(taxonomy.names, taxonomy.examples, strict=True)
        if examples
    ]
    told = "Use these kinds of sentences where they help:\n" + "\n".join(entries)
    return base.prompt_text(f"{told}\n\n{question}")


def run_prompted(
    base: Model,
    name: str,
    problems: Sequence[Problem],
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Greedy answers behind other prompts.

    Raises:
        ProbeError: if a prompt leaves no room for an answer among the positions that the model was trained with.
    """
    start = base.config.prompt != "chat"
    ids = [list(base.tokenizer(prompt, add_special_tokens=start).input_ids) for prompt in prompts]
    there, longest = base.hf.config.get_text_config().max_position_embeddings, max(map(len, ids))
    if longest + max_new_tokens > there:
        raise ProbeError(
            f"{name}: prompts of {longest} tokens and {max_new_tokens} new ones do not fit into the "
            f"{there} positions of {base.name}; take fewer worked examples, or leave the arm out"
        )
    return rollouts(
        base,
        name,
        problems,
        ids,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )
