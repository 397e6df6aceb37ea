"""Oracle accounting: how many bits the thinking model supplies to an arm."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks import Forced, force, forced_pass, in_rows
from probe.hybrid.evaluate import ArmResult
from probe.models import Model
from probe.problems import Problem
from probe.statistics import entropy_bits

DIGITS = 4
"""Digits of a mean of log probabilities. Further ones depend on how many rows were decoded together."""


def oracle_bits(result: ArmResult) -> dict[str, Any]:
    """Measure the bits per token that an arm takes from the thinking model, for each part that asks it.

    *Where* counts the entropy of "steered or not" at every token; *which*, the entropy of the behaviours at steered
    tokens; *choice*, the entropy of the choice among candidates there; *token*, the surprisal of the emitted token
    under the base model's distribution. These are upper bounds from the frequencies of the answers: what could be
    predicted from the text is not subtracted.

    Args:
        result: from :func:`~probe.hybrid.evaluate_arm`.

    Returns:
        ``bits_per_token``, ``bits_per_steered_token``, and ``parts``: bits per token for ``where``, ``which``,
        ``choice`` and ``token``.
    """
    steered = _column(result, "steered").astype(bool)
    tokens, gates = len(steered), int(steered.sum())
    parts = dict.fromkeys(("where", "which", "choice", "token"), 0.0)
    if tokens:
        share = gates / tokens
        if "where" in result.asks:
            parts["where"] = entropy_bits([gates, tokens - gates])
        if "which" in result.asks and "emit:token" not in result.asks:
            parts["which"] = share * _entropy(_column(result, "behaviour")[steered])
        if "emit:choice" in result.asks:
            parts["choice"] = share * _entropy(_column(result, "choice")[steered])
        if "emit:token" in result.asks:
            parts["token"] = round(float(_column(result, "surprisal")[steered].sum()) / tokens, DIGITS)
    total = sum(parts.values())
    return {
        "bits_per_token": total,
        "bits_per_steered_token": total * tokens / gates if gates else 0.0,
        "parts": parts,
    }


def agreement(result: ArmResult) -> float | None:
    """Measure the share of emitted tokens that are the thinking model's most likely; None if that model was not run."""
    tokens, thinking = _column(result, "tokens"), _column(result, "thinking_token")
    return float((tokens == thinking).mean()) if len(thinking) and (thinking >= 0).all() else None


def surprisal(result: ArmResult) -> float | None:
    """Measure the surprisal of the emitted text under the base model, in bits per token.

    It is an upper bound on the bits that come from *anything* else, the learned parameters included. None for an arm
    that is not decoded step by step.
    """
    bits = _column(result, "surprisal")
    return round(float(bits.mean()), DIGITS) if len(bits) else None


def text_bits(
    base: Model, problems: Sequence[Problem], texts: Sequence[Sequence[int]], *, batch_size: int = 16
) -> float:
    """Measure the bits per token that encode texts given the base model, by reading them in one pass each.

    Args:
        base: the base model.
        problems: the problem that each text answers.
        texts: the emitted tokens of each text.
    """

    def nats(logits: Float[Tensor, "some vocab"], tokens: Int[Tensor, " some"]) -> Float[Tensor, " some"]:
        logits = logits.float()
        return logits.logsumexp(-1) - logits.gather(-1, tokens[:, None])[:, 0]

    def read(some: Forced) -> tuple[Tensor, ...]:
        return (forced_pass(base, some).over_logits(nats).double().sum(1),)

    order = sorted((i for i, text in enumerate(texts) if len(text)), key=lambda i: len(texts[i]))
    total = 0.0
    for at in range(0, len(order), batch_size):
        part = order[at : at + batch_size]
        forced = force(base, [base.prompt_ids(problems[i].question) for i in part], [texts[i] for i in part])
        total += float(in_rows(base, forced, read, what="reading answers")[0].sum())
    return round(total / math.log(2) / max(1, sum(map(len, texts))), DIGITS)


def _column(result: ArmResult, name: str) -> np.ndarray:
    return np.asarray([value for trace in result.traces for value in getattr(trace, name)])


def _entropy(values: np.ndarray) -> float:
    return entropy_bits(np.unique(values, return_counts=True)[1].tolist())
