"""``probe circuits``: the edges that carry a behaviour, how much they keep, and a model without the circuit's heads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.circuits import (
    ABLATIONS,
    Circuit,
    EdgeLens,
    Pairs,
    attribute,
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    faithfulness,
    kept_by,
    reference,
    start_tokens,
    strongest_heads,
)
from probe.config import check_least, check_seeds, nearest
from probe.errors import ProbeError
from probe.files import write_json
from probe.models import Model, find_pair, load_pair
from probe.pipeline.behaviour import key_settings, named_behaviour, problems_of
from probe.pipeline.folder import RunFolder
from probe.pipeline.run.inputs import check_positions
from probe.reports import write_circuit_report
from probe.traces import generate_traces

_SIZES = 12
"""The largest number of sizes that are tried in the search for the smallest circuit."""


@dataclass(frozen=True)
class CircuitConfig:
    """All settings of ``probe circuits``."""

    pair: str
    """The pair: the name of a bundled or published pair, or the path of a pair.yaml."""
    behaviour: str
    """The behaviour: a sentence type, a counter as SCHEME:NAME, or a category's number or label if ``run`` is given."""
    run: str | None = None
    """The folder of a run; ``behaviour`` may name a category of its taxonomy."""
    model: str = "thinking"
    """The model whose circuit is found: thinking or base."""
    problems: int = 150
    """The number of train problems whose traces give the pairs of texts."""
    test: int = 100
    """The number of test problems on which ablation is measured."""
    pairs: int = 48
    """The largest number of pairs of texts."""
    method: str = "eap-ig-inputs"
    """The attribution method: eap, eap-ig-inputs, eap-ig-activations or exact."""
    metric: str = "logit-difference"
    """The metric that edges are scored by: logit-difference or divergence."""
    steps: int = 8
    """The number of points at which integrated gradients are evaluated."""
    keeps: float = 0.8
    """The circuit is the smallest that keeps this share of the metric, on the half of the pairs that it is found on."""
    heads: int = 3
    """The number of the circuit's strongest heads that are ablated."""
    ablation: str = "resample"
    """The ablation: resample or mean (from the model's traces of train problems), or zero."""
    where: str = "starts"
    """The tokens at which heads are ablated: starts (those that precede a sentence) or everywhere."""
    draws: int = 5
    """The number of random sets of other heads of the same layers that are ablated for comparison."""
    seed: int = 0
    """The seed of the choice of pairs, the random heads and the resampling."""
    device: str = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "float32"
    """The data type of the weights."""
    shares: tuple[float, ...] = field(default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0))
    """The sizes of circuits at which faithfulness is measured, as shares of all edges."""

    def __post_init__(self) -> None:
        check_least("", self, problems=1, test=1, pairs=4, steps=1, heads=1, draws=1)
        check_seeds("seed", [self.seed])
        if self.ablation not in ABLATIONS:
            raise ProbeError(f"ablation is {self.ablation!r}; {nearest(self.ablation, ABLATIONS)}")
        if self.where not in ("starts", "everywhere"):
            raise ProbeError(f"where is {self.where!r}; use starts or everywhere")
        if self.model not in ("thinking", "base"):
            raise ProbeError(f"model is {self.model!r}; use thinking or base")


def find_circuit(config: CircuitConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Find a behaviour's circuit and write ``circuit.json``, ``results.json`` and ``report.html``.

    Args:
        out: folder of the results.
        progress: show progress bars.

    Returns:
        The content of ``results.json``: sizes, faithfulness on pairs that were not used to choose the circuit, and the
        behaviour with and without the circuit's heads and random other heads.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
    """
    out = Path(out)
    pair = load_pair(find_pair(config.pair), device=config.device, dtype=config.dtype)
    model: Model = getattr(pair, config.model)
    problem_set = problems_of(pair)
    behaviour = named_behaviour(config.behaviour, problem_set, run=config.run, thinking=pair.thinking)
    folder = RunFolder(out, {"circuits": key_settings(config)})
    train, test = problem_set.take("train", config.problems), problem_set.take("test", config.test)
    limit = pair.config.max_new_tokens
    check_positions(model, (*train, *test), limit)
    traces = generate_traces(
        model, problem_set, train, max_new_tokens=limit, folder=folder.path / "traces", progress=progress
    )
    behaviour.marks(traces, required=True)
    pairs = behaviour_pairs(model, traces, train, behaviour, n_pairs=config.pairs, seed=config.seed)
    found, test_pairs = pairs.split()
    lens = EdgeLens(model)
    scored = attribute(lens, found, config.method, metric=config.metric, steps=config.steps, progress=progress)
    curve = faithfulness(lens, scored, test_pairs, config.shares, metric=config.metric, progress=progress)
    circuit = scored.top(_smallest(config, lens, scored, found))
    circuit.save(out / "circuit.json")
    tokens = start_tokens(traces) if config.where == "starts" else None
    heads = strongest_heads(circuit, config.heads)
    effects = effect_of_heads(
        model,
        heads,
        behaviour_look(model, problem_set, test, behaviour, max_new_tokens=limit),
        config.ablation,
        reference=None if config.ablation == "zero" else reference(model, traces, tokens=tokens),
        tokens=tokens,
        n_controls=config.draws,
        seed=config.seed,
        progress=progress,
    )
    results = {
        "model": model.name,
        "behaviour": behaviour.name,
        "pairs": {"found": len(found), "held": len(test_pairs)},
        "edges": len(circuit),
        "of": len(circuit.graph),
        "kept": kept_by(lens, circuit, test_pairs, metric=config.metric),
        "faithfulness": {
            "shares": list(curve.shares), "values": list(curve.values), "cpr": curve.cpr, "cmd": curve.cmd,
        },
        "ablation": config.ablation,
        "where": config.where,
        "heads": {
            "heads": [f"a{layer}.h{head}" for layer, head in heads],
            **{name: effect.to_dict() for name, effect in effects.items()},
        },
    }  # fmt: skip
    write_json(out / "results.json", results)
    write_circuit_report(results, circuit, out / "report.html")
    return results


def _smallest(config: CircuitConfig, lens: EdgeLens, scored: Circuit, found: Pairs) -> int:
    """Bisect for the smallest size. Faithfulness may fall as edges are added, so a smaller one may have been missed."""
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
