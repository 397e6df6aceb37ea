"""Agreement of each way of choosing a behaviour during decoding with the sentence that is then written."""

from collections.abc import Sequence

import torch

from probe.models import Pair
from probe.problems import Problem
from probe.steering import ComingReader, GateBatch, predicting_states, text_batches
from probe.taxonomy import Taxonomy
from probe.traces import Trace


@torch.no_grad()
def naming_agreement(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    reader: ComingReader,
    gates: Sequence[GateBatch],
    batch_size: int = 16,
) -> dict[str, float]:
    """Measure how often the chosen behaviour at a gate is that of the sentence that the gate's token belongs to.

    Args:
        pair: the thinking model of the pair is read.
        traces, problems: traces of the thinking model and their problems, in the same order.
        reader: from :func:`~probe.steering.learn_reader`.
        gates: the gates of these traces, from :func:`~probe.steering.collect_gates` with the same ``batch_size`` and
            with harvested sentences.
        batch_size: number of traces in a batch.

    Returns:
        Three shares: ``single``, the taxonomy reads the newest token (as published); ``pooled``, it reads the mean over
        the current sentence; ``coming``, the reader predicts the behaviour.
    """
    hits: dict[str, int] = {"single": 0, "pooled": 0, "coming": 0}
    n = 0
    batches = text_batches(pair, traces, problems, batch_size)
    for batch, (part, emitted) in zip(gates, batches, strict=True):
        states = predicting_states(pair.thinking, problems, part, emitted, taxonomy.layer).float()
        last = predicting_states(pair.thinking, problems, part, emitted, reader.layer)
        sums = states.cumsum(1)
        column = torch.arange(states.shape[1], device=states.device)
        begins = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        for row, i in enumerate(part):
            begins[row, [s.token_start for s in traces[i].sentences if s.token_start < states.shape[1]]] = True
        first = torch.where(begins, column, 0).cummax(1).values
        before = torch.where(
            (first > 0)[..., None], sums.gather(1, (first - 1).clamp(min=0)[..., None].expand_as(sums)), 0.0
        )
        pooled = (sums - before) / (column - first + 1)[..., None]
        gate, wanted = batch.gate, batch.behaviour[batch.gate]
        where = gate.to(states.device)
        chosen = {
            "single": taxonomy.behaviour(states[where]),
            "pooled": taxonomy.behaviour(pooled[where]),
            "coming": reader(last[where]),
        }
        for name, behaviour in chosen.items():
            hits[name] += int((behaviour.to(wanted.device) == wanted).sum())
        n += len(wanted)
    return {name: count / max(n, 1) for name, count in hits.items()}
