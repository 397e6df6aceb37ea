"""Whether a behaviour that was found without labels has the circuit of the sentence type that it matches, on tiny-rl.

For each seed, a taxonomy is found and its category with the most checks is taken; the circuits of the category and of
the type ``check`` are found on pairs of the same traces, and compared by their strongest edges. The ceiling is the
overlap of two circuits of the type whose pairs differ in their seed. A category that has exactly the checks gives the
same pairs and so the same circuit; that of other pairs stands beside it. ``--quick`` takes one seed.
"""

import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

import probe
from benchmarks.table import Row, report
from probe.circuits import Circuit, EdgeLens, Pairs, attribute, kept_by
from probe.config import from_dict
from probe.pipeline import DiscoverConfig, discover
from probe.taxonomy import Behaviour, Taxonomy

TOP, N_PAIRS, STEPS = 40, 64, 8
_OTHER = 100  # between the seeds of pairs and of other pairs


def overlap(one: Circuit, other: Circuit) -> float:
    """The share of the strongest edges of one circuit that are among those of another."""
    names = [{name for name, _ in each.listed(TOP)} for each in (one, other)]
    return len(names[0] & names[1]) / TOP


def found(seed: int, folder: Path) -> Taxonomy:
    """A taxonomy of the traces of tiny-rl, without labels."""
    discover(
        from_dict(
            DiscoverConfig,
            {
                "pair": "tiny-rl",
                "sizes": {"train": 150, "validation": 40},
                "taxonomy": {
                    "sites": ["resid_post.1", "resid_post.2"],
                    "sizes": [6, 8],
                    "seeds": [seed, seed + 10],
                    "rivals": [],
                },
                "device": "cpu",
            },
        ),
        folder,
    )
    return Taxonomy.load(folder / "taxonomy")


def main() -> None:
    torch.set_num_threads(1)
    pair, story = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    model, problems = pair.thinking, story.take("train", 100)
    traces = probe.generate_traces(model, story, problems, max_new_tokens=200)
    check, lens = Behaviour.of_type(story, "check"), EdgeLens(model)
    marks = [shows for row in check.marks(traces) for shows in row]

    def circuit(behaviour: Behaviour, seed: int) -> tuple[Circuit, Pairs]:
        first, second = probe.behaviour_pairs(model, traces, problems, behaviour, n_pairs=N_PAIRS, seed=seed).split()
        return attribute(lens, first, steps=STEPS), second

    seeds = (0,) if "--quick" in sys.argv else (0, 1, 2)
    types, shares, others = {seed: circuit(check, seed) for seed in seeds}, [], []
    with tempfile.TemporaryDirectory() as home:
        for seed in seeds:
            taxonomy = found(seed, Path(home) / str(seed))
            categories = [Behaviour.of_category(taxonomy, i, model) for i in range(taxonomy.n_behaviours)]
            shown = [[shows for row in each.marks(traces) for shows in row] for each in categories]
            hits = [sum(a and b for a, b in zip(marks, each, strict=True)) for each in shown]
            best = int(np.argmax(hits))
            (of_type, second), (of_category, own) = types[seed], circuit(categories[best], seed)
            shares.append(overlap(of_type, of_category))
            others.append(overlap(of_type, circuit(categories[best], seed + _OTHER)[0]))
            kept = {
                "type": kept_by(lens, of_type.top(TOP), second),
                "category": kept_by(lens, of_category.top(TOP), own),
                "category, on the pairs of the type": kept_by(lens, of_category.top(TOP), second),
            }
            print(f"seed {seed}: category {best} of {len(categories)}: {hits[best]} of {sum(marks)} checks")
            print(f"  other sentences in it {sum(shown[best]) - hits[best]}")
            print(f"  overlap {shares[-1]:.2f}, on other pairs {others[-1]:.2f}")
            for name, value in kept.items():
                print(f"  kept by {TOP} edges of the {name}: {value:.2f}")
    rows = [Row(f"overlap of the top {TOP} edges", "category with type, lowest", min(shares), 0.7, "higher")]
    rows.append(
        Row(f"overlap of the top {TOP} edges", "category with type, other pairs, lowest", min(others), 0.7, "higher")
    )
    if ceilings := [overlap(types[a][0], types[b][0]) for a, b in combinations(seeds, 2)]:
        rows.append(
            Row(f"overlap of the top {TOP} edges", "type with type, other pairs", min(ceilings), None, "higher")
        )
    report("discovered", rows)


if __name__ == "__main__":
    main()
