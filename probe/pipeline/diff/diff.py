"""``probe diff``: what training changed between the models of a pair, and along checkpoint series if there are any."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch

from probe.activations import documents_of
from probe.circuits import (
    Head,
    Pairs,
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    reference,
    start_tokens,
)
from probe.diff import (
    LEAST,
    Series,
    agreement,
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
from probe.pipeline.behaviour import behaviour_folder, limit_of, named_behaviour, problems_of, traces_of
from probe.pipeline.cut import warn_cut
from probe.pipeline.diff.config import DiffConfig
from probe.pipeline.imported import ImportedSplits
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import check_positions
from probe.problems import Taken
from probe.reports import write_diff_report
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Traces

_TEXTS = 10
"""Number of texts in which massive activations of checkpoints are looked for."""


def diff(config: DiffConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Compare the models of a pair, and write ``results.json`` and ``report.html``.

    Args:
        out: folder of the results.
        progress: show progress bars.

    Returns:
        The content of ``results.json``: every finding with its null, and the numbers behind it.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
    """
    out = Path(out).expanduser()
    pair_config = find_pair(config.pair)
    runs = [(name, load_series(folder, pair_config.thinking)) for name, _, folder in map(_parted, config.series)]
    pair = load_pair(pair_config, device=config.device, dtype=config.dtype, memory=config.memory)
    changes = bool(config.heads) and "heads" in config.parts
    wanted = {"train": config.problems} | ({"test": config.test} if changes else {})
    taken, imported = problems_of(pair_config, pair.thinking, wanted, traces=config.traces)
    problem_set, train = taken.problem_set, taken.splits["train"]
    config = replace(config, problems=len(train), test=len(taken.splits["test"]) if changes else config.test)
    behaviour = None
    if config.behaviour is not None:
        behaviour = named_behaviour(config.behaviour, problem_set, run=config.run, thinking=pair.thinking)
    elif runs and problem_set.sentence_type is None:
        raise ProbeError(
            f"sentences of {problem_set.name} have no types: name the behaviour that series are compared for"
        )
    elif runs and "heads" not in config.parts:
        raise ProbeError("series are compared for one behaviour: name it, or add heads to the parts")
    limit = limit_of(config, pair)
    for model in (pair.base, pair.thinking):
        check_positions(model, (*train, *taken.splits.get("test", ())), limit)
    with behaviour_folder("diff", config, pair, problem_set, imported, out):
        return _diff(config, pair, taken, imported, behaviour, runs, out, progress=progress)


def _diff(
    config: DiffConfig,
    pair: Pair,
    taken: Taken,
    imported: ImportedSplits | None,
    behaviour: Behaviour | None,
    runs: list[tuple[str, Series]],
    out: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Compare the models in a folder that is locked."""
    problem_set, train = taken.problem_set, taken.splits["train"]
    models = {"base": pair.base, "thinking": pair.thinking}
    prompts = begin(out, models, train[0].question, remarks=taken.remarks, progress=progress)
    limit = limit_of(config, pair)
    traces = traces_of(
        pair.thinking,
        taken,
        imported,
        out,
        max_new_tokens=limit,
        sampling=pair.thinking.own_sampling,
        seed=config.seed,
        progress=progress,
    )
    found = diff_models(
        pair,
        problem_set=problem_set,
        traces=traces,
        behaviour=behaviour,
        parts=config.parts,
        n_problems=config.problems,
        max_new_tokens=limit,
        n_pairs=config.pairs,
        layer=config.layer,
        seed=config.seed,
        progress=progress,
    )
    cut = warn_cut({pair.thinking.name: traces}, limit, progress=progress)
    counts = {split: len(some) for split, some in taken.splits.items()}
    results = found.to_dict() | {"problems": {"name": problem_set.name, **counts}, "prompts": prompts, "cut": cut}
    if behaviour is None and found.behaviour is not None:
        behaviour = find_behaviour(found.behaviour, problem_set=problem_set)
    if found.heads is not None and behaviour is not None and config.heads:
        grown = found.heads.grown[: config.heads]
        if grown:
            results["effects"] = _effects(config, pair, taken, traces, (behaviour, grown), progress=progress)
    if runs:
        if behaviour is None:
            raise ProbeError("series are compared for one behaviour: name it, or add heads to the parts")
        pairs = behaviour_pairs(pair.thinking, traces, train, behaviour, n_pairs=config.pairs, seed=config.seed)
        results |= _series(config, pair, traces, pairs, runs, progress=progress)
    write_json(out / "results.json", results)
    write_diff_report(results, out / "report.html")
    return results


def _effects(
    config: DiffConfig,
    pair: Pair,
    taken: Taken,
    traces: Traces,
    grown: tuple[Behaviour, list[Head]],
    *,
    progress: bool,
) -> dict[str, Any]:
    """The thinking model with the heads that grew most ablated, weakened and strengthened, beside random heads."""
    model, limit = pair.thinking, limit_of(config, pair)
    behaviour, heads = grown
    tokens = start_tokens(traces)
    written = reference(model, traces, tokens=tokens)
    look = behaviour_look(model, taken.problem_set, taken.splits["test"], behaviour, max_new_tokens=limit)
    ways: dict[str, Any] = {}
    for way in ("resample", *config.factors):
        effects = effect_of_heads(
            model, heads, look, way,
            reference=written, tokens=tokens, n_controls=config.draws, seed=config.seed, progress=progress,
        )  # fmt: skip
        ways[str(way)] = {name: effect.to_dict() for name, effect in effects.items()}
    return {"heads": [f"a{layer}.h{head}" for layer, head in heads], "ways": ways}


def _parted(series: str) -> tuple[str, str, str]:
    return series.partition("=")


def _series(
    config: DiffConfig, pair: Pair, traces: Traces, pairs: Pairs, runs: list[tuple[str, Series]], *, progress: bool
) -> dict[str, Any]:
    """Importance of heads by step, whether runs agree on its changes, and massive activations by step."""
    texts = [document.ids for document in documents_of(pair.thinking, traces[:_TEXTS])]
    told: list[dict[str, Any]] = []
    changes: dict[str, list[torch.Tensor]] = {}
    for name, series in runs:
        importance = importance_series(_models(config, pair, series), pairs, progress=progress)
        share, inside = importance.share, importance.in_circuit
        ratios = [float(massive_activations(model, texts).ratio.max()) for model in _models(config, pair, series)]
        steps = [0, *series.steps]
        changes.setdefault(name, []).append(share[-1] - share[0])
        told.append(
            {
                "name": name,
                "steps": steps,
                "importance": share.tolist(),
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
    """The base and its checkpoints; only one checkpoint is in memory at a time."""
    yield pair.base
    for at in range(len(series)):
        yield series.load(at, config.device, config.dtype)


def _heads(inside: torch.Tensor) -> list[Head]:
    return [(layer, head) for layer, head in inside.nonzero().tolist()]
