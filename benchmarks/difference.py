"""What the mean difference of tiny-rl's states says, and what the base writes with it added: figures of docs/diff.md.

``--quick`` takes fewer problems and random vectors.
"""

import sys

import torch

import probe
from benchmarks.table import Row, report

LAYER, STRENGTH, NEW_TOKENS = 1, 4.0, 96


def main() -> None:
    torch.set_num_threads(1)
    n, n_steered, n_vectors = (24, 6, 100) if "--quick" in sys.argv else (80, 40, 500)
    pair, story = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    problems = story.take("train", n + n_steered)
    traces = probe.generate_traces(pair.thinking, story, problems[:n], max_new_tokens=200)
    check = probe.find_behaviour("check", problem_set=story)
    found = probe.activation_difference(
        pair, traces, problems[:n], layer=LAYER, behaviour=check, n_random=n_vectors
    )  # fmt: skip
    rows = []
    for each in found.readings:
        print(
            f"{each.place}, {each.texts} texts: {each.size:.1%} of a state's norm, correlation {each.agrees:.2f}, "
            f"p {each.least:.3g} ({each.floor:.3g} or more); raises {' '.join(map(repr, each.top[:6]))}"
        )
        if each.place == "sentence ends" and each.agrees is not None:
            limit = max(each.of_null.values())
            rows.append(Row(f"correlation at {each.place}", "harder null, 95 %", each.agrees / limit, 1.0, "higher"))
    steered = probe.steer_with_difference(
        pair.base, found, story, problems[n:], place="sentence ends", ends=traces,
        strengths=(STRENGTH,), behaviour=check, max_new_tokens=NEW_TOKENS,
    )  # fmt: skip
    (checks,) = (each for each in steered.effects if each.measure == "behaviour")
    for name in ("plain", "steered", "random", "more_than_random"):
        print(f"checks, {name}: {getattr(checks, name).write('{:.1%}'.format)}")
    ratio = (checks.steered.value or 0.0) / max(checks.random.value or 0.0, 1e-9)
    rows.append(Row(f"checks of the base with {STRENGTH:g} × the difference", "random vectors", ratio, 1.0, "higher"))
    report("difference", rows)


if __name__ == "__main__":
    main()
