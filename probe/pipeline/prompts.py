"""The first prompt of each model: shown when a command begins, and kept in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.files import write_json
from probe.models import GREEDY, PLAIN_PROMPT, Model, Sampling, prompt_remarks
from probe.progress import say

PROMPTS = "prompts.json"
_LONGEST = 1_500
"""Characters of a prompt that are shown; the whole is kept."""


def first_prompts(
    models: Mapping[str, Model], question: str, sampling: Mapping[str, Sampling] | None = None
) -> dict[str, dict[str, Any]]:
    """Say how each model is asked the first question.

    Args:
        models: the models by their role, such as ``base``.
        question: the question of the first problem.
        sampling: how each model is sampled; None if all are greedy.

    Returns:
        By role: the ``prompt`` and the other ``settings`` of the model, the ``text`` with special tokens, its number of
        ``tokens``, where ``thinking`` is, its ``sampling``, and ``remarks`` on what is easily overlooked. The name of
        the model is omitted, because a run may be moved together with its models.
    """
    told = {}
    for role, model in models.items():
        ids, tags = model.prompt_ids(question), model.think_tags
        places = {
            "opened": f"the prompt opens the thinking, which ends at {tags.close}",
            "closed": f"the prompt closes the thinking with {tags.close}, so the answer follows at once",
            "answer": f"thinking, if any, ends at {tags.close} in the answer",
        }
        told[role] = {
            "prompt": model.config.prompt,
            "settings": model.config.asked_otherwise,
            "tokens": len(ids),
            "thinking": places[tags.place(model.prompt_text(question))],
            "sampling": _sampled(model, GREEDY if sampling is None else sampling[role]),
            "remarks": prompt_remarks(model.config, model.tokenizer),
            "text": model.decode(ids),
        }
    return told


def _sampled(model: Model, sampling: Sampling) -> str:
    """How a model is sampled, and whether this follows its ``generation_config.json``."""
    if sampling.greedy:
        asked = model.own_sampling
        return "greedy" if asked.greedy else f"greedy (its generation_config.json asks for {asked})"
    return f"{sampling} (as its generation_config.json asks)" if sampling == model.own_sampling else str(sampling)


def begin(
    out: Path | None,
    models: Mapping[str, Model],
    question: str,
    sampling: Mapping[str, Sampling] | None = None,
    *,
    remarks: Sequence[str] = (),
    progress: bool,
) -> dict[str, dict[str, Any]]:
    """Show the first prompt of each model and write them to ``prompts.json``.

    Args:
        out: the folder of the results, which is locked; None to write nothing.
        models, question, sampling: as in :func:`first_prompts`.
        remarks: lines that are shown before the prompts.
        progress: whether anything is shown.

    Returns:
        What :func:`first_prompts` returns.
    """
    told = first_prompts(models, question, sampling)
    if out is not None:
        write_json(out / PROMPTS, told)
    if progress:
        for remark in remarks:
            say(f"note: {remark}")
        for role, asked in told.items():
            say(shown(f"{role}: {models[role].name}", asked))
    return told


def shown(name: str, asked: Mapping[str, Any]) -> str:
    """Write a prompt for the terminal, each of its lines behind a bar, so that white space at its ends can be seen."""
    text: str = asked["text"]
    if len(text) > _LONGEST:
        left = _LONGEST // 2
        text = f"{text[:left]} … {len(text) - 2 * left:,} more characters in {PROMPTS} … {text[-left:]}"
    kinds = {"chat": "its chat template", PLAIN_PROMPT: "the default prompt"}
    said = f"asked by {kinds.get(asked['prompt'], 'its own prompt')}"
    lines = [f"{name}, {said}, {asked['tokens']} tokens; {asked['thinking']}"]
    lines += [f"  sampling: {how}"] if (how := asked.get("sampling", "greedy")) != "greedy" else []
    lines += [f"  │{line}" for line in text.split("\n")]
    return "\n".join([*lines, *(f"  note: {remark}" for remark in asked["remarks"])])
