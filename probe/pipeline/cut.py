"""The warning that the limit on tokens cut answers. A command shows it once and writes it into results and report."""

from collections.abc import Mapping, Sequence

from probe.hybrid import HybridTrace
from probe.progress import say
from probe.traces import Trace, looping

SOME_CUT = 0.05
"""The share of cut answers above which a command warns."""
_NAMED = 3
"""The number of models or arms that the warning names."""


def warn_cut(answers: Mapping[str, Sequence[Trace | HybridTrace]], limit: int, *, progress: bool) -> str | None:
    """Warn if the limit on tokens cut more than 5 % of the answers of a model or an arm.

    Args:
        answers: the answers of each model or arm by its name.
        limit: the largest number of tokens of an answer.
        progress: whether the warning is shown, on stderr.

    Returns:
        The warning, for the results of the command; None if there is none.
    """
    said = cut_sentence(answers, limit)
    if said is not None and progress:
        say(f"warning: {said}")
    return said


def cut_sentence(answers: Mapping[str, Sequence[Trace | HybridTrace]], limit: int) -> str | None:
    """Say which answers the limit on tokens cut, and what to do; see :func:`warn_cut`.

    >>> cut = HybridTrace("1", tokens=[5, 6], truncated=True)
    >>> cut_sentence({"base": [cut] * 3, "thinking": [HybridTrace("1", tokens=[5], truncated=False)]}, 2)
    'the limit of 2 tokens cut 100% of the answers of base; raise it (--max-new-tokens 4)'
    """
    shares = {name: sum(each.truncated for each in some) / len(some) for name, some in answers.items() if some}
    most = sorted((name for name, share in shares.items() if share > SOME_CUT), key=lambda name: -shares[name])
    if not most:
        return None
    named = [f"{shares[name]:.0%} of the answers of {name}" for name in most[:_NAMED]]
    more = f" (and more than {SOME_CUT:.0%} of {len(most) - _NAMED} others)" if len(most) > _NAMED else ""
    cut = [looping(each.tokens) for name in most for each in answers[name] if each.truncated]
    if 2 * sum(cut) >= len(cut):
        remedy = f"{sum(cut)} of these {len(cut)} answers loop, which a temperature may prevent (--temperature 0.6)"
    else:
        remedy = f"raise it (--max-new-tokens {2 * limit})"
    return f"the limit of {limit:,} tokens cut {', '.join(named)}{more}; {remedy}"
