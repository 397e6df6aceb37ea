"""How often each behaviour occurs in the texts of every arm, by rules that need no model."""

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
    """Mean counts an answer with 95 % bootstrap intervals over problems.

    Args:
        model: whose tokenizer reads the tokens.
        tokens: for each arm what it emitted, problem by problem.

    Returns:
        ``scheme``, and ``arms``: for each arm and habit ``mean`` and ``ci``.
    """
    scheme = problem_set.counter
    arms = {}
    for name, emitted in tokens.items():
        traces = [
            make_trace(model, problem_set, problem, list(some), False)
            for problem, some in zip(problems, emitted, strict=True)
        ]
        means = count_behaviours(traces, scheme).mean(seed=seed)
        arms[name] = {habit: {"mean": each.value, "ci": each.to_dict()["ci"]} for habit, each in means.items()}
    return {"scheme": scheme, "arms": arms}
