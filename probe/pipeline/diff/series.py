"""Checkpoint series in ``probe diff``: importance of heads by step, whether runs agree, and massive activations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from probe.activations import documents_of
from probe.circuits import EdgeLens, Head, Pairs
from probe.diff import (
    LEAST,
    Series,
    agreement,
    fit_rise,
    head_importance,
    massive_activations,
    shared_heads,
)
from probe.errors import NotApplicable, ProbeError
from probe.models import Model, Pair
from probe.pipeline.diff.config import DiffConfig
from probe.pipeline.diff.folder import Kept, checkpoint_hash
from probe.traces import Traces

_TEXTS = 10
"""Number of texts in which massive activations of checkpoints are looked for."""


def check_series(pair: Pair, runs: Sequence[tuple[str, Series]]) -> None:
    """Refuse series whose heads cannot be compared with those of the base, by their settings alone.

    Raises:
        ProbeError: naming the checkpoint.
    """
    if not runs:
        return
    try:
        EdgeLens(pair.base)
    except NotApplicable as error:
        raise ProbeError(f"series are compared by their heads (leave out --series): {error}") from error
    base = _shape(pair.base.hf.config)
    for _, series in runs:
        for folder in series.folders:
            try:
                shape = _shape(AutoConfig.from_pretrained(folder))
            except (OSError, ValueError) as error:
                raise ProbeError(
                    f"{folder} holds no checkpoint that can be read: {str(error).splitlines()[0]}"
                ) from None
            if shape != base:
                raise ProbeError(
                    f"{folder} has {shape[0]} layers of {shape[1]} heads and {pair.base.name} {base[0]} of {base[1]}: "
                    "name series of the same model"
                )


def _shape(config: Any) -> tuple[int, int]:
    text = config.get_text_config()
    return text.num_hidden_layers, text.num_attention_heads


def series_results(
    config: DiffConfig,
    pair: Pair,
    traces: Traces,
    pairs: Pairs,
    runs: Sequence[tuple[str, Series]],
    kept: Kept,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Compare the checkpoints of each run; the result of each checkpoint is kept when it is finished.

    Args:
        traces: traces of the thinking model.
        pairs: pairs of texts of the behaviour, which all checkpoints read.
        runs: the series, each with the name of its kind of run.
        kept: keeps the results.
        about: what the pairs of texts depend on.

    Returns:
        ``series``, ``agreement`` and ``chance`` of ``results.json``.
    """
    texts = [each.ids for each in documents_of(pair.thinking, traces[:_TEXTS])]

    def read(model: Model) -> dict[str, Any]:
        found = head_importance(model, pairs, n_parts=1)
        ratio = float(massive_activations(model, texts).ratio.max())
        return {"share": found.share[0].tolist(), "inside": found.in_circuit.tolist(), "massive": ratio}

    start = kept.result("series/base", about, lambda _: read(pair.base))
    told: list[dict[str, Any]] = []
    changes: dict[str, list[torch.Tensor]] = {}
    for name, series in runs:

        def checkpoint(_: Path, at: int, series: Series = series) -> dict[str, Any]:
            return read(series.load(at, config.device, config.dtype, config.memory))

        each = [start]
        for at, step in enumerate(series.steps):
            own = {**about, "checkpoint": checkpoint_hash(series.folders[at])}
            place = f"series/{name}/{step}-{own['checkpoint'][:12]}"
            each.append(kept.result(place, own, partial(checkpoint, at=at)))
        share, inside = (torch.tensor([one[key] for one in each]) for key in ("share", "inside"))
        ratios, steps = [one["massive"] for one in each], [0, *series.steps]
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
    n_heads = pair.thinking.hf.config.get_text_config().num_attention_heads
    return {
        "series": told,
        "agreement": _agreements(changes, config.seed),
        "chance": _chance(told, list(changes), n_heads, config.seed),
    }


def _agreements(changes: Mapping[str, Sequence[torch.Tensor]], seed: int) -> list[dict[str, Any]]:
    """Whether the runs of each name, and of every two names, change the same heads."""
    found = []
    for first, second in combinations_with_replacement(changes, 2):
        if first != second or len(changes[first]) > 1:
            made = agreement(changes[first], None if first == second else changes[second], seed=seed)
            found.append({"runs": [first, second], **asdict(made)})
    return found


def _chance(told: Sequence[Mapping[str, Any]], names: Sequence[str], n_heads: int, seed: int) -> list[dict[str, Any]]:
    """Heads that emerge in all runs of a name, beside what random heads have in common."""
    found = []
    for name in names:
        new = [run["emergent"] for run in told if run["name"] == name]
        if len(new) > 1:
            found.append({"name": name, "runs": len(new), **asdict(shared_heads(new, n_heads, seed=seed))})
    return found


def _heads(inside: torch.Tensor) -> list[Head]:
    return [(layer, head) for layer, head in inside.nonzero().tolist()]
