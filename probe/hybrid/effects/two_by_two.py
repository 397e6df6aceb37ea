"""Whose direction works in whom? A behaviour's direction from either model, added to either (Ward et al., 2507.12638).

They found that the base model's own direction brings backtracking about in the thinking model and not in the base.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import SentenceActivations
from probe.errors import ProbeError
from probe.hooks import Add, edit, force, forced_pass
from probe.hybrid.effects.flip import Start, sentence_behaviours
from probe.models import Model, Pair
from probe.problems import Problem
from probe.statistics import mean_interval
from probe.steering import text_batches, token_behaviours
from probe.taxonomy import Taxonomy
from probe.traces import Trace, decode_greedy, split_sentences, token_starts


@dataclass(frozen=True)
class _Rates:
    """Sentences of the behaviour over all sentences, and their number, for each text."""

    hits: list[int]
    sentences: list[int]

    @property
    def rate(self) -> float:
        return sum(self.hits) / max(1, sum(self.sentences))


def two_by_two(
    pair: Pair,
    taxonomy: Taxonomy,
    behaviour: int,
    traces: tuple[Sequence[Trace], Sequence[Problem], SentenceActivations],
    chosen_on: Sequence[Problem],
    reported_on: Sequence[Problem],
    *,
    layer: int,
    max_new_tokens: int,
    doses: Sequence[float] = (0.25, 0.5, 1.0),
    seed: int = 0,
) -> dict[str, Any]:
    """The rate of a behaviour's sentences with and without its direction added at every token.

    The direction is the difference of means: the state from which the behaviour's sentences are begun, minus that from
    which any token is. Its dose is chosen where the rate is highest, on other problems than those reported on.

    Args:
        behaviour: of the taxonomy; which behaviour a sentence shows is read off the thinking model.
        traces: the thinking model's on the train split, their problems, and their sentences.
        layer: 0-based; read and written in both models.
        max_new_tokens: how far answers are followed.

    Returns:
        ``behaviour``, ``layer``, and ``cells``: ``vector_from``, ``applied_to``, ``dose``, ``rate`` with ``ci`` over
        problems, and ``before``.

    Raises:
        ProbeError: if the two models differ in width.
    """
    models = {"base": pair.base, "thinking": pair.thinking}
    if pair.base.d_model != pair.thinking.d_model:
        raise ProbeError("the two models differ in width: a direction of one cannot be added to the other")
    directions = {name: _direction(pair, model, taxonomy, behaviour, *traces, layer) for name, model in models.items()}
    cells = []
    for source, target in product(models, models):
        model, vector = models[target], directions[source]
        before = _rates(pair, taxonomy, behaviour, model, reported_on, None, layer, max_new_tokens)
        tried = [
            _rates(pair, taxonomy, behaviour, model, chosen_on, dose * vector, layer, max_new_tokens).rate
            for dose in doses
        ]
        dose = doses[max(range(len(doses)), key=lambda i: tried[i])]
        after = _rates(pair, taxonomy, behaviour, model, reported_on, dose * vector, layer, max_new_tokens)
        cells.append(
            {
                "vector_from": source,
                "applied_to": target,
                "dose": dose,
                "rate": after.rate,
                "ci": _interval(after, seed),
                "before": before.rate,
            }
        )
    return {"behaviour": behaviour, "layer": layer, "cells": cells}


def _interval(rates: _Rates, seed: int) -> list[float]:
    return mean_interval(np.asarray(rates.hits, float), np.asarray(rates.sentences, float), seed=seed).to_dict()["ci"]


def _direction(
    pair: Pair,
    model: Model,
    taxonomy: Taxonomy,
    behaviour: int,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    acts: SentenceActivations,
    layer: int,
) -> Float[Tensor, " d_model"]:
    named = token_behaviours(taxonomy, traces, acts)
    starts = [{sentence.token_start for sentence in trace.sentences} for trace in traces]
    at_start, whole, n_start, n_whole = 0.0, 0.0, 0, 0
    for part, emitted in text_batches(pair, traces, problems, 16):
        forced = force(model, [model.prompt_ids(problems[i].question) for i in part], emitted)
        site = f"resid_post.{layer}"
        hidden = forced_pass(model, forced, site, logits=False).predicting(site).float()
        for row, i in enumerate(part):
            states = hidden[row, : len(emitted[row])]
            begins = [j for j in range(len(emitted[row])) if j in starts[i] and int(named[i][j]) == behaviour]
            at_start, n_start = at_start + states[begins].sum(0), n_start + len(begins)
            whole, n_whole = whole + states.sum(0), n_whole + len(states)
    if not n_start:
        raise ProbeError(f"behaviour {behaviour} begins no sentence of these traces; name another")
    return torch.as_tensor(at_start / n_start - whole / n_whole)


def _rates(
    pair: Pair,
    taxonomy: Taxonomy,
    behaviour: int,
    model: Model,
    problems: Sequence[Problem],
    vector: Tensor | None,
    layer: int,
    max_new_tokens: int,
) -> _Rates:
    prompts = [model.prompt_ids(problem.question) for problem in problems]
    if vector is None:
        emissions = decode_greedy(model, prompts, max_new_tokens)
    else:
        with edit(model, {f"resid_post.{layer}": Add(vector.to(model.dtype))}):
            emissions = decode_greedy(model, prompts, max_new_tokens)
    hits, sentences = [0] * len(problems), [0] * len(problems)
    starts, texts, whose = [], [], []
    for i, (problem, emission) in enumerate(zip(problems, emissions, strict=True)):
        prompt = tuple(pair.thinking.prompt_ids(problem.question))
        for begin, end in _spans(model, emission.tokens):
            starts.append(Start((), prompt + emission.tokens[:begin]))
            texts.append(list(emission.tokens[begin:end]))
            whose.append(i)
    for i, shown in zip(whose, sentence_behaviours(pair.thinking, taxonomy, starts, texts), strict=True):
        sentences[i] += 1
        hits[i] += shown == behaviour
    return _Rates(hits, sentences)


def _spans(model: Model, tokens: tuple[int, ...]) -> list[tuple[int, int]]:
    """Token spans of the sentences of an emitted text."""
    text = model.decode(tokens)
    starts = token_starts(model.tokenizer, tokens, text, model.decode)
    edges = [bisect_left(starts, start) for start, _ in split_sentences(text)]
    return [(a, b) for a, b in pairwise([*edges, len(tokens)]) if a < b]
