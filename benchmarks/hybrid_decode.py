"""Hybrid decoding against its limit (both models decoding alone) and against running it without a cache.

``python -m benchmarks.hybrid_decode [--quick]``
"""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.table import Row, medians, report
from probe.hybrid import AddVector, Arm, FixedStrength, HybridTrace, OneBehaviour, RandomPositions, decode_hybrid
from probe.models import Pair, load_pair
from probe.problems import Problem, load_problems
from probe.steering import BehaviourVectors
from probe.traces import decode_greedy

LAYER, TAXONOMY_LAYER, NEW_TOKENS = 1, 2, 96


def arm(pair: Pair, rate: float) -> Arm:
    """Random positions at a known rate with vectors too weak to change a token: all arms emit the same text."""
    vectors = BehaviourVectors(1, pair.base.d_model, LAYER).requires_grad_(False)
    vectors.directions.data.fill_(1e-6)
    return Arm("bench", RandomPositions(rate), OneBehaviour(), FixedStrength(1.0), AddVector(vectors))


def hybrid(pair: Pair, problems: tuple[Problem, ...], rate: float) -> list[HybridTrace]:
    return decode_hybrid(
        pair,
        arm(pair, rate),
        problems,
        steering_layer=LAYER,
        taxonomy_layer=TAXONOMY_LAYER,
        new_tokens=NEW_TOKENS,
    )


@torch.no_grad()
def uncached(pair: Pair, problem: Problem, tokens: list[int]) -> None:
    """What decoding one row without any cache costs: both models run the whole text again for every token."""
    for i in range(len(tokens) + 1):
        for model in (pair.base, pair.thinking):
            model.hf(torch.tensor([model.prompt_ids(problem.question) + tokens[:i]]), logits_to_keep=1)


def main() -> None:
    quick = "--quick" in sys.argv
    pair = load_pair("tiny-rl", device="cpu")
    problems = load_problems("story").take("test", 32)
    emitted = [trace.tokens for trace in hybrid(pair, problems, 0.0)]

    def force(model) -> None:
        """The limit: the same model runs the same number of cached steps and nothing else."""
        decode_greedy(model, [model.prompt_ids(problem.question) for problem in problems], NEW_TOKENS)

    def alone() -> None:
        # The hybrid emits the base model's text here, so its thinking model takes as many steps as the base does.
        force(pair.base)
        force(pair.base)

    sides = {
        "limit": alone,
        "hybrid, gate shut": lambda: hybrid(pair, problems, 0.0),
        "hybrid, 10 % steered": lambda: hybrid(pair, problems, 0.1),
        "hybrid, all steered": lambda: hybrid(pair, problems, 1.0),
    }
    seconds = medians(sides, 2 if quick else 5)
    rows = [
        Row(name, "both models decoding alone", seconds[name] / seconds["limit"], goal, "lower")
        for name, goal in (("hybrid, gate shut", 1.2), ("hybrid, 10 % steered", 1.6), ("hybrid, all steered", 2.0))
    ]
    one = medians(
        {
            "cached": lambda: hybrid(pair, problems[:1], 0.1),
            "uncached": lambda: uncached(pair, problems[0], emitted[0]),
        },
        1 if quick else 3,
    )
    rows.append(Row("uncached, one row", "hybrid, one row", one["uncached"] / one["cached"], None, "higher"))
    batch = seconds["hybrid, 10 % steered"] / len(problems)
    rows.append(Row("hybrid, one row", "hybrid, a row of 32", one["cached"] / batch, 8.0, "higher"))
    report("hybrid_decode", rows)


if __name__ == "__main__":
    main()
