"""What the thinking model tells an arm, in bits: to whom the success of a hybrid is owed."""

from typing import Any

import numpy as np

from probe.hybrid.evaluate import ArmResult
from probe.statistics import entropy_bits


def oracle_bits(result: ArmResult) -> dict[str, Any]:
    """Bits a token that an arm takes from the thinking model, part by part.

    For each part that looks at it, what its answers say: *where*, the entropy of steered or not, at every token;
    *which*, that of the behaviours at steered tokens; a *choice* among candidates, that of the choice there; a *token*
    of its own, the bits it takes to write that token down for somebody who knows the base model's distribution. Upper
    bounds, from how often each answer occurs: what could be guessed from the text is not taken off.

    Returns:
        ``bits_per_token``, ``bits_per_steered_token``, and ``parts``: bits a token for ``where``, ``which``,
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
            parts["token"] = float(_column(result, "surprisal")[steered].sum()) / tokens
    total = sum(parts.values())
    return {
        "bits_per_token": total,
        "bits_per_steered_token": total * tokens / gates if gates else 0.0,
        "parts": parts,
    }


def agreement(result: ArmResult) -> float | None:
    """The share of emitted tokens that are the thinking model's likeliest; None where it was not run."""
    tokens, thinking = _column(result, "tokens"), _column(result, "thinking_token")
    return float((tokens == thinking).mean()) if len(thinking) and (thinking >= 0).all() else None


def surprisal(result: ArmResult) -> float | None:
    """Bits a token to write the emitted text down for somebody who knows the base model; None for mere rollouts.

    A bound on what *anything* told the base model, learned parameters included.
    """
    bits = _column(result, "surprisal")
    return float(bits.mean()) if len(bits) else None


def _column(result: ArmResult, name: str) -> np.ndarray:
    return np.asarray([value for trace in result.traces for value in getattr(trace, name)])


def _entropy(values: np.ndarray) -> float:
    return entropy_bits(np.unique(values, return_counts=True)[1].tolist())
