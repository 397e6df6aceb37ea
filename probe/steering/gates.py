"""Gates, the positions at which mechanisms are learned: where the two models disagree on the thinking model's text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.activations import SentenceActivations
from probe.errors import ProbeError
from probe.hooks import Forced, force, forced_pass
from probe.models import Pair
from probe.problems import Problem
from probe.taxonomy import Taxonomy
from probe.traces import Trace


@dataclass(frozen=True)
class GateBatch:
    """A batch of traces after the base model's prompt, with everything that training needs.

    Attributes:
        forced: the batch as the base model reads it.
        gate: whether each token is steered, ``[rows, emitted]``; for the hybrid, whether the models' most likely tokens
            differ there.
        behaviour: the behaviour at each token, ``[rows, emitted]``.
        target: the token that steering should produce, ``[rows, emitted]``; for the hybrid, the thinking model's most
            likely one.
        group: a number for each token, ``[rows, emitted]``. Gates of a row with the same number are steered together,
            and later ones see the shifted states of earlier ones. None follows ``persistent`` of the mechanism.
    """

    forced: Forced
    gate: Bool[Tensor, "rows emitted"]
    behaviour: Int[Tensor, "rows emitted"]
    target: Int[Tensor, "rows emitted"]
    group: Int[Tensor, "rows emitted"] | None = None

    @property
    def places(self) -> tuple[Int[Tensor, " gates"], Int[Tensor, " gates"]]:
        """Row and column of ``forced.ids`` at which each gate is steered: the column that predicts its token."""
        rows, emitted = self.gate.nonzero(as_tuple=True)
        return rows, self.forced.predicts[rows, emitted]

    @property
    def slots(self) -> Int[Tensor, " gates"]:
        """The index of each gate among the gates of its row."""
        return (self.gate.cumsum(1) - 1)[self.gate]

    def behaviours(self, n: int) -> Int[Tensor, " gates"]:
        """The behaviour of each gate for a mechanism with ``n`` vectors; a single vector serves all behaviours."""
        return self.behaviour[self.gate].clamp(max=n - 1)

    def __repr__(self) -> str:
        return f"GateBatch({len(self.gate)} texts, {int(self.gate.sum())} gates)"


def collect_gates(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations | None = None,
    batch_size: int = 16,
) -> Iterator[GateBatch]:
    """Find the gates of some traces: run both models over each trace and compare their most likely tokens.

    Args:
        pair: both models; each reads the traces after its own prompt.
        taxonomy: gives the behaviour of each gate.
        traces, problems: traces of the thinking model and their problems, in the same order.
        acts: the harvested sentences of these traces. A gate gets the behaviour of the sentence that its token belongs
            to. Without ``acts``, and for a token in no sentence, the taxonomy reads the thinking model's state that
            predicts the token.
        batch_size: number of traces in a batch.

    Yields:
        Batches of traces of similar length.

    Raises:
        ProbeError: if a trace has a token that the base model cannot read.
        ValueError: if traces and problems are not in the same order.
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
        # As in decoding: a token that only the thinking model has cannot be produced by steering the base model.
        vocab = min(base.logits.shape[-1], thinking.logits.shape[-1])
        thinking_token = thinking.logits[..., :vocab].argmax(-1).to(forced.ids.device)
        gate = (base.logits[..., :vocab].argmax(-1) != thinking_token) & forced.emitted
        behaviour = taxonomy.behaviour(resid.flatten(0, 1)).view(gate.shape).to(forced.ids.device)
        for row, i in enumerate(part):
            if named is None:
                break
            said = named[i][: len(emitted[row])].to(behaviour.device)
            behaviour[row, : len(said)] = torch.where(said >= 0, said, behaviour[row, : len(said)])
        yield GateBatch(forced, gate, behaviour, thinking_token)


def token_behaviours(taxonomy: Taxonomy, traces: Sequence[Trace], acts: SentenceActivations) -> list[Int[Tensor, " _"]]:
    """Find the behaviour of the sentence that each emitted token belongs to.

    Args:
        taxonomy: classifies the sentences.
        traces: the traces whose tokens are labelled.
        acts: the harvested sentences of these traces; sentences of further traces are ignored.

    Returns:
        For each trace one behaviour for each token and one for the end token, which belongs to the last sentence; −1
        where the behaviour is unknown.
    """
    named = [torch.full((len(trace.tokens) + 1,), -1) for trace in traces]
    behaviours = taxonomy.behaviour(acts.rows(taxonomy.site)).tolist()
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
    """Sort traces by length and divide them into batches; empty traces are left out.

    Args:
        pair: the thinking model's end token is appended to traces that were not truncated; of several, the first that
            the base model can read too.
        traces, problems: traces and their problems, in the same order.
        batch_size: number of traces in a batch.

    Yields:
        For each batch the indices of its traces, and the emitted tokens of each.

    Raises:
        ProbeError: if a trace has a token that one of the models cannot read.
        ValueError: if traces and problems are not in the same order.
    """
    for trace, problem in zip(traces, problems, strict=True):
        if trace.problem_id != problem.id:
            raise ValueError(
                f"a trace of {trace.problem_id} is paired with problem {problem.id}: give both in the same order"
            )
    both = min(pair.base.n_embeddings, pair.thinking.n_embeddings)
    for trace in traces:
        if beyond := [token for token in trace.tokens if token >= both]:
            raise ProbeError(
                f"the trace of {trace.problem_id} has token {beyond[0]}, but only ids below {both} have a row in the "
                f"embeddings of both {pair.base.name} and {pair.thinking.name}; leave that trace out, or resize the "
                "smaller embedding"
            )
    end = [token for token in pair.thinking.eos_ids if token < both][:1]
    texts = [[*trace.tokens, *([] if trace.truncated else end)] for trace in traces]
    order = sorted((i for i in range(len(traces)) if texts[i]), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, [texts[i] for i in part]
