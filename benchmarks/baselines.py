"""Baselines beside the hybrid, each with its price: on both bundled pairs, 500 test problems, three seeds.

``--quick`` takes 20 problems and one seed. ``--smollm2`` runs the recipe ``inference`` and LatentSeek on SmolLM2-135M,
asked in two ways, with 4 problems of gsm_symbolic. An interrupted run resumes; runs are kept in ``runs/baselines``.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import Row, report
from probe.config import from_dict
from probe.hybrid import LATENT_SEEK, seeds_recovered
from probe.pipeline import RunConfig, run
from probe.statistics import Grades, score_interval

OUT = Path("runs/baselines")
SEEDED = ("oracle-free", "lora", "bias", "majority")
"""Arms beside the hybrid that depend on the seed; further seeds run only these."""
ARMS = ("inference", *LATENT_SEEK, *SEEDED, "speculative", "fusion", "rerank-only", "force-token")
TINY = {
    "instructions": [" Let us look for the change that comes now.", " Check that"],
    "waits": [" Second,", " Now", " Check that", " Redo it:"],
}
"""Texts in the words of the bundled models."""
SELF = {"reward": "confidence"}
"""The bundled models cannot read the questions by which LatentSeek lets a model verify its answer."""
WHOLE = {
    "sizes": {"train": 100, "validation": 60, "test": 500},
    "taxonomy": {"sites": ["resid_post.1", "resid_post.2"], "sizes": [6, 8], "rivals": []},
    "decoding": {"batch_size": 125},
    "look": 0,
}
QUICK = {
    "sizes": {"train": 60, "validation": 20, "test": 20},
    "taxonomy": {"steps": 200, "seeds": [0]},
    "policy": {"steps": 100},
    "distil": {"steps": 50},
    "look": 0,
}
SMOLLM2 = {
    "base": {"path": "smollm2-135m"},
    "thinking": {"path": "smollm2-135m", "prompt": "{question}\nThink step by step.\n<think>\n"},
    "problems": "reasoning-gym:gsm_symbolic",
    "device": "cpu",
    "look": 0,
    "sizes": {"train": 8, "validation": 4, "test": 4},
    "decoding": {"max_new_tokens": 48},
    "taxonomy": {"sites": ["resid_post.12"], "sizes": [3], "k": 1, "steps": 20, "seeds": [0], "rivals": []},
    "steering": {"steps": 2, "seeds": [0]},
    "hybrid": {
        "arms": ["inference", *LATENT_SEEK],
        "tuned_on": 2,
        "budgets": [24],
        "additions": [1.0, 2.0],
        "addition_texts": 4,
    },
    "latent_seek": {"updates": 1, "verdict_tokens": 24},
}
COLUMNS = (
    *("correct", "gap recovered", "tokens", "passes of base", "passes of thinking"),
    *("bits a token", "fitted", "looping", "seconds"),
)


def main() -> None:
    torch.set_num_threads(1)
    if "--smollm2" in sys.argv:
        began = time.monotonic()
        found = run(from_dict(RunConfig, SMOLLM2), OUT / "smollm2", progress=True)
        print(f"{len(found['arms'])} arms in {time.monotonic() - began:.0f} seconds")
        print(table({0: (found, graded(OUT / "smollm2"))}))
        return
    quick, rows = "--quick" in sys.argv, []
    for pair in ("tiny-rl", "tiny-sft"):
        runs = {seed: measured(pair, seed, quick) for seed in ((0,) if quick else (0, 1, 2))}
        print(f"\n{pair}, {runs[0][0]['problems']['n']} test problems, seeds {', '.join(map(str, runs))}\n")
        print(table(runs))
        arms = runs[0][0]["arms"]
        best = arms["thinking"]["accuracy"] or 1.0
        rows += [
            Row(f"{pair}: {name} correct", "the thinking model", (arm["accuracy"] or 0.0) / best, None, "higher")
            for name, arm in arms.items()
            if name != "thinking"
        ]
    report("baselines", rows)


def measured(pair: str, seed: int, quick: bool) -> tuple[dict[str, Any], dict[str, Grades]]:
    """The results of a run with one seed, and the grades of its arms; a further seed has only what depends on it."""
    settings = QUICK if quick else WHOLE
    steering = {"seeds": [seed], **({"steps": 100} if quick else {})}
    arms = {"arms": list(ARMS if seed == 0 else SEEDED), **TINY, **({"tuned_on": 20} if quick else {})}
    told = {**settings, "pair": pair, "seed": seed, "steering": steering, "hybrid": arms, "latent_seek": SELF}
    out = OUT / f"{pair}-{'quick-' if quick else ''}{seed}"
    return run(from_dict(RunConfig, told), out, progress=True), graded(out)


def graded(out: Path) -> dict[str, Grades]:
    """Which test problems each arm of a run solved."""
    return json.loads((out / "graded.json").read_text())["correct"]


def table(runs: Mapping[int, tuple[dict[str, Any], dict[str, Grades]]]) -> str:
    """A table of all arms in Markdown; accuracy and gap recovered are over all seeds, costs are those of the first."""
    first = next(iter(runs.values()))[0]
    lines = [f"| arm | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, arm in first["arms"].items():
        seeds = [grades for _, grades in runs.values() if name in grades]
        whole = score_interval([_together([grades[name][i] for grades in seeds]) for i in range(len(seeds[0][name]))])
        low, high = whole.to_dict()["ci"]
        gap = ""
        if name not in ("base", "thinking"):
            found = seeds_recovered([grades[name] for grades in seeds], seeds[0]["base"], seeds[0]["thinking"])
            gap = "no gap" if found["value"] is None else _two(found["value"])
            gap += " [{}, {}]".format(*map(_two, found["ci"])) if found["ci"] else ""
        costs = (
            f"{arm['tokens_per_answer']:.0f}",
            f"{arm['base_passes']:.0f}",
            f"{arm['thinking_passes']:.0f}",
            "" if arm.get("bits_per_token") is None else f"{arm['bits_per_token']:.2f}",
            f"{arm.get('fitted_parameters') or 0}",
            f"{arm['looping']:.0%}",
            "" if arm["seconds"] is None else f"{arm['seconds']:.0f}",
        )
        lines.append(f"| {name} | {whole.value:.0%} [{low:.0%}, {high:.0%}] | {gap} | {' | '.join(costs)} |")
    return "\n".join(lines)


def _two(value: float) -> str:
    """Two decimals; a value that rounds to zero has no sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _together(grades: Sequence[Any]) -> Any:
    """The grades of a problem with several seeds; a single one as it is."""
    flat = [one for each in grades for one in (each if isinstance(each, list) else [each])]
    return flat[0] if len(flat) == 1 else flat


if __name__ == "__main__":
    main()
