"""``probe circuits``: the edges that carry a behaviour, how much they keep, and a model without the circuit's heads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.circuits import (
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
from probe.errors import ProbeError
from probe.files import write_json
from probe.models import GREEDY, Model, Pair, Placement, as_placement, find_pair, load_pair
from probe.pipeline.behaviour import behaviour_folder, limit_of, named_behaviour, problems_of, traces_of
from probe.pipeline.circuits.config import CircuitConfig
from probe.pipeline.cut import warn_cut
from probe.pipeline.imported import ImportedSplits
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import check_positions
from probe.problems import Taken
from probe.reports import write_circuit_report
from probe.taxonomy import Behaviour

_SIZES = 12
"""The largest number of sizes that are tried in the search for the smallest circuit."""


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
    out = Path(out).expanduser()
    if isinstance(as_placement(config.device), Placement):
        raise ProbeError(
            f"circuits are found on a copy of a model on one device, not on {config.device}; name one device"
        )
    pair = load_pair(find_pair(config.pair), device=config.device, dtype=config.dtype, memory=config.memory)
    if config.method != "exact":
        getattr(pair, config.model).check_gradient(f"attribution by {config.method}")
    taken, imported = problems_of(
        pair.config, pair.thinking, {"train": config.problems, "test": config.test}, traces=config.traces
    )
    problem_set, train, test = taken.problem_set, taken.splits["train"], taken.splits["test"]
    config = replace(config, problems=len(train), test=len(test))
    behaviour = named_behaviour(config.behaviour, problem_set, run=config.run, thinking=pair.thinking)
    limit = limit_of(config, pair)
    check_positions(getattr(pair, config.model), (*train, *test), limit)
    with behaviour_folder("circuits", config, pair, problem_set, imported, out):
        return _find(config, pair, taken, imported, behaviour, out, progress=progress)


def _find(
    config: CircuitConfig,
    pair: Pair,
    taken: Taken,
    imported: ImportedSplits | None,
    behaviour: Behaviour,
    out: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Find the circuit in a folder that is locked."""
    model: Model = getattr(pair, config.model)
    problem_set, train, test = taken.problem_set, taken.splits["train"], taken.splits["test"]
    prompts = begin(out, {config.model: model}, train[0].question, remarks=taken.remarks, progress=progress)
    limit = limit_of(config, pair)
    traces = traces_of(
        model,
        taken,
        imported,
        out,
        max_new_tokens=limit,
        sampling=model.own_sampling if model is pair.thinking else GREEDY,
        seed=config.seed,
        progress=progress,
    )
    behaviour.marks(traces, required=True)
    pairs = behaviour_pairs(model, traces, train, behaviour, n_pairs=config.pairs, seed=config.seed)
    found, test_pairs = pairs.split()
    lens = EdgeLens(model)
    window = (0, None) if config.window is None else (-config.window, None)
    scored = attribute(
        lens, found, config.method, metric=config.metric, steps=config.steps, window=window, progress=progress
    )
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
        "problems": {"name": problem_set.name, "train": len(train), "test": len(test)},
        "prompts": prompts,
        "cut": warn_cut({model.name: traces}, limit, progress=progress),
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
