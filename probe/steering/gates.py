"""The positions that mechanisms are learned at: where the two models disagree on the thinking model's own text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.activations import SentenceActivations
from probe.hooks import Forced, force, forced_pass
from probe.models import Pair
from probe.problems import Problem
from probe.taxonomy import Taxonomy
from probe.traces import Trace


@dataclass(frozen=True)
class GateBatch:
    """A batch of traces under the base model's prompt, with everything that training needs.

    Attributes:
        forced: the batch as the base model reads it.
        gate: True where it is steered, ``[rows, emitted]``; for the hybrid, where the models' likeliest tokens differ.
        behaviour: what the taxonomy reads off the thinking model there, ``[rows, emitted]``.
        target: the token that is wanted, ``[rows, emitted]``: for the hybrid, the thinking model's most likely one.
        group: which gates of a row are steered together, so that the later see the shifted states of the earlier,
            ``[rows, emitted]``; None where the mechanism's own convention says it.
    """

    forced: Forced
    gate: Bool[Tensor, "rows emitted"]
    behaviour: Int[Tensor, "rows emitted"]
    target: Int[Tensor, "rows emitted"]
    group: Int[Tensor, "rows emitted"] | None = None

    @property
    def places(self) -> tuple[Int[Tensor, " gates"], Int[Tensor, " gates"]]:
        """Row and column of ``forced.ids`` at which each gate is steered: where its token is predicted from."""
        rows, emitted = self.gate.nonzero(as_tuple=True)
        return rows, self.forced.predicts[rows, emitted]

    @property
    def slots(self) -> Int[Tensor, " gates"]:
        """Of each gate, how many its row has before it."""
        return (self.gate.cumsum(1) - 1)[self.gate]

    def behaviours(self, n: int) -> Int[Tensor, " gates"]:
        """Of each gate its behaviour, for a mechanism of ``n``; one of a single vector takes them all for one."""
        return self.behaviour[self.gate].clamp(max=n - 1)


def collect_gates(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations | None = None,
    batch_size: int = 16,
) -> Iterator[GateBatch]:
    """Teacher-force both models on the traces, each behind its own prompt, and compare their most likely tokens.

    Args:
        taxonomy: names the behaviour at each position.
        traces: emitted tokens; those that ended get the end token as their last target.
        problems: the problem of each trace, in the same order.
        acts: the sentences of these traces, as they were harvested: a gate is named by the sentence that its token is
            in. None, or a token in no sentence: by what the taxonomy reads off the thinking model at the token before.

    Yields:
        Batches of traces of similar length.

    Raises:
        ValueError: if a trace is of another problem than the one beside it.
    """
    named = None if acts is None else token_behaviours(taxonomy, traces, acts)
    for part, emitted in text_batches(pair, traces, problems, batch_size):
        forced, asked = (
            force(model, [model.prompt_ids(problems[i].question) for i in part], emitted)
            for model in (pair.base, pair.thinking)
        )
        base = forced_pass(pair.base, forced)
        thinking = forced_pass(pair.thinking, asked, f"resid_post.{taxonomy.layer}")
        resid = thinking.predicting(f"resid_post.{taxonomy.layer}")
        thinking_token = thinking.logits.argmax(-1).to(forced.ids.device)
        gate = (base.logits.argmax(-1) != thinking_token) & forced.emitted
        behaviour = taxonomy.behaviour(resid.flatten(0, 1)).view(gate.shape).to(forced.ids.device)
        for row, i in enumerate(part):
            if named is None:
                break
            said = named[i][: len(emitted[row])].to(behaviour.device)
            behaviour[row, : len(said)] = torch.where(said >= 0, said, behaviour[row, : len(said)])
        yield GateBatch(forced, gate, behaviour, thinking_token)


def token_behaviours(taxonomy: Taxonomy, traces: Sequence[Trace], acts: SentenceActivations) -> list[Int[Tensor, " _"]]:
    """For each trace the behaviour of the sentence that each emitted token is in; −1 where that is not known.

    The end token counts to the last sentence.

    Args:
        acts: the sentences of these traces, as they were harvested; those of further traces are left alone.
    """
    named = [torch.full((len(trace.tokens) + 1,), -1) for trace in traces]
    behaviours = taxonomy.behaviour(acts.vectors[taxonomy.site]).tolist()
    for (trace, sentence), behaviour in zip(acts.index, behaviours, strict=True):
        if trace >= len(traces):
            continue
        span = traces[trace].sentences[sentence]
        end = len(named[trace]) if span.token_end == len(traces[trace].tokens) else span.token_end
        named[trace][span.token_start : end] = behaviour
    return named


def text_batches(
    pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem], batch_size: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Which traces go together, and what each emitted, with the end token where it ended; empty ones are left out.

    Raises:
        ValueError: if a trace is of another problem than the one beside it.
    """
    for trace, problem in zip(traces, problems, strict=True):
        if trace.problem_id != problem.id:
            raise ValueError(f"a trace of {trace.problem_id} beside problem {problem.id}: give both in the same order")
    (eos, *_) = pair.thinking.eos_ids
    texts = [[*trace.tokens, *([] if trace.truncated else [eos])] for trace in traces]
    order = sorted((i for i in range(len(traces)) if texts[i]), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, [texts[i] for i in part]
