"""``probe diff``: what training changed between the models of a pair, and step by step where there are checkpoints."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch

from probe._config import check_least, check_seeds, nearest, to_dict
from probe._errors import ProbeError
from probe._files import write_json
from probe._measured import Measured
from probe.circuits import behaviour_look, behaviour_pairs, effect_of_heads, reference, sentence_starts
from probe.diff import (
    PARTS,
    PairDiff,
    Series,
    agreement,
    compare,
    fit_rise,
    importance_series,
    load_series,
    massive_activations,
)
from probe.models import Model, Pair, find_pair, load_pair
from probe.pipeline.folder import RunFolder
from probe.problems import ProblemSet, load_problems
from probe.reports import write_diff_report
from probe.traces import generate_traces

_CURVE = 6
"""Checkpoints that a curve of five parameters needs."""
_TEXTS = 10
"""Texts that checkpoints' massive activations are looked for in."""


@dataclass(frozen=True)
class DiffConfig:
    """Everything ``probe diff`` can be told."""

    pair: str
    """A bundled pair, or a pair.yaml."""
    behaviour: str | None = None
    """A type of sentence that heads are compared for; the one whose share rose most, unless named."""
    parts: tuple[str, ...] = tuple(PARTS)
    """What is looked at."""
    problems: int = 80
    """Train problems on which the thinking model writes."""
    pairs: int = 48
    layer: int | None = None
    """Of the SAE over both models; None takes the middle."""
    series: tuple[str, ...] = ()
    """Folders of checkpoints, as NAME=FOLDER; runs of one NAME differ by their seeds alone."""
    heads: int = 3
    """So many of the heads that grew most are ablated and scaled in the thinking model; 0 for none."""
    factors: tuple[float, ...] = (0.5, 1.3)
    test: int = 60
    """Test problems on which that is counted."""
    draws: int = 3
    """Sets of other heads of the same layers beside them."""
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_least("", self, problems=4, pairs=8, heads=0, test=1, draws=1, layer=0)
        check_seeds("seed", [self.seed])
        for part in self.parts:
            if part not in PARTS:
                raise ProbeError(f"there is no part {part!r}; {nearest(part, PARTS)} (of: {', '.join(PARTS)})")
        for each in self.series:
            if not all(each.partition("=")[::2]):
                raise ProbeError(f"series is {each!r}: write NAME=FOLDER, as rl=runs/series/rl")


def diff(config: DiffConfig, out: Path, *, progress: bool = False) -> dict[str, Any]:
    """Compare, and write ``results.json`` and ``report.html``.

    Returns:
        What ``results.json`` holds: every finding beside its null, and the figures behind it.

    Raises:
        ProbeError: for anything the user can mend, before the expensive part.
    """
    config_of_pair = find_pair(config.pair)
    runs = [_run(each, config_of_pair.thinking.prompt) for each in config.series]
    pair = load_pair(config_of_pair, device=config.device, dtype=config.dtype)
    if pair.config.problems is None:
        raise ProbeError(f"the pair {pair.config.name} names no problems: write them into its pair.yaml")
    problem_set = load_problems(pair.config.problems)
    RunFolder(out, {"diff": to_dict(config)})
    found = compare(
        pair,
        problems=problem_set,
        behaviour=config.behaviour,
        parts=config.parts,
        n=config.problems,
        pairs=config.pairs,
        layer=config.layer,
        seed=config.seed,
        progress=progress,
    )
    results = plain(found)
    if found.heads is not None and found.behaviour is not None and config.heads:
        grown = found.heads.grown[: config.heads]
        if grown:
            results["effects"] = _effects(config, pair, problem_set, found.behaviour, grown, progress)
    if runs:
        results |= _series(config, pair, problem_set, found.behaviour, runs, progress)
    write_json(out / "results.json", results)
    write_diff_report(results, out / "report.html")
    return results


def plain(found: PairDiff) -> dict[str, Any]:
    """What a comparison found, as ``results.json`` holds it."""
    told: dict[str, Any] = {
        "pair": found.pair,
        "behaviour": found.behaviour,
        "findings": [asdict(each) for each in found.findings],
        "missing": found.missing,
    }
    if found.heads is not None:
        heads = found.heads
        told["heads"] = {
            "before": heads.before.mean(0).tolist(),
            "after": heads.after.mean(0).tolist(),
            "p": heads.p.tolist(),
            **{name: getattr(heads, name) for name in ("grown", "shrunk", "emergent", "lost")},
        }
    for name in ("direction", "truth"):
        if (transfer := getattr(found, name)) is not None:
            told[name] = asdict(transfer)
    if found.knowledge is not None:
        maps = found.knowledge
        told["knowledge"] = {name: getattr(maps, name) for name in ("correlation", "within", "largest")} | {
            name: getattr(maps, name).values.tolist() for name in ("base", "thinking", "into_thinking", "into_base")
        }
    if found.latents is not None:
        latents = found.latents
        told["latents"] = {
            "ratio": latents.ratio.tolist(),
            "back": latents.back.tolist(),
            "active": latents.active.tolist(),
            "thinking_only": latents.thinking_only,
            "base_only": latents.base_only,
            "variance_explained": latents.variance_explained,
        }
    return told


def _effects(
    config: DiffConfig,
    pair: Pair,
    problem_set: ProblemSet,
    behaviour: str,
    grown: list[tuple[int, int]],
    progress: bool,
) -> dict[str, Any]:
    """The thinking model without the heads that grew, and with them made weaker and stronger, beside others."""
    model, limit = pair.thinking, pair.config.max_new_tokens
    train = problem_set.take("train", config.problems)
    traces = generate_traces(model, problem_set, train, max_new_tokens=limit)
    tokens = sentence_starts(traces)
    texts = [[*model.prompt_ids(problem.question), *trace.tokens] for problem, trace in zip(train, traces, strict=True)]
    reads = reference(model, texts, tokens=tokens)
    look = behaviour_look(model, problem_set, problem_set.take("test", config.test), behaviour, max_new_tokens=limit)
    ways: list[str | float] = ["resample", *config.factors]
    effects = {
        str(way): effect_of_heads(
            model, grown, look, way, reads, tokens=tokens, draws=config.draws, seed=config.seed, progress=progress
        )
        for way in ways
    }
    return {
        "heads": [f"a{layer}.h{head}" for layer, head in grown],
        "ways": {way: _told(effect) for way, effect in effects.items()},
    }


def _told(effect: Mapping[str, Mapping[str, Measured]]) -> dict[str, Any]:
    return {name: {side: asdict(each) for side, each in sides.items()} for name, sides in effect.items()}


def _run(told: str, prompt: str) -> tuple[str, Series]:
    name, _, folder = told.partition("=")
    return name, load_series(folder, prompt)


def _series(
    config: DiffConfig,
    pair: Pair,
    problem_set: ProblemSet,
    behaviour: str | None,
    runs: list[tuple[str, Series]],
    progress: bool,
) -> dict[str, Any]:
    """Importance of heads by step, whether runs agree on what changed, and massive activations by step."""
    kind = problem_set.sentence_type
    if kind is None:
        raise ProbeError(f"sentences of {problem_set.name} have no types: a series is compared for one of them")
    behaviour = behaviour or config.behaviour
    if behaviour is None:
        raise ProbeError("a series is compared for a behaviour: name one, or look at the part heads as well")
    train = problem_set.take("train", config.problems)
    traces = generate_traces(pair.thinking, problem_set, train, max_new_tokens=pair.config.max_new_tokens)
    pairs = behaviour_pairs(
        pair.thinking, traces, train, lambda text: kind(text) == behaviour, n=config.pairs, group=1, seed=config.seed
    )
    prompts = (pair.thinking.prompt_ids(problem.question) for problem in train[:_TEXTS])
    texts = [[*prompt, *trace.tokens] for prompt, trace in zip(prompts, traces, strict=False)]
    told, changes = [], {}
    for name, series in runs:
        importance, inside = importance_series(_models(config, pair, series), pairs, progress=progress)
        ratios = [float(massive_activations(model, texts).ratio.max()) for model in _models(config, pair, series)]
        steps = [0, *series.steps]
        changes.setdefault(name, []).append(importance[-1] - importance[0])
        told.append(
            {
                "name": name,
                "steps": steps,
                "importance": importance.tolist(),
                "inside": inside.tolist(),
                "emergent": _heads(inside[-1] & ~inside[0]),
                "lost": _heads(inside[0] & ~inside[-1]),
                "massive": ratios,
                "curve": asdict(fit_rise(steps, ratios)) if len(steps) >= _CURVE else None,
            }
        )
    agreements = []
    for first, second in combinations_with_replacement(changes, 2):
        if first == second and len(changes[first]) < 2:
            continue
        found = agreement(changes[first], None if first == second else changes[second], seed=config.seed)
        agreements.append({"runs": [first, second], **asdict(found)})
    return {"series": told, "agreement": agreements, "chance": _by_chance(told)}


def _models(config: DiffConfig, pair: Pair, series: Series) -> Iterator[Model]:
    """The base and its checkpoints, one in memory at a time."""
    yield pair.base
    for at in range(len(series)):
        yield series.load(at, config.device, config.dtype)


def _heads(inside: torch.Tensor) -> list[tuple[int, int]]:
    return [(layer, head) for layer, head in inside.nonzero().tolist()]


def _by_chance(told: list[dict[str, Any]], draws: int = 2000) -> list[dict[str, Any]]:
    """Heads that every run of a name has as emergent, beside as many drawn from the same layers in each run."""
    found = []
    for name in dict.fromkeys(run["name"] for run in told):
        runs = [run for run in told if run["name"] == name]
        if len(runs) < 2:
            continue
        n_heads = len(runs[0]["importance"][0][0])
        shared = set.intersection(*({tuple(at) for at in run["emergent"]} for run in runs))
        generator = torch.Generator().manual_seed(0)
        drawn = []
        for _ in range(draws):
            sets = []
            for run in runs:
                layers = torch.tensor([layer for layer, _ in run["emergent"]], dtype=torch.long).bincount()
                sets.append(
                    {
                        (layer, head)
                        for layer, count in enumerate(layers.tolist())
                        for head in torch.randperm(n_heads, generator=generator)[:count].tolist()
                    }
                )
            drawn.append(len(set.intersection(*sets)))
        found.append(
            {
                "name": name,
                "runs": len(runs),
                "shared": sorted(shared),
                "by chance": sum(drawn) / draws,
                "p": (1 + sum(each >= len(shared) for each in drawn)) / (1 + draws),
            }
        )
    return found
