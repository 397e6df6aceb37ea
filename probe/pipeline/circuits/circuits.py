"""``probe circuits``: the edges that carry a behaviour, how much they keep, and what a model does without its heads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.circuits import (
    ABLATIONS,
    EdgeLens,
    Faithfulness,
    attribute,
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    faithfulness,
    kept_by,
    reference,
    shows_behaviour,
    start_tokens,
    strongest_heads,
)
from probe.config import check_least, check_seeds, nearest, to_dict
from probe.errors import ProbeError
from probe.files import write_json
from probe.models import Model, find_pair, load_pair
from probe.pipeline.folder import RunFolder
from probe.problems import load_problems
from probe.reports import write_circuit_report
from probe.statistics import Interval
from probe.traces import generate_traces

_SIZES = 12
"""Steps by which the smallest circuit that keeps enough is looked for."""


@dataclass(frozen=True)
class CircuitConfig:
    """Everything ``probe circuits`` can be told."""

    pair: str
    """A bundled pair, or a pair.yaml."""
    behaviour: str
    """A type of sentence of the pair's problem set, as ``check``."""
    model: str = "thinking"
    """Whose circuit: thinking or base."""
    problems: int = 150
    """Train problems whose traces give the pairs."""
    test: int = 100
    """Test problems on which the behaviour is counted without heads."""
    pairs: int = 48
    method: str = "eap-ig-inputs"
    metric: str = "logit-difference"
    steps: int = 8
    keeps: float = 0.8
    """The circuit is the smallest that keeps so much of the metric, on the half of the pairs that it is chosen on."""
    heads: int = 3
    """So many of its strongest heads are ablated."""
    ablation: str = "resample"
    """What is put in their place: resample, mean or zero; the first two of the model's traces of train problems."""
    where: str = "starts"
    """At which tokens: starts, those that a sentence's first token is predicted from; or everywhere."""
    draws: int = 5
    """Sets of other heads of the same layers beside them."""
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    shares: tuple[float, ...] = field(default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0))
    """Of all edges, at which faithfulness is measured."""

    def __post_init__(self) -> None:
        check_least("", self, problems=1, test=1, pairs=4, steps=1, heads=1, draws=1)
        check_seeds("seed", [self.seed])
        if self.ablation not in ABLATIONS:
            raise ProbeError(f"ablation is {self.ablation!r}; {nearest(self.ablation, ABLATIONS)}")
        if self.where not in ("starts", "everywhere"):
            raise ProbeError(f"where is {self.where!r}; name starts or everywhere")
        if self.model not in ("thinking", "base"):
            raise ProbeError(f"model is {self.model!r}; name thinking or base")


def find_circuit(config: CircuitConfig, out: Path, *, progress: bool = False) -> dict[str, Any]:
    """Find a behaviour's circuit and write ``circuit.json``, ``results.json`` and ``report.html``.

    Returns:
        What ``results.json`` holds: sizes, faithfulness (on pairs that nothing was chosen on), and the behaviour's
        counts with and without its heads and matched ones.

    Raises:
        ProbeError: for anything the user can mend, before the expensive part.
    """
    pair = load_pair(find_pair(config.pair), device=config.device, dtype=config.dtype)
    model: Model = getattr(pair, config.model)
    if pair.config.problems is None:
        raise ProbeError(f"the pair {pair.config.name} names no problems: write them into its pair.yaml")
    problem_set = load_problems(pair.config.problems)
    shows_behaviour(problem_set, config.behaviour)
    folder = RunFolder(out, {"circuits": to_dict(config)})
    train, test = problem_set.take("train", config.problems), problem_set.take("test", config.test)
    limit = pair.config.max_new_tokens
    traces = generate_traces(
        model, problem_set, train, max_new_tokens=limit, folder=folder.path / "traces", progress=progress
    )
    shows = shows_behaviour(problem_set, config.behaviour, traces)
    pairs = behaviour_pairs(model, traces, train, shows, n=config.pairs, seed=config.seed)
    found, held = pairs.split()
    lens = EdgeLens(model)
    scored = attribute(lens, found, config.method, metric=config.metric, steps=config.steps, progress=progress)
    curve = faithfulness(lens, scored, held, config.shares, metric=config.metric, progress=progress)
    circuit = scored.top(_smallest(config, lens, scored, found))
    circuit.save(out / "circuit.json")
    tokens = start_tokens(traces) if config.where == "starts" else None
    reads = None if config.ablation == "zero" else reference(model, traces, tokens=tokens)
    heads = strongest_heads(circuit, config.heads)
    look = behaviour_look(model, problem_set, test, config.behaviour, max_new_tokens=limit)
    effect = effect_of_heads(
        model,
        heads,
        look,
        config.ablation,
        reads,
        tokens=tokens,
        draws=config.draws,
        seed=config.seed,
        progress=progress,
    )
    results = {
        "model": model.name,
        "behaviour": config.behaviour,
        "pairs": {"found": len(found), "held": len(held)},
        "edges": len(circuit),
        "of": len(circuit.graph),
        "kept": kept_by(lens, circuit, held, metric=config.metric),
        "faithfulness": _curve(curve),
        "ablation": config.ablation,
        "where": config.where,
        "heads": {"heads": [f"a{layer}.h{head}" for layer, head in heads], **_plain(effect)},
    }
    write_json(out / "results.json", results)
    write_circuit_report(results, circuit, out / "report.html")
    return results


def _smallest(config: CircuitConfig, lens: EdgeLens, scored: Any, found: Any) -> int:
    """By halving; faithfulness need not grow with every edge, so it is the smallest of those that were looked at."""
    low, high = 0, len(scored.graph)
    for _ in range(_SIZES):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        if kept_by(lens, scored.top(middle), found, metric=config.metric) >= config.keeps:
            high = middle
        else:
            low = middle
    return high


def _curve(curve: Faithfulness) -> dict[str, Any]:
    return {"shares": list(curve.shares), "values": list(curve.values), "cpr": curve.cpr, "cmd": curve.cmd}


def _plain(effect: dict[str, dict[str, Interval]]) -> dict[str, Any]:
    return {name: {side: each.to_dict() for side, each in sides.items()} for name, sides in effect.items()}
