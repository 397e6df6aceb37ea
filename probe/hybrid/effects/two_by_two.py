"""Whose direction works in which model: a behaviour's direction from either model, added to either of them.

Ward et al. (2507.12638) found that the base model's own direction causes backtracking in the thinking model but not in
the base model.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks import Add, edit
from probe.models import Model, Pair
from probe.problems import Problem, ProblemSet
from probe.statistics import mean_interval
from probe.steering import predicting_states, text_batches
from probe.taxonomy import Behaviour
from probe.traces import Trace, decode_greedy, make_trace


def two_by_two(
    pair: Pair,
    problem_set: ProblemSet,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    behaviour: Behaviour,
    chosen_on: Sequence[Problem],
    reported_on: Sequence[Problem],
    layer: int,
    max_new_tokens: int,
    doses: Sequence[float] = (0.25, 0.5, 1.0),
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how often a behaviour occurs with and without its direction added at every token.

    The direction is a difference of means: the mean state that predicts the first token of the behaviour's sentences,
    minus the mean state that predicts any token. The dose with the highest rate on ``chosen_on`` is reported.

    Args:
        pair: both models; each gives a direction, and each is steered with both directions.
        problem_set: the set that all problems are from.
        traces, problems: traces of the thinking model on the train split and their problems, in the same order.
        behaviour: any behaviour, from :func:`~probe.taxonomy.find_behaviour`.
        chosen_on: problems on which the dose is chosen.
        reported_on: other problems, on which the rates are measured.
        layer: 0-based; the direction is read and added at ``resid_post.layer`` of both models.
        max_new_tokens: limit of emitted tokens.
        doses: multiples of the direction to choose from.
        seed: seeds the resampling of the intervals.

    Returns:
        ``behaviour``, ``layer`` and ``cells``. Each cell has ``vector_from``, ``applied_to``, ``dose``, ``rate`` (the
        behaviour's share of all sentences) with ``ci`` over problems, and ``before``, the rate without steering.

    Raises:
        ProbeError: if the two models differ in width, or no sentence of the traces shows the behaviour.
    """
    models = {"base": pair.base, "thinking": pair.thinking}
    if pair.base.d_model != pair.thinking.d_model:
        raise ProbeError(
            f"{pair.base.name} is {pair.base.d_model} wide and {pair.thinking.name} {pair.thinking.d_model}: "
            "a direction of one cannot be added to the other"
        )
    measure = _Measure(pair, problem_set, behaviour, layer, max_new_tokens)
    directions = {name: measure.direction(model, traces, problems) for name, model in models.items()}
    cells = []
    for source, target in product(models, models):
        model, vector = models[target], directions[source]
        tried = [measure.counts(model, chosen_on, dose * vector).rate for dose in doses]
        dose = doses[max(range(len(doses)), key=lambda i: tried[i])]
        after = measure.counts(model, reported_on, dose * vector)
        interval = mean_interval(np.asarray(after.hits, float), np.asarray(after.sentences, float), seed=seed)
        cells.append(
            {
                "vector_from": source,
                "applied_to": target,
                "dose": dose,
                "rate": after.rate,
                "ci": interval.to_dict()["ci"],
                "before": measure.counts(model, reported_on, None).rate,
            }
        )
    return {"behaviour": behaviour.name, "layer": layer, "cells": cells}


@dataclass(frozen=True)
class _Counts:
    """For each text, the number of sentences that show the behaviour and the number of all sentences."""

    hits: list[int]
    sentences: list[int]

    @property
    def rate(self) -> float:
        return sum(self.hits) / max(1, sum(self.sentences))


@dataclass(frozen=True)
class _Measure:
    pair: Pair
    problem_set: ProblemSet
    behaviour: Behaviour
    layer: int
    max_new_tokens: int

    def direction(
        self, model: Model, traces: Sequence[Trace], problems: Sequence[Problem]
    ) -> Float[Tensor, " d_model"]:
        marks = self.behaviour.marks(traces, required=True)
        at_start, whole, n_start, n_whole = 0.0, 0.0, 0, 0
        asked = traces if model is self.pair.thinking else problems
        for part, emitted in text_batches(self.pair, traces, problems, 16):
            hidden = predicting_states(model, asked, part, emitted, self.layer)
            for row, i in enumerate(part):
                states = hidden[row, : len(emitted[row])].float()
                begins = [
                    sentence.token_start
                    for sentence, shows in zip(traces[i].sentences, marks[i], strict=True)
                    if shows and sentence.token_start < sentence.token_end
                ]
                at_start, n_start = at_start + states[begins].sum(0), n_start + len(begins)
                whole, n_whole = whole + states.sum(0), n_whole + len(states)
        return torch.as_tensor(at_start / max(n_start, 1) - whole / n_whole)

    def counts(self, model: Model, problems: Sequence[Problem], vector: Tensor | None) -> _Counts:
        prompts = [model.prompt_ids(problem.question) for problem in problems]
        steered = (
            nullcontext() if vector is None else edit(model, {f"resid_post.{self.layer}": Add(vector.to(model.dtype))})
        )
        with steered:
            emissions = decode_greedy(model, prompts, self.max_new_tokens)
        # The thinking model's prompt stands before every text, because it is the thinking model that taxonomies read.
        traces = [
            make_trace(self.pair.thinking, self.problem_set, problem, emission.tokens, emission.truncated)
            for problem, emission in zip(problems, emissions, strict=True)
        ]
        marks = self.behaviour.marks(traces)
        return _Counts([sum(row) for row in marks], [len(row) for row in marks])
