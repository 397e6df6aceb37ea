"""``probe diff``: what training changed between the models of a pair, and step by step where there are checkpoints."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch

from probe.activations import documents_of
from probe.circuits import (
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    reference,
    shows_behaviour,
    start_tokens,
)
from probe.config import check_least, check_seeds, to_dict
from probe.diff import (
    LEAST,
    PARTS,
    Series,
    agreement,
    check_parts,
    diff_models,
    fit_rise,
    importance_series,
    load_series,
    massive_activations,
    shared_heads,
)
from probe.errors import ProbeError
from probe.files import write_json
from probe.models import Model, Pair, find_pair, load_pair
from probe.pipeline.folder import RunFolder
from probe.problems import ProblemSet, load_problems
from probe.reports import write_diff_report
from probe.statistics import Interval
from probe.traces import Traces, generate_traces

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
        check_parts(self.parts)
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
    if config.behaviour is not None or runs:
        shows_behaviour(problem_set, config.behaviour or "")
    train = problem_set.take("train", config.problems)
    folder = RunFolder(out, {"diff": to_dict(config)})
    traces = generate_traces(
        pair.thinking,
        problem_set,
        train,
        max_new_tokens=pair.config.max_new_tokens,
        folder=folder.path / "traces",
        progress=progress,
    )
    found = diff_models(
        pair,
        problems=problem_set,
        traces=traces,
        behaviour=config.behaviour,
        parts=config.parts,
        n=config.problems,
        pairs=config.pairs,
        layer=config.layer,
        seed=config.seed,
        progress=progress,
    )
    results = found.to_dict()
    if found.heads is not None and found.behaviour is not None and config.heads:
        grown = found.heads.grown[: config.heads]
        if grown:
            results["effects"] = _effects(config, pair, problem_set, traces, found.behaviour, grown, progress)
    if runs:
        results |= _series(config, pair, problem_set, traces, found.behaviour, runs, progress)
    write_json(out / "results.json", results)
    write_diff_report(results, out / "report.html")
    return results


def _effects(
    config: DiffConfig,
    pair: Pair,
    problem_set: ProblemSet,
    traces: Traces,
    behaviour: str,
    grown: list[tuple[int, int]],
    progress: bool,
) -> dict[str, Any]:
    """The thinking model without the heads that grew, and with them made weaker and stronger, beside others."""
    model, limit = pair.thinking, pair.config.max_new_tokens
    tokens = start_tokens(traces)
    reads = reference(model, traces, tokens=tokens)
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


def _told(effect: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
    return {name: {side: each.to_dict() for side, each in sides.items()} for name, sides in effect.items()}


def _run(told: str, prompt: str) -> tuple[str, Series]:
    name, _, folder = told.partition("=")
    return name, load_series(folder, prompt)


def _series(
    config: DiffConfig,
    pair: Pair,
    problem_set: ProblemSet,
    traces: Traces,
    behaviour: str | None,
    runs: list[tuple[str, Series]],
    progress: bool,
) -> dict[str, Any]:
    """Importance of heads by step, whether runs agree on what changed, and massive activations by step."""
    behaviour = behaviour or config.behaviour
    if behaviour is None:
        raise ProbeError("a series is compared for a behaviour: name one, or look at the part heads as well")
    shows = shows_behaviour(problem_set, behaviour, traces)
    train = problem_set.take("train", config.problems)
    pairs = behaviour_pairs(pair.thinking, traces, train, shows, n=config.pairs, group=1, seed=config.seed)
    texts = [document.ids for document in documents_of(pair.thinking, traces[:_TEXTS])]
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
                "curve": asdict(fit_rise(steps, ratios)) if len(steps) >= LEAST else None,
            }
        )
    agreements = []
    for first, second in combinations_with_replacement(changes, 2):
        if first == second and len(changes[first]) < 2:
            continue
        found = agreement(changes[first], None if first == second else changes[second], seed=config.seed)
        agreements.append({"runs": [first, second], **asdict(found)})
    n_heads = pair.thinking.hf.config.get_text_config().num_attention_heads
    chance = []
    for name in changes:
        new = [run["emergent"] for run in told if run["name"] == name]
        if len(new) > 1:
            found = shared_heads(new, n_heads, seed=config.seed)
            chance.append({"name": name, "runs": len(new), **asdict(found)})
    return {"series": told, "agreement": agreements, "chance": chance}


def _models(config: DiffConfig, pair: Pair, series: Series) -> Iterator[Model]:
    """The base and its checkpoints, one in memory at a time."""
    yield pair.base
    for at in range(len(series)):
        yield series.load(at, config.device, config.dtype)


def _heads(inside: torch.Tensor) -> list[tuple[int, int]]:
    return [(layer, head) for layer, head in inside.nonzero().tolist()]
