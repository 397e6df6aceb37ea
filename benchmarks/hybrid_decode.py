"""Hybrid decoding against a lower bound (both models decoding alone, cached) and against two published schedules.

The gate opens at a random 12 % of the tokens, and the thinking model chooses the behaviour at every token. No row ends,
so all sides take the same number of steps, and the schedules must emit the same tokens as the hybrid. Version 1 is
compared with the hybrid, which steers once at each gate, and with our implementation of the same search.
``python -m benchmarks.hybrid_decode [--quick]``
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.schedules import Hybrid, batched, searched
from benchmarks.table import Row, medians, report
from benchmarks.workload import pairs, steering_vectors
from probe.hybrid import AddVector, Arm, FixedStrength, RandomPositions, SearchShifts, ThinkingBehaviour, decode_hybrid
from probe.hybrid.decode import random_numbers
from probe.models import Pair
from probe.problems import Problem, load_problems
from probe.steering import FixedVectors
from probe.steering.learn import steering_layer
from probe.taxonomy import Taxonomy
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.weights import Weights
from probe.traces import decode_greedy

RATE, BEHAVIOURS = 0.12, 4
STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Tokens = list[list[int]]
Sides = dict[str, Callable[[], Tokens]]


#: Number of rows, new tokens and rounds.
Case = tuple[int, int, int]


@dataclass(frozen=True)
class Size:
    """Cases of each comparison: with both models alone, with version 2 and, row by row, with version 1."""

    limit: tuple[Case, ...]
    batched: tuple[Case, ...]
    searched: tuple[Case, ...]


SIZES = {
    "tiny-rl": Size(
        limit=((1, 128, 5), (64, 128, 3), (1, 512, 1), (64, 512, 1)),
        batched=((1, 128, 3), (64, 128, 3)),
        searched=((64, 128, 3),),
    ),
    "smollm2-135m": Size(
        limit=((1, 128, 3), (64, 128, 1), (1, 512, 1)), batched=((1, 128, 1), (64, 64, 1)), searched=((16, 16, 1),)
    ),
}
QUICK = {
    "tiny-rl": Size(limit=((1, 64, 3), (64, 64, 1)), batched=((64, 64, 1),), searched=((64, 32, 1),)),
    "smollm2-135m": Size(limit=((4, 8, 1),), batched=((4, 8, 1),), searched=((4, 4, 1),)),
}


def workload(pair: Pair, problems: Sequence[Problem], longest: int) -> tuple[Arm, Arm, Hybrid]:
    """The hybrid and the search of version 1, both as arms, and the equivalent input of the schedules."""
    thinking, layer = pair.thinking, steering_layer(pair.base, None)
    at = thinking.n_layers // 2 - 1
    prompts = [pair.base.prompt_ids(problem.question) for problem in problems[:8]]
    mechanism = FixedVectors.of(steering_vectors(pair.base, prompts, layer, BEHAVIOURS), layer)
    directions = steering_vectors(thinking, prompts, at, BEHAVIOURS)
    weights = Weights(directions.T, torch.nn.functional.normalize(directions, dim=-1), k=1)
    taxonomy = Taxonomy(f"resid_post.{at}", Normaliser(torch.zeros(thinking.d_model)), weights)
    arm = Arm("hybrid", RandomPositions(RATE), ThinkingBehaviour(taxonomy), FixedStrength(), AddVector(mechanism))
    search = replace(arm, name="search", emit=SearchShifts(mechanism, STRENGTHS, unsteered=False))
    opens = torch.stack([random_numbers(problem.id, 0, longest)[:, 0] < RATE for problem in problems])
    return arm, search, Hybrid(pair, taxonomy, mechanism, lambda base, _, count: opens[: len(base), count])


def alike(sides: Sides, rounds: int, one: str, other: str) -> dict[str, float]:
    """Median seconds of each side; fails if two of them emit different tokens.

    One row in ten may differ, because ties may be resolved either way, after which the row continues differently.
    """
    said: dict[str, Tokens] = {}
    seconds = medians({name: lambda name=name: said.update({name: sides[name]()}) for name in sides}, rounds, warm=True)
    same = sum(ours == theirs for ours, theirs in zip(said[one], said[other], strict=True))
    assert same >= 0.9 * len(said[one]), f"{one} and {other} agree in {same} of {len(said[one])} rows only"
    return seconds


def compare(pair: Pair, problems: Sequence[Problem], size: Size) -> list[Row]:
    """The rows of the table for one pair."""
    longest = max(new for cases in (size.limit, size.batched, size.searched) for _, new, _ in cases)
    hybrid, search, theirs = workload(pair, problems, longest)
    table: list[Row] = []
    sides: Sides

    def ours(arm: Arm, rows: int, new: int) -> Callable[[], Tokens]:
        return lambda: [trace.tokens for trace in decode_hybrid(pair, arm, problems[:rows], max_new_tokens=new)]

    def alone(rows: int, new: int) -> Tokens:
        asked = {
            model: [model.prompt_ids(problem.question) for problem in problems[:rows]]
            for model in (pair.base, pair.thinking)
        }
        return [list(row.tokens) for model, prompts in asked.items() for row in decode_greedy(model, prompts, new)]

    def row(what: str, against: str, ratio: float, goal: float | None = None, better: str = "higher") -> None:
        table.append(Row(f"{what}, {pair.name}", against, ratio, goal, better))

    for rows, new, rounds in size.limit:
        # A short run warms up as well as a long one.
        ours(hybrid, rows, 2)()
        alone(rows, 2)
        sides = {"hybrid": ours(hybrid, rows, new), "alone": lambda r=rows, n=new: alone(r, n)}
        took = medians(sides, rounds, warm=True)
        ratio = took["hybrid"] / took["alone"]
        row(f"hybrid, {rows} × {new} tokens", "both models decoding alone", ratio, 1.25, "lower")
    for rows, new, rounds in size.batched:
        questions = [problem.question for problem in problems[:rows]]
        sides = {
            "hybrid": ours(hybrid, rows, new),
            "version 2": lambda q=questions, n=new: batched(theirs, q, n),
        }
        took = alike(sides, rounds, "hybrid", "version 2")
        # A single row is rarely steered, so the schedule wastes little there.
        row(
            f"version 2, {rows} × {new} tokens", "hybrid", took["version 2"] / took["hybrid"], 2.0 if rows > 1 else None
        )
    for rows, new, rounds in size.searched:
        sides = {
            "version 1": lambda n=new: [searched(theirs, problems[0].question, n, STRENGTHS)],
            "search": ours(search, 1, new),
            "one": ours(hybrid, 1, new),
            "many": ours(hybrid, rows, new),
        }
        took = alike(sides, rounds, "version 1", "search")
        each = took["many"] / rows
        row(f"version 1, {new} tokens", f"hybrid, a row of {rows}", took["version 1"] / each, 20.0)
        row(f"version 1, {new} tokens", "hybrid, one row", took["version 1"] / took["one"], 20.0)
        row(f"version 1, {new} tokens", "the same search, one row", took["version 1"] / took["search"])
        row(f"hybrid, one row, {new} tokens", f"hybrid, a row of {rows}", took["one"] / each)
    return table


def main() -> None:
    sizes = QUICK if "--quick" in sys.argv else SIZES
    problems = load_problems("story").take("test", 64)
    report("hybrid_decode", [row for pair in pairs() for row in compare(pair, problems, sizes[pair.name])])


if __name__ == "__main__":
    main()
