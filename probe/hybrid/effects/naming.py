"""Agreement of each way of choosing a behaviour during decoding with the sentence that is then written."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

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
        newest = predicting_states(pair.thinking, traces, part, emitted, taxonomy.layer)
        last = predicting_states(pair.thinking, traces, part, emitted, reader.layer)
        for row, i in enumerate(part):
            where = batch.gate[row].to(newest.device)
            states = newest[row].float()
            begins = [sentence.token_start for sentence in traces[i].sentences]
            chosen = {
                "single": taxonomy.behaviour(states[where]),
                "pooled": taxonomy.behaviour(_means_so_far(states, begins)[where]),
                "coming": reader(last[row][where]),
            }
            wanted = batch.behaviour[row][batch.gate[row]]
            for name, behaviour in chosen.items():
                hits[name] += int((behaviour.to(wanted.device) == wanted).sum())
            n += len(wanted)
    return {name: count / max(n, 1) for name, count in hits.items()}


def _means_so_far(states: Float[Tensor, "tokens d_model"], begins: Sequence[int]) -> Float[Tensor, "tokens d_model"]:
    """The mean over the states of a sentence up to each token, where sentences begin at some tokens."""
    sums, column = states.cumsum(0), torch.arange(len(states), device=states.device)
    starts = torch.zeros_like(column)
    starts[[begin for begin in begins if begin < len(states)]] = 1
    first = torch.where(starts.bool(), column, 0).cummax(0).values
    before = torch.where((first > 0)[:, None], sums[(first - 1).clamp(min=0)], 0.0)
    return (sums - before) / (column - first + 1)[:, None]
