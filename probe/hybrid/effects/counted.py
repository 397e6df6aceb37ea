"""Counts of behaviours in the texts of every arm, by rules that need no model."""

from collections.abc import Mapping, Sequence
from typing import Any

from probe.counters import count_behaviours
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import make_trace


def counted(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    tokens: Mapping[str, Sequence[Sequence[int]]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Count the behaviours of the problem set's counter scheme in each arm.

    Args:
        model: its tokenizer decodes the tokens.
        problem_set: supplies the counter scheme.
        tokens: for each arm, the emitted tokens of each answer; those to a problem follow each other.
        seed: seeds the resampling.

    Returns:
        ``scheme``, and ``arms``: for each arm and behaviour the ``mean`` count per answer and its 95 % bootstrap ``ci``
        over problems.
    """
    scheme = problem_set.counter
    arms = {}
    for name, emitted in tokens.items():
        samples = len(emitted) // max(1, len(problems))
        traces = [
            make_trace(model, problem_set, problems[at // samples], list(some), False, sample=at % samples)
            for at, some in enumerate(emitted)
        ]
        means = count_behaviours(traces, scheme).mean(seed=seed)
        arms[name] = {habit: {"mean": each.value, "ci": each.to_dict()["ci"]} for habit, each in means.items()}
    return {"scheme": scheme, "arms": arms}
