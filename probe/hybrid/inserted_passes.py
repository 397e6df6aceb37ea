"""How often a model runs where a script inserts text: an inserted token needs no pass of its own."""

from collections.abc import Sequence

from probe.hybrid.decode import HybridTrace
from probe.hybrid.insertion import Budget, Instruction, Script


def inserted_passes(script: Script, traces: Sequence[HybridTrace]) -> float:
    """Count the passes of the model that a script interrupts, for an answer, on average.

    A pass gives each token that the model wrote, the end token, and each token that inserted text replaced.

    Args:
        script: what was inserted.
        traces: the answers; their steered tokens are the inserted ones.
    """
    own = (len(each.tokens) - sum(each.steered) + (not each.truncated) + _replaced(script, each) for each in traces)
    return sum(own) / max(1, len(traces))


def _replaced(script: Script, trace: HybridTrace) -> int:
    """The number of tokens that the model gave and inserted text replaced."""
    if isinstance(script, Budget) and script.wait:
        return sum(-(-run // len(script.wait)) for run in _runs(trace.steered[: script.most]))
    # Without an opening tag to wait for, an instruction is inserted whatever the model gives.
    return int(isinstance(script, Instruction) and bool(script.open) and trace.steered[:1] == [True])


def _runs(inserted: Sequence[bool]) -> list[int]:
    """The lengths of the runs of inserted tokens."""
    lengths = [0]
    for each in inserted:
        if each:
            lengths[-1] += 1
        elif lengths[-1]:
            lengths.append(0)
    return [length for length in lengths if length]
