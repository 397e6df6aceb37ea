"""How often each model runs for an answer, which is what an answer costs while decoding."""

from collections.abc import Sequence

from probe.hybrid.decode import HybridTrace
from probe.hybrid.evaluate import ArmResult
from probe.traces import Trace


def passes(result: ArmResult) -> dict[str, float | None]:
    """Count the passes of each model that an arm needs for an answer, on average.

    A pass gives one token; it also reads the prompt, or whatever was written since the model's last pass, and counts
    once. The thinking model runs at every token if the gate asks it, and otherwise only where the arm is steered. The
    base model does not run at tokens that the thinking model writes unasked. Tokens that a script inserts are read, and
    cost no pass; a pass whose token they replace counts. Layers that run again above a shift are not counted. A trace
    does not say which model gave its end token, so the passes of an answer may be off by one for each model.

    Args:
        result: from :func:`~probe.hybrid.evaluate_arm`, or of a baseline.

    Returns:
        ``base_passes`` and ``thinking_passes``.
    """
    if not result.traces:
        return {"base_passes": None, "thinking_passes": None}
    every = decoding_passes(result.traces)
    steered = sum(sum(trace.steered) + _end_steered(trace) for trace in result.traces) / len(result.traces)
    thinking = every if "where" in result.asks else steered if result.asks else 0.0
    base = every - steered if result.relieves_base else every
    return {"base_passes": base if result.base_passes is None else result.base_passes, "thinking_passes": thinking}


def decoding_passes(traces: Sequence[HybridTrace | Trace]) -> float:
    """Count the passes of a model that writes answers alone, on average: one for each token and for the end token."""
    return sum(len(trace.tokens) + (not trace.truncated) for trace in traces) / len(traces)


def _end_steered(trace: HybridTrace) -> bool:
    """Whether the end token, which a trace does not hold, came from where the last token came from."""
    return not trace.truncated and bool(trace.steered) and trace.steered[-1]
