"""Vectors learned on whole sentences, as in the first version of the method (Venhoff et al., 2510.07364v1).

First one vector is learned for all text of the thinking model (the bias), then one vector for each behaviour on top of
it. Each is trained to make the base model write the thinking model's sentences of that behaviour, using the sentences
that the base model finds least likely. Corrected: the shift is added at the output of the site's block and at the token
that predicts (published: one block off and one token late), sentences are located by token and not by searching for
their text, categories without a sentence keep the bias alone, and the best step is chosen on validation sentences.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from probe.activations import SentenceActivations
from probe.hooks import (
    Forced,
    force,
    forced_pass,
    in_rows,
)
from probe.models import Model, Pair
from probe.problems import Problem
from probe.steering.gates import GateBatch, text_batches
from probe.steering.learn import Learned, SteeringConfig, learn_mechanism, typical_coordinate
from probe.steering.mechanism import FixedVectors
from probe.taxonomy import Taxonomy
from probe.traces import Trace


def sentence_batches(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations,
    per_behaviour: int = 2048,
    batch_size: int = 16,
) -> list[GateBatch]:
    """Find, for each behaviour, the sentences of the thinking model that the base model finds least likely.

    Args:
        pair: both models.
        taxonomy: classifies the sentences.
        traces, problems: traces of the thinking model and their problems, in the same order.
        acts: the harvested sentences of the traces.
        per_behaviour: the maximum number of sentences for each behaviour.
        batch_size: number of traces in a batch.

    Returns:
        Batches in which every token of these sentences is a gate, and each sentence is a group.
    """
    named = dict(zip(acts.index, taxonomy.behaviour(acts.rows(taxonomy.site)).tolist(), strict=True))
    found: list[tuple[Forced, list[tuple[int, int, int, float]]]] = []
    ranked: dict[int, list[float]] = {k: [] for k in range(taxonomy.n_behaviours)}
    for part, emitted in text_batches(pair, traces, problems, batch_size):
        forced = force(pair.base, [pair.base.prompt_ids(problems[i].question) for i in part], emitted)
        losses = _losses(pair.base, forced)
        spans = []
        for row, i in enumerate(part):
            for s, sentence in enumerate(traces[i].sentences):
                start, end = sentence.token_start, sentence.token_end
                if (i, s) in named and start < end:
                    loss = losses[row, start:end].mean().item()
                    spans.append((row, i, s, loss))
                    ranked[named[i, s]].append(loss)
        found.append((forced, spans))
    least = {k: sorted(losses, reverse=True)[:per_behaviour][-1] if losses else 0.0 for k, losses in ranked.items()}
    batches = []
    for forced, spans in found:
        gate = torch.zeros_like(forced.emitted)
        behaviour, group = (torch.zeros(forced.emitted.shape, dtype=torch.long, device=gate.device) for _ in range(2))
        for number, (row, i, s, loss) in enumerate(spans):
            if loss >= least[named[i, s]]:
                at = slice(traces[i].sentences[s].token_start, traces[i].sentences[s].token_end)
                gate[row, at], behaviour[row, at], group[row, at] = True, named[i, s], number
        batches.append(GateBatch(forced, gate, behaviour, forced.tokens, group))
    return batches


def learn_on_sentences(
    base: Model,
    train: Sequence[GateBatch],
    validation: Sequence[GateBatch],
    *,
    n_behaviours: int,
    layer: int,
    config: SteeringConfig,
    seed: int,
    folder: str | Path | None = None,
    progress: bool = False,
) -> tuple[Learned, Learned]:
    """Learn the vectors of the first version.

    Args:
        base: the base model, which stays frozen.
        train, validation: from :func:`sentence_batches`.
        n_behaviours: K of the taxonomy; 0 learns the bias alone.
        layer: the 0-based steering layer.
        config: the settings of the training; gates are always balanced.
        seed: seeds the initial values and the order of batches.
        folder: keeps the residual streams below the steering layer; see :func:`~probe.steering.learn_vectors`.
        progress: show a bar.

    Returns:
        One vector for each behaviour, which includes the bias; and the bias alone.
    """
    unit = typical_coordinate(base, train[:4], layer)

    def learn(
        start: Float[Tensor, "behaviours d_model"], seen: Sequence[GateBatch], unseen: Sequence[GateBatch]
    ) -> Learned:
        vectors = FixedVectors(len(start), base.d_model, layer, unit=unit, persistent=True)
        vectors.directions = nn.Parameter(start.clone())
        return learn_mechanism(base, vectors, seen, unseen, config=alike, seed=seed, folder=folder, progress=progress)

    alike = replace(config, balance=True, per_trace=None)
    whole_train, whole_validation = ([_whole(batch) for batch in some] for some in (train, validation))
    generator = torch.Generator().manual_seed(seed)
    start = 0.01 * torch.randn(1, base.d_model, generator=generator).to(base.device)
    bias = learn(start, whole_train, whole_validation)
    fixed = replace(bias, vectors=FixedVectors.of(bias.vectors.vectors, layer))
    if not n_behaviours:
        return fixed, fixed
    noise = 0.01 * torch.randn(n_behaviours, base.d_model, generator=generator).to(base.device)
    learned = learn(bias.vectors.vectors / unit + noise, train, validation)
    return replace(learned, vectors=FixedVectors.of(learned.vectors.vectors, layer)), fixed


def _whole(batch: GateBatch) -> GateBatch:
    """Steer every emitted token of the texts."""
    return replace(batch, gate=batch.forced.emitted, behaviour=torch.zeros_like(batch.behaviour), group=None)


@torch.no_grad()
def _losses(base: Model, forced: Forced) -> Float[Tensor, "rows emitted"]:
    def read(some: Forced) -> tuple[Tensor, ...]:
        losses = forced_pass(base, some).over_logits(
            lambda logits, tokens: F.cross_entropy(logits.float(), tokens, reduction="none")
        )
        return (losses,)

    return in_rows(base, forced, read, what="finding unlikely sentences")[0]
